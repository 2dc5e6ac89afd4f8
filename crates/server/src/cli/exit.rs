//! Exit codes. Scripts rely on them, so they do not change their meaning.

/// It is done.
pub const DONE: u8 = 0;
/// It could not be done: nobody there, or something unexpected.
pub const FAILED: u8 = 1;
/// The command line is wrong. (This is clap's.)
pub const USAGE: u8 = 2;
/// The configuration is wrong.
pub const CONFIGURATION: u8 = 3;
/// It is being done: ask again.
pub const PROCESSING: u8 = 10;
/// It was refused for good: the same request will be refused again.
pub const REFUSED: u8 = 11;
/// It may have been done, and nobody knows: do not repeat it under another key.
pub const UNKNOWN: u8 = 12;
/// It was not done: try again, with the same key.
pub const TRY_AGAIN: u8 = 13;
/// Somebody has interrupted it (Ctrl-C), and it has said how far it came. (It is what shells say of any such program.)
pub const INTERRUPTED: u8 = 130;

/// What `--help` says about them.
pub(super) const HELP: &str = "\
Exit codes: 0 done · 1 failed · 2 wrong command line · 3 wrong configuration
            10 still processing · 11 refused for good · 12 outcome unknown · 13 not done, try again with the same key
            130 interrupted";

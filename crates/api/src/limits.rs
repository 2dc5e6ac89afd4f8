//! Limits of the wire that are the same for every configuration.

/// Records or audit entries that a page has when the request does not say.
pub const PAGE_DEFAULT: u32 = 50;
/// Records or audit entries that a page can have.
pub const PAGE_MAX: u32 = 1_000;
/// Records that one request of a bulk form works on when it does not say; the answer's `next` goes on from there.
pub const BULK_DEFAULT: u32 = 1_000;
/// Records that one request of a bulk form can work on: each is a durable write, so this bounds how long it takes.
pub const BULK_MAX: u32 = 10_000;
/// Records that a preview counts before it says "at least": a preview must stay cheap.
pub const PREVIEW_MAX: u32 = 10_000;
/// Failures that a bulk answer names one by one; beyond, they are only counted.
pub const BULK_FAILURES_MAX: usize = 100;
/// Bytes of a body that a record's page shows; the rest is cut, and said to be.
pub const EXCERPT_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a reason that an operator gives.
pub const REASON_BYTES_MAX: usize = 1_024;
/// Dead letters that one answer reads to group or to count them: grouping must stay cheap, however many have died.
pub const DEAD_READ_MAX: u32 = 10_000;
/// Groups of dead letters that an answer shows when the request does not say.
pub const DEAD_GROUPS_DEFAULT: u32 = 20;
/// Groups of dead letters that an answer can show.
pub const DEAD_GROUPS_MAX: u32 = 100;
/// Tries of a record that are shown with it: a few times what a schedule allows unless configured.
pub const ATTEMPTS_SHOWN_MAX: u32 = 200;
/// Dead letters that a request can name one by one.
pub const DEAD_NAMED_MAX: usize = 1_000;
/// Dead letters per second that a request can ask for.
pub const DEAD_RATE_MAX: u32 = 10_000;

const _: () = assert!(ATTEMPTS_SHOWN_MAX <= PAGE_MAX && DEAD_GROUPS_DEFAULT <= DEAD_GROUPS_MAX);
const _: () = assert!(PAGE_DEFAULT <= PAGE_MAX);
const _: () = assert!(BULK_DEFAULT <= BULK_MAX);

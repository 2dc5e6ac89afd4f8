//! Servers whose wall clock is not this machine's: a library that `cargo xtask services` finds stands before the system's
//! calls. Their monotonic clocks go like all others.

use tempfile::TempDir;

/// The library; `None`, with a word, by hand and without it.
pub(crate) fn library() -> Option<String> {
    let found = std::env::var("SEMEL_TEST_FAKETIME").ok();
    if found.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "SEMEL_TEST_FAKETIME is not set; `cargo xtask test` sets it"
        );
        println!("skipped: SEMEL_TEST_FAKETIME is not set; `eval \"$(cargo xtask services env)\"` sets it");
    }
    found
}

/// A wall clock that steps while its server runs.
pub(crate) struct WallClock {
    library: String,
    folder: TempDir,
}

impl WallClock {
    /// One that is right, so far.
    pub(crate) fn new() -> Option<Self> {
        let clock = Self { library: library()?, folder: tempfile::tempdir().unwrap() };
        clock.step("+0s");
        Some(clock)
    }

    /// From now on it is off by so much.
    pub(crate) fn step(&self, off_by: &str) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, format!("{off_by}\n")).unwrap();
        // At once: a clock that is read in the middle of a write would be none.
        std::fs::rename(new, self.file()).unwrap();
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("clock")
    }

    /// What makes a server go by it.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("LD_PRELOAD", self.library.clone()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}

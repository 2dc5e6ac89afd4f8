//! What tests of stores over a network need to find their service, and a part of it of their own.

/// What a variable says that `cargo xtask services` sets, or `None` where tests need none: by hand, and in a quick run. Under
/// CI a missing service is a failure.
pub(crate) fn variable(name: &str) -> Option<String> {
    let said = std::env::var(name).ok();
    if said.is_none() {
        assert!(
            std::env::var_os("CI").is_none() || std::env::var_os("SEMEL_QUICK").is_some(),
            "{name} is not set; `cargo xtask test` sets it"
        );
        println!("skipped: {name} is not set; `eval \"$(cargo xtask services env)\"` sets it");
    }
    said
}

/// A name that no other test has: letters, digits and `_`.
pub(crate) fn name_of_this_test() -> String {
    let thread = std::thread::current();
    let test = thread.name().expect("a test's thread has its name");
    let hash = super::draft::hash(&[test.as_bytes(), &std::process::id().to_le_bytes()]);
    format!("t_{:016x}", hash.cast_unsigned())
}

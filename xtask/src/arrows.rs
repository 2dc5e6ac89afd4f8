//! What may depend on what. The arrows are drawn in `ARCHITECTURE.md`; here they are asserted.

use anyhow::{Result, bail};

use crate::{cargo::cargo, workspace};

/// A package that must not reach some others, by shipped code (normal and build dependencies, all features).
struct Never {
    package: &'static str,
    reaches: &'static [&'static str],
    why: &'static str,
}

/// Runtimes, serialisation, HTTP and drivers: what a store or a door brings along.
const OUTSIDE: &[&str] = &[
    "async-std",
    "axum",
    "fred",
    "http",
    "hyper",
    "mongodb",
    "rdkafka",
    "redis",
    "reqwest",
    "serde",
    "serde_json",
    "smol",
    "sqlx",
    "tokio",
    "tokio-postgres",
    "tower",
];

const NEVER: &[Never] = &[
    Never { package: "semel-core", reaches: OUTSIDE, why: "core is pure" },
    Never { package: "semel-fingerprint", reaches: OUTSIDE, why: "clients and core share it" },
    Never {
        package: "semel-webhook",
        reaches: &["tokio", "axum", "hyper"],
        why: "webhook verification is pure",
    },
    Never {
        package: "semel-runtime",
        reaches: &["semel-stores", "semel-api", "axum", "http", "hyper", "serde"],
        why: "what a claim needs under tokio is no door, no store and no wire",
    },
    Never {
        package: "semel-tower",
        reaches: &["semel-stores", "semel-server", "utoipa"],
        why: "a door knows the contract, not a store, and brings no document along",
    },
    Never {
        package: "semel-kafka",
        reaches: &["semel-stores"],
        why: "a door knows the contract, not a store",
    },
    Never {
        package: "semel-webhook",
        reaches: &["semel-stores"],
        why: "a door knows the contract, not a store",
    },
    Never {
        package: "semel-stores",
        reaches: &["semel-tower", "semel-server", "semel-runtime"],
        why: "stores know no door",
    },
    Never { package: "semel-api", reaches: &["semel-core"], why: "wire names outlive the inside" },
    Never {
        package: "semel-client",
        reaches: &["semel-core", "semel-server"],
        why: "a client knows the wire only",
    },
    Never { package: "semel-examples", reaches: &["semel-server"], why: "examples use what users can use" },
    Never {
        package: "semel-example-booking-axum",
        reaches: &["semel-server"],
        why: "examples use what users can use",
    },
    Never { package: "semel", reaches: &["semel-server", "utoipa"], why: "a library is no server" },
];

/// The suite, the faulty store and the simulated clock are for tests only.
const TESTS_ONLY: &[&str] = &["semel-conformance"];

/// Packages that are themselves only for tests and developers.
const NOT_SHIPPED: &[&str] = &["semel-conformance", "semel-e2e", "semel-bench", "xtask"];

/// Two TLS stacks or two of the libraries below one are twice the attack surface.
const ONE_OF: &[&[&str]] = &[&["aws-lc-rs", "ring"], &["rustls", "native-tls"], &["rustls", "openssl"]];

/// Asserts every arrow.
///
/// # Errors
/// With each dependency that must not be.
pub(crate) fn check() -> Result<()> {
    let members = workspace::members()?;
    let mut wrong = Vec::new();
    for member in &members {
        let reached = reached_by(member)?;
        wrong.extend(judge(member, &reached));
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    Ok(())
}

fn reached_by(package: &str) -> Result<Vec<String>> {
    let tree = cargo([
        "tree",
        "--package",
        package,
        "--edges",
        "normal,build",
        "--all-features",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ])
    .read()?;
    let mut names = workspace::names(&tree);
    names.retain(|name| name != package);
    Ok(names)
}

fn judge(package: &str, reached: &[String]) -> Vec<String> {
    let has = |name: &str| reached.iter().any(|found| found == name);
    let mut wrong = Vec::new();
    for never in NEVER.iter().filter(|never| never.package == package) {
        let found = never.reaches.iter().filter(|name| has(name));
        wrong.extend(found.map(|name| format!("{package} reaches {name}, but {}", never.why)));
    }
    if NOT_SHIPPED.contains(&package) {
        return wrong;
    }
    let found = TESTS_ONLY.iter().filter(|name| has(name));
    wrong.extend(found.map(|name| format!("{package} is shipped and reaches {name}, which is for tests")));
    for group in ONE_OF.iter().filter(|group| group.iter().all(|name| has(name))) {
        wrong.push(format!("{package} reaches {}: one of them is enough", group.join(" and ")));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(package: &str, reached: &[&str], expected: &[&str]) {
        let reached: Vec<_> = reached.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(judge(package, &reached), expected, "{package}");
    }

    #[test]
    fn what_must_not_be_reached_is_named_with_its_reason() {
        check("semel-core", &["blake3", "bytes"], &[]);
        check("semel-core", &["serde"], &["semel-core reaches serde, but core is pure"]);
        check(
            "semel-api",
            &["serde", "semel-core"],
            &["semel-api reaches semel-core, but wire names outlive the inside"],
        );
        check("semel-server", &["semel-core", "semel-stores", "semel-api", "tokio"], &[]);
    }

    #[test]
    fn the_suite_stays_out_of_what_is_shipped() {
        let wrong = "semel-server is shipped and reaches semel-conformance, which is for tests";
        check("semel-server", &["semel-conformance"], &[wrong]);
        check("semel-bench", &["semel-conformance"], &[]);
    }

    #[test]
    fn one_tls_stack_is_enough() {
        check("semel-server", &["rustls", "ring"], &[]);
        check(
            "semel-server",
            &["rustls", "ring", "aws-lc-rs"],
            &["semel-server reaches aws-lc-rs and ring: one of them is enough"],
        );
    }
}

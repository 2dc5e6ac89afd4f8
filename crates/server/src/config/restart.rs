//! Which keys are only read at the start: a reload that finds them changed says so, instead of leaving somebody to
//! wonder why nothing happens.

use std::collections::{BTreeMap, BTreeSet};

use super::reader::Shown;

/// What a reload takes over, by the beginning of its path.
const TAKEN_OVER: [&str; 11] = [
    "admin.tls.",
    "admin.tokens",
    "alerts",
    "audit.retention",
    "consumers",
    "gateway.",
    "jobs",
    "operations",
    "server.tls.",
    "tenants",
    "webhooks",
];
/// What it does not, of that: sockets, and semaphores that are lent out.
const BUT: [&str; 3] = ["gateway.listen", "gateway.max_connections", "gateway.max_in_progress"];
/// Sections that may change, and may neither come nor go.
const SECTIONS: [&str; 4] = ["admin.tls.", "gateway.", "gateway.tls.", "server.tls."];

/// The keys that are other ones than at the start, and take effect at the next: sorted, without their values.
pub fn needs_restart(start: &[Shown], now: &[Shown]) -> Vec<String> {
    let values = |shown: &[Shown]| {
        let pairs = shown.iter().map(|shown| (shown.path.clone(), shown.value.clone()));
        pairs.collect::<BTreeMap<_, _>>()
    };
    let (start, now) = (values(start), values(now));
    let has =
        |values: &BTreeMap<String, String>, section: &str| values.keys().any(|key| key.starts_with(section));
    let moved: Vec<&str> =
        SECTIONS.into_iter().filter(|section| has(&start, section) != has(&now, section)).collect();
    let mut keys: BTreeSet<String> =
        moved.iter().map(|section| section.trim_end_matches('.').to_owned()).collect();
    for key in start.keys().chain(now.keys()) {
        let is_taken_over =
            TAKEN_OVER.iter().any(|taken| key.starts_with(taken)) && !BUT.contains(&key.as_str());
        let is_in_a_section = moved.iter().any(|section| key.starts_with(section));
        if start.get(key) != now.get(key) && !is_taken_over && !is_in_a_section {
            keys.insert(key.clone());
        }
    }
    // Where a whole section has come or gone, one below it is no news.
    let all = keys.clone();
    keys.retain(|key| {
        !all.iter().any(|other| key.strip_prefix(other).is_some_and(|rest| rest.starts_with('.')))
    });
    keys.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::super::Sources;
    use super::super::load::read;
    use super::*;

    fn check(start: &str, now: &str, expected: &[&str]) {
        let shown = |text| read(text, "semel.toml", false, &Sources::default()).unwrap().1;
        assert_eq!(needs_restart(&shown(start), &shown(now)), expected, "{now}");
    }

    /// Whoever adds a key decides what a reload does with it: it stands here, or below [`TAKEN_OVER`].
    #[test]
    fn each_key_of_the_example_is_taken_over_or_known_to_need_a_restart() {
        let (_, example) = super::super::tests::whole_example();
        let changed: Vec<Shown> = example
            .iter()
            .map(|shown| Shown { value: format!("not {}", shown.value), ..shown.clone() })
            .collect();
        let expected = [
            "admin.listen",
            "audit.traffic",
            "dispatcher.concurrency",
            "gateway.listen",
            "gateway.max_connections",
            "gateway.max_in_progress",
            "log.filter",
            "log.format",
            "server.claims.lease",
            "server.claims.retention",
            "server.claims.retry.cap",
            "server.claims.retry.first",
            "server.claims.retry.max_age",
            "server.claims.retry.max_attempts",
            "server.claims.semantics",
            "server.development",
            "server.error_docs_base",
            "server.errors",
            "server.key_alphabet",
            "server.listen",
            "server.max_body_bytes",
            "server.max_connections",
            "server.max_in_progress",
            "server.service_name",
            "server.shutdown_grace",
            "server.trusted_proxies",
            "server.wait_max",
            "store.accept_claim_loss",
            "store.connect_timeout",
            "store.listen_url",
            "store.pool",
            "store.start_timeout",
            "store.statement_timeout",
            "store.url",
            "targets.allow_link_local",
            "targets.ca",
            "tracing.ca",
            "tracing.endpoint",
            "tracing.headers.authorization",
            "tracing.sample_percent",
        ];
        assert_eq!(needs_restart(&example, &changed), expected);
    }

    #[test]
    fn what_is_only_read_at_the_start_is_named_and_what_holds_at_once_is_not() {
        let gateway = "[gateway]\nupstream = \"http://a\"\n";
        check("", "", &[]);
        check(
            "",
            "[server]\nmax_in_progress = 7\n[store]\nurl = \"memory:\"\n",
            &["server.max_in_progress", "store.url"],
        );
        check("[log]\nfilter = \"warn\"\n", "", &["log.filter"]);
        check(gateway, &format!("{gateway}retention = \"2d\"\n[[gateway.routes]]\nmatch = \"/a\"\n"), &[]);
        check(
            gateway,
            &format!("{gateway}listen = \"127.0.0.1:9\"\nmax_connections = 9\n"),
            &["gateway.listen", "gateway.max_connections"],
        );
        check("", gateway, &["gateway"]);
        check(&format!("{gateway}tls = {{ certificate = \"a\", key = \"b\" }}\n"), "", &["gateway"]);
        check(gateway, &format!("{gateway}tls = {{ certificate = \"a\", key = \"b\" }}\n"), &["gateway.tls"]);
        check(
            "[audit]\nretention = \"1d\"\n",
            "[audit]\nretention = \"2d\"\ntraffic = false\n",
            &["audit.traffic"],
        );
        let tls = |file: &str| format!("[server.tls]\ncertificate = \"{file}\"\nkey = \"b\"\n");
        check(&tls("a"), &tls("c"), &[]);
    }
}

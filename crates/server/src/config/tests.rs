//! The configuration as its users meet it: texts in, values or messages out.

use std::collections::BTreeMap;
use std::time::Duration;

use semel_core::policy::OnLapse;

use super::load::read;
use super::{Config, ConfigError, Missed, Shown, Sources, Target};

const EXAMPLE: &str = include_str!("example.toml");

fn environment(pairs: &[(&str, &str)]) -> Sources {
    let environment: BTreeMap<_, _> =
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Sources { environment, ..Sources::default() }
}

fn take(text: &str) -> Config {
    read(text, "semel.toml", false, &Sources::default()).map(|(config, _)| config).unwrap()
}

fn shown(text: &str, sources: &Sources) -> Vec<Shown> {
    read(text, "semel.toml", false, sources).map(|(_, shown)| shown).unwrap()
}

fn refused(text: &str, sources: &Sources) -> String {
    let error: ConfigError = read(text, "semel.toml", false, sources).map(|_| ()).unwrap_err();
    error.to_string()
}

#[test]
fn the_example_is_taken_as_it_stands_and_says_the_defaults() {
    let config = take(EXAMPLE);
    let charge = &config.operations[0];
    assert_eq!(charge.name.as_str(), "payment.charge");
    assert!(matches!(&charge.target, Target::Http(uri) if uri.path() == "/charges"));
    assert_eq!(charge.lane.as_str(), "http://127.0.0.1:9000");
    let defaults = shown("", &Sources::default());
    let example = shown(EXAMPLE, &Sources::default());
    for default in defaults {
        let said = example.iter().find(|shown| shown.path == default.path);
        let said = said.unwrap_or_else(|| panic!("the example does not mention {}", default.path));
        assert_eq!(said.value, default.value, "{}", default.path);
    }
}

/// The example with all that it comments out.
pub(super) fn whole_example() -> (Config, Vec<Shown>) {
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with('[') && !rest.contains("takes") || rest.starts_with("  {") => rest,
            Some(rest) if rest.starts_with(']') => rest,
            Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => rest,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "secret\n").unwrap();
    let text = uncommented.replace("/run/secrets/semel-read", file.path().to_str().unwrap());
    let text = text.replace("\"embedded:./semel-data\"", "\"postgres://semel@db.internal/ledger\"");
    let sources = environment(&[
        ("SEMEL_ADMIN_TOKEN", "a"),
        ("OTLP_AUTHORIZATION", "d"),
        ("ACME_TOKEN", "b"),
        ("ACME_TOKEN_NEXT", "c"),
        ("JWT_SECRET", "a secret of thirty-two characters"),
        ("XENDIT_CALLBACK_TOKEN", "e"),
        ("ACME_HOOKS_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("CARRIER_SECRET", "f"),
        ("SEMEL_ALERTS_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ]);
    read(&text, "semel.toml", false, &sources).map_err(|e| e.to_string()).unwrap()
}

#[test]
fn every_key_that_the_example_comments_out_exists() {
    let (config, _) = whole_example();
    assert_eq!((config.admin.tokens.len(), config.tenants[0].tokens.len()), (2, 2));
    assert_eq!(config.admin.tokens[1].token.expose(), "secret", "the line break of a file is no part of it");
    assert!(config.server.tls.is_some_and(|tls| tls.client_ca.is_some()));
    let tracing = config.tracing.unwrap();
    assert_eq!((tracing.sample_percent, tracing.headers[0].1.expose()), (100, "d"));
    let gateway = config.gateway.unwrap();
    assert_eq!((gateway.upstreams.len(), gateway.routes.len()), (2, 1));
    assert!(gateway.routes[0].rules.require_key && !gateway.usual.require_key, "a route's word is its own");
    assert_eq!((config.webhooks.len(), config.webhooks[1].targets.len()), (2, 2));
    assert!(config.alerts.is_some());
    assert_eq!(gateway.routes[0].rules.scope, gateway.usual.scope, "what it does not say is the gateway's");
}

#[test]
fn without_a_file_it_is_development_on_loopback_with_the_built_in_operations() {
    let (config, _) = read("", "no file", true, &Sources::default()).unwrap();
    assert!(config.development && config.server.listen.ip().is_loopback());
    let names: Vec<&str> = config.operations.iter().map(|operation| operation.name.as_str()).collect();
    assert_eq!(names, ["echo", "sleep", "fail", "count"]);
    assert_eq!(config.webhooks[0].source.name(), "sample", "and a source to try out");
    assert_eq!(config.engine_operations().len(), 5);
    let configured = take("[[operations]]\nname = \"a\"\ntarget = \"http://127.0.0.1:9000\"\n");
    for operation in &config.operations {
        assert_eq!(operation.policy, configured.operations[0].policy, "tried as often as any other");
    }
    assert!(!take("").development, "with a file it is not");
    assert!(take("").operations.is_empty());
}

#[test]
fn what_is_wrong_is_said_with_its_line_its_key_and_what_is_allowed() {
    let check =
        |text: &str, expected: &str| assert_eq!(refused(text, &Sources::default()), expected, "{text}");
    check(
        "[server]\nlissten = \"127.0.0.1:1\"\n",
        "semel.toml:2: server.lissten: unknown key; did you mean `listen`? allowed here: claims, development, \
         error_docs_base, errors, key_alphabet, listen, max_body_bytes, max_connections, max_in_progress, \
         service_name, shutdown_grace, tls, trusted_proxies, wait_max",
    );
    check(
        "[zebra]\na = 1\n",
        "semel.toml:1: zebra: unknown key; allowed here: admin, alerts, audit, consumers, dispatcher, gateway, jobs, log, operations, \
         server, store, targets, tenants, tracing, webhooks",
    );
    check(
        "[server]\n\nlisten = 8080",
        "semel.toml:3: server.listen: must be an address and a port such as \"127.0.0.1:8080\" or \"[::1]:8080\"",
    );
    check(
        "[server]\nmax_body_bytes = 0",
        "semel.toml:2: server.max_body_bytes: must be a whole number from 1 to 16777216",
    );
    check(
        "[server]\nerrors = \"xml\"",
        "semel.toml:2: server.errors: must be one of \"envelope\", \"flat\", \"problem\"",
    );
    check(
        "[server]\nwait_max = 30",
        "semel.toml:2: server.wait_max: must be a length of time such as \"500ms\", \"30s\", \"5m\", \"1h30m\" or \"7d\"",
    );
    check("server = 5", "semel.toml:1: server: must be a table, not an integer");
    check(
        "[store]\nurl = \"mysql://semel:hunter2@db\"",
        "semel.toml:2: store.url: there is no store `mysql:`; allowed: `embedded:PATH` (such as \
         `embedded:./semel-data`), `mongodb://USER:PASSWORD@HOST/DATABASE`, `postgres://USER:PASSWORD@HOST/DATABASE`, `redis://USER:PASSWORD@HOST/` (or `rediss://`), `memory:`",
    );
    check(
        "[[tenants]]\nname = \"a\"\ntokens = [\"literal\"]",
        "semel.toml:3: tenants[0].tokens[0]: must be { env = \
         \"NAME\" } or { file = \"PATH\" }; a secret may stand in the file itself only in development",
    );
    check(
        "[[tenants]]\nname = \"a\"\ntokens = [{ env = \"NOWHERE\" }]",
        "semel.toml:3: tenants[0].tokens[0]: the environment has no variable NOWHERE",
    );
}

#[test]
fn a_text_that_is_not_toml_is_refused_with_its_line() {
    let said = refused("[server]\nlisten = \n", &Sources::default());
    assert!(said.starts_with("semel.toml:2: this is not TOML: "), "{said}");
    let said = refused("[server]\nlisten = \"a\"\nlisten = \"b\"\n", &Sources::default());
    assert!(said.starts_with("semel.toml:3: this is not TOML: "), "{said}");
}

#[test]
fn all_problems_are_said_and_not_only_the_first() {
    let said = refused("[server]\nerrors = 1\nx = 1\n[admin]\nlisten = 1\n[nonsense]\n", &Sources::default());
    assert_eq!(said.lines().count(), 4, "{said}");
}

#[test]
fn jobs_are_checked() {
    let target = "target = \"http://a/\"\n";
    let check = |rest: &str, expected: &str| {
        let text = format!("[[jobs]]\ntype = \"EXPIRE_LOCKS\"\n{rest}");
        let said = refused(&text, &Sources::default());
        assert!(said.contains(expected), "{rest}: {said}");
    };
    let scheduled = |rest: &str| format!("schedule = \"@hourly\"\n{target}{rest}");
    check(target, "semel.toml:1: jobs[0].schedule: is missing");
    check("schedule = \"@hourly\"", "jobs[0].target: is missing");
    check(&format!("schedule = \"61 * * * *\"\n{target}"), "semel.toml:3: jobs[0].schedule: ");
    check(&format!("schedule = \"0 0 31 2 *\"\n{target}"), "jobs[0].schedule: ");
    check(&scheduled("time_zone = \"Mars/Olympus\""), "`Mars/Olympus` is no time zone");
    check(&scheduled("missed = \"never\""), "semel.toml:5: jobs[0].missed: ");
    check(&scheduled("lease = \"1ms\""), "jobs[0].lease: ");
    check(&scheduled("lease = \"24h\""), "jobs[0].lease: ");
    check(&scheduled("timeout = \"25h\""), "jobs[0].timeout: ");
    check(&scheduled("retention = \"0s\""), "jobs[0].retention: ");
    check(&scheduled("tenant = \"\""), "jobs[0].tenant: ");
    let own = scheduled("headers = { semel-fence = { env = \"FENCE\" } }");
    let own = refused(&format!("[[jobs]]\ntype = \"A\"\n{own}"), &environment(&[("FENCE", "7")]));
    assert!(own.contains("is sent by Semel itself"), "{own}");
    check(&scheduled("overlap = true"), "jobs[0].overlap: unknown key");
    check("schedule = \"@hourly\"\ntarget = \"http://169.254.169.254/\"", "jobs[0].target: ");
    check(
        &format!("{}\n[[jobs]]\ntype = \"EXPIRE_LOCKS\"\n{}", scheduled(""), scheduled("")),
        "jobs[1].type: there is a job",
    );
    check(&scheduled("tenant = \"acme\""), "jobs[0].tenant: there is no tenant `acme`");
    let two = format!(
        "[[jobs]]\ntype = \"A\"\n{}[[jobs]]\ntype = \"A\"\ntenant = \"acme\"\n{}",
        scheduled(""),
        scheduled("")
    );
    let jobs = take(&format!("{two}[[tenants]]\nname = \"acme\"\n")).jobs;
    assert_eq!(jobs.len(), 2, "another tenant's job is another job");
    assert_eq!(
        (jobs[0].cron.text(), jobs[0].cron.zone_name(), jobs[0].missed),
        ("@hourly", "UTC", Missed::Skip)
    );
}

/// A file of which nearly each line has a problem of its own.
const PROBLEMS: &str = r#"
[server]
listen = "127.0.0.1:8081"
[store]
url = "mysql://a"
[[tenants]]
name = ""
tokens = [{ env = "TOKEN" }]
[[tenants]]
name = "x"
tokens = [{ env = "TOKEN" }]
[[tenants]]
name = "x"
[[operations]]
name = "o"
lease = "1ms"
retention = "0s"
[[operations]]
name = "o"
target = "http://169.254.169.254/"
[[operations]]
name = "webhook:a"
[gateway]
listen = "127.0.0.1:8081"
upstream = "ftp://a"
scope = ["header:x-account"]
shared_keys = true
methods = ["PSOT"]
[[gateway.upstreams]]
name = "u"
url = "http://169.254.169.254"
tls = { certificate = "/nope", keey = "/nope" }
[[gateway.upstreams]]
name = "u"
[[gateway.upstreams]]
name = "v"
url = "http://127.0.0.1:8081"
[[gateway.routes]]
match = "PSOT /a"
upstream = "nobody"
lease = "1ms"
[[gateway.routes]]
match = "PSOT /a"
upstream = "u"
[[webhooks]]
source = "s"
target = "http://169.254.169.254/"
[[webhooks]]
source = "s"
provider = "xendit"
[[webhooks.targets]]
name = "t"
[[webhooks.targets]]
name = "t"
url = "http://a/"
[alerts]
url = "http://169.254.169.254/"
format = "xml"
[tracing]
sample_percent = 101
[zebra]
"#;

#[test]
fn no_problem_is_held_back_by_another() {
    let said = refused(PROBLEMS, &environment(&[("TOKEN", "a")]));
    for expected in [
        "semel.toml:5: store.url: there is no store `mysql:`",
        "tenants[0].name: ",
        "tenants[1].tokens: a token of this tenant is another's, too",
        "tenants[2].name: there is a tenant `x` above",
        "tenants[2].tokens: is missing: with several tenants",
        "operations[0].target: is missing",
        "semel.toml:16: operations[0].lease: ",
        "semel.toml:17: operations[0].retention: ",
        "operations[1].name: there is an operation `o` above",
        "semel.toml:20: operations[1].target: 169.254.169.254 is a link-local",
        "operations[2].name: `webhook:a` is a name that Semel gives operations itself",
        "operations[2].target: is missing",
        "semel.toml:24: gateway.listen: 127.0.0.1:8081 is server.listen, too",
        "semel.toml:25: gateway.upstream: must begin with http:// or https://",
        "semel.toml:27: gateway.shared_keys: contradicts scope",
        "semel.toml:28: gateway.methods: `PSOT`: no method",
        "semel.toml:31: gateway.upstreams[0].url: 169.254.169.254 is a link-local",
        "gateway.upstreams[0].tls.certificate: cannot read /nope",
        "gateway.upstreams[0].tls.key: is missing",
        "gateway.upstreams[0].tls.keey: unknown key; did you mean `key`?",
        "gateway.upstreams[1].name: there is an upstream `u` above",
        "gateway.upstreams[1].url: is missing",
        "semel.toml:37: gateway.upstreams[2].url: 127.0.0.1:8081 is gateway.listen",
        "semel.toml:39: gateway.routes[0].match: `PSOT`: no method",
        "semel.toml:40: gateway.routes[0].upstream: there is no upstream `nobody`",
        "semel.toml:41: gateway.routes[0].lease: ",
        "gateway.routes[1].match: there is a route `PSOT /a` above",
        "webhooks[0].provider: is missing",
        "semel.toml:47: webhooks[0].target: 169.254.169.254 is a link-local",
        "webhooks[1].source: there is a source `s` above",
        "webhooks[1].secrets: ",
        "webhooks[1].targets[0].url: is missing",
        "webhooks[1].targets[1].name: there is a target `t` above",
        "semel.toml:57: alerts.url: 169.254.169.254 is a link-local",
        "alerts.format: must be one of",
        "tracing.endpoint: is missing",
        "tracing.sample_percent: must be a whole number",
        "zebra: unknown key",
    ] {
        assert!(said.contains(expected), "{expected}\nis not in\n{said}");
    }
}

#[test]
fn what_may_only_follow_from_a_value_that_could_not_be_read_is_not_said() {
    for text in [
        "[server]\nlisten = \"0.0.0.0:8080\"\n[[tenants]]\nname = \"a\"\ntokens = [{ env = \"NOWHERE\" }]\n",
        "[admin]\nlisten = \"0.0.0.0:8081\"\ntokens = [{ role = \"operate\", token = { env = \"NOWHERE\" } }]\n",
        "[gateway]\nlisten = \"0.0.0.0:8082\"\nupstream = \"http://a\"\nscope = [\"x-account\"]\n",
        "[gateway]\nupstream = \"ftp://a\"\n[[gateway.routes]]\nmatch = \"/a\"\nupstream = \"upstream\"\n",
        "[gateway]\n[[gateway.upstreams]]\nname = \"u\"\nurl = \"a\"\n[[gateway.routes]]\nmatch = \"/a\"\nupstream = \"u\"\n",
        "[gateway]\nlisten = 5\nupstream = \"http://127.0.0.1:8082\"\n",
        "[server]\nlisten = 5\n[admin]\nlisten = \"127.0.0.1:8080\"\n",
        "[store]\nurl = \"mysql://a\"\nlisten_url = \"postgres://a\"\n",
        "[gateway]\nupstream = \"http://a\"\nlease = \"1ms\"\n[[gateway.routes]]\nmatch = \"/a\"\n",
        "[gateway]\nupstream = \"http://a\"\nidle_timeout = \"0s\"\n[[gateway.routes]]\nmatch = \"/a\"\n",
    ] {
        let said = refused(text, &Sources::default());
        assert_eq!(said.lines().count(), 1, "{text}\n{said}");
    }
}

#[test]
fn operations_are_checked() {
    let operation = |rest: &str| format!("[[operations]]\nname = \"a\"\n{rest}");
    let check = |rest: &str, expected: &str| {
        let said = refused(&operation(rest), &Sources::default());
        assert!(said.contains(expected), "{rest}: {said}");
    };
    check("", "operations[0].target: is missing");
    check("target = \"ftp://a/\"", "must begin with http:// or https://");
    check("target = \"http://u:p@a/\"", "must not contain a user or password");
    check("target = \"/path\"", "must begin with http:// or https://");
    check("target = \"builtin:echo\"", "only in development mode");
    check(
        "target = \"http://a/\"\nlease = \"1ms\"",
        "semel.toml:4: operations[0].lease: lease must be from 100 ms to 24 h",
    );
    check("target = \"http://a/\"\nretention = \"0s\"", "retention must be from 1 ms to ten years");
    check("target = \"http://a/\"\nprobe = \"http://a/\"", "must contain {key}");
    check("target = \"http://a/\"\nprobe_final = true", "there is no probe");
    check("target = \"http://a/\"\nnot_executed = [200]", "whole numbers from 300 to 599");
    check("target = \"http://a/\"\ntags = { a = \"b\" }", "no JSON Pointer");
    check("target = \"http://a/\"\ntags = { a = \"/~2\" }", "after `~` there must be 0 or 1");
    check(
        "target = \"http://a:99999/\"",
        "semel.toml:3: operations[0].target: must have a port from 1 to 65535",
    );
    check("target = \"http://[::1]:0/\"", "must have a port from 1 to 65535");
    check("target = \"http://a/#f\"", "must have no fragment");
    check("target = \"http://a/{key}\"", "must have no braces");
    check("target = \"http://a/\"\nprobe = \"http://a/{key}/{id}\"", "must have no braces");
    check(
        "target = \"http://metadata.google.internal/\"",
        "metadata.google.internal is a link-local, metadata",
    );
    check("target = \"http://a/\"\nkeep_headers = [\"Set-Cookie\"]", "never replayed");
    check("target = \"http://a/\"\ntimeout = \"0s\"", "must be from 1ms to 1d");
    check(
        "target = \"http://a/\"\nretry = { max_attempts = 0 }",
        "max_attempts: must be a whole number from 1 to 1000",
    );
    check(
        "target = \"http://a/\"\nretry = { first = \"2h\", cap = \"1h\" }",
        "first must be above zero and at most cap",
    );
    check(
        "target = \"http://a/\"\n[[operations]]\nname = \"a\"\ntarget = \"http://b/\"",
        "semel.toml:4: operations[1].name: there is an operation `a` above",
    );
}

#[test]
fn headers_that_semel_sends_itself_or_that_frame_a_message_cannot_be_configured() {
    let refusal = |name: &str| {
        let text = format!(
            "[server]\ndevelopment = true\n[[operations]]\nname = \"a\"\ntarget = \"http://a/\"\n\
             headers = {{ {name} = \"q\" }}"
        );
        refused(&text, &Sources::default())
    };
    for name in
        ["Idempotency-Key", "semel-fence", "Semel-Anything", "content-type", "traceparent", "User-Agent"]
    {
        let expected = format!(
            "semel.toml:6: operations[0].headers.{name}: `{name}` is sent by Semel itself; it cannot be set"
        );
        assert_eq!(refusal(name), expected);
    }
    for name in
        ["transfer-encoding", "Content-Length", "connection", "host", "te", "trailer", "upgrade", "expect"]
    {
        assert!(refusal(name).starts_with("semel.toml:6: operations[0].headers."), "{name}");
        assert!(refusal(name).contains("frames the message"), "{name}");
    }
    take(
        "[server]\ndevelopment = true\n[[operations]]\nname = \"a\"\ntarget = \"http://a/\"\n\
         headers = { authorization = \"q\", x-api-key = \"r\" }",
    );
}

#[test]
fn problems_come_in_the_order_of_their_lines_and_a_hint_is_near_what_was_written() {
    let text = "[store]\nurl = \"foo\"\n[admin]\nbla = 1\n[server]\nlissten = 1\nerrors = \"xml\"";
    let said = refused(text, &Sources::default());
    let places: Vec<&str> = said.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["semel.toml:2", "semel.toml:4", "semel.toml:6", "semel.toml:7"], "{said}");
    assert!(said.contains("admin.bla: unknown key; allowed here"), "{said}");
    assert!(said.contains("did you mean `listen`?"), "{said}");
    let said = refused("[store]\nurl = \"foo\"", &Sources::default());
    assert!(
        said.starts_with("semel.toml:2: store.url: does not begin with a kind of store; allowed: "),
        "{said}"
    );
}

#[test]
fn a_target_whose_literal_address_none_may_have_is_refused_unless_that_is_allowed() {
    let operation = |target: &str| format!("[[operations]]\nname = \"a\"\ntarget = \"{target}\"\n");
    for (target, host) in [
        ("http://169.254.169.254/latest/meta-data", "169.254.169.254"),
        ("http://[fe80::1]:9000/", "[fe80::1]"),
        ("https://[::ffff:169.254.169.254]/", "[::ffff:169.254.169.254]"),
        ("http://2852039166/", "2852039166"),
        ("http://0.0.0.0:9000/", "0.0.0.0"),
    ] {
        let said = refused(&operation(target), &Sources::default());
        let expected = format!("semel.toml:3: operations[0].target: {host} is a link-local, metadata or");
        assert!(said.starts_with(&expected) && said.contains("targets.allow_link_local"), "{said}");
        take(&format!("{}[targets]\nallow_link_local = true\n", operation(target)));
    }
    let probe = operation("http://10.0.0.7/") + "probe = \"http://169.254.0.9/{key}\"";
    let said = refused(&probe, &Sources::default());
    assert!(said.starts_with("semel.toml:4: operations[0].probe: 169.254.0.9 is a link-local"), "{said}");
    // What it stands for is nobody's business before it is asked for.
    take(&operation("http://metadata.example/"));
}

#[test]
fn contradictions_stop_the_start() {
    let check = |text: &str, expected: &str| {
        let said = refused(text, &Sources::default());
        assert!(said.contains(expected), "{text}: {said}");
    };
    check(
        "[server]\nlisten = \"0.0.0.0:8080\"",
        "semel.toml:2: server.listen: 0.0.0.0:8080 is not loopback: every tenant needs a token",
    );
    check("[admin]\nlisten = \"0.0.0.0:8081\"", "admin.tokens is needed");
    check("[server]\ndevelopment = true\nlisten = \"0.0.0.0:1\"", "development mode is only for loopback");
    check("[server]\nlisten = \"127.0.0.1:8081\"", "needs an address of its own");
    check("[server.tls]\ncertificate = \"a\"", "server.tls.key: is missing");
    check("[[tenants]]\nname = \"a\"\n[[tenants]]\nname = \"a\"", "there is a tenant `a` above");
    check("[[tenants]]\nname = \"a\"\n[[tenants]]\nname = \"b\"", "each needs a token to be told apart");
    check(
        "[server]\ndevelopment = true\n[[tenants]]\nname = \"a\"\ntokens = [\"t\"]\n[[tenants]]\nname = \"b\"\ntokens = [\"t\"]",
        "nobody could tell whose request it is",
    );
    check("[server]\ndevelopment = true\n[[tenants]]\nname = \"a\"\ntokens = [\"\"]", "the secret is empty");
}

#[test]
fn the_environment_overrides_the_file_and_a_flag_overrides_both_and_each_value_tells_its_origin() {
    let mut sources = environment(&[
        ("SEMEL__SERVER__LISTEN", "127.0.0.1:2"),
        ("SEMEL__SERVER__MAX_BODY_BYTES", "77"),
        ("SEMEL__OPERATIONS__0__TIMEOUT", "9s"),
        ("SEMEL__OPERATIONS__1", "{ name = \"b\", target = \"http://b/\", semantics = \"resume\" }"),
        ("SEMEL_ADMIN_TOKEN", "no key"),
    ]);
    sources.flags.push(("--listen", "server.listen", "127.0.0.1:3".to_owned()));
    let text = "[server]\nlisten = \"127.0.0.1:1\"\nwait_max = \"5s\"\n[[operations]]\nname = \"a\"\ntarget = \"http://a/\"";
    let (config, shown) = read(text, "semel.toml", false, &sources).map_err(|e| e.to_string()).unwrap();
    assert_eq!(config.server.listen.port(), 3);
    assert_eq!(config.server.body_bytes_max, 77);
    assert_eq!(config.operations[0].timeout, Duration::from_secs(9));
    assert_eq!(config.operations[1].policy.on_lapse(), OnLapse::Resume);
    let origin = |path: &str| shown.iter().find(|shown| shown.path == path).unwrap().origin.clone();
    assert_eq!(origin("server.listen"), "flag --listen");
    assert_eq!(origin("server.max_body_bytes"), "environment SEMEL__SERVER__MAX_BODY_BYTES");
    assert_eq!(origin("server.wait_max"), "semel.toml:3");
    assert_eq!(origin("server.errors"), "default");
    assert_eq!(origin("operations[0].timeout"), "environment SEMEL__OPERATIONS__0__TIMEOUT");
}

#[test]
fn a_variable_that_is_no_key_is_refused_by_its_name() {
    let check = |name: &str, value: &str, expected: &str| {
        let said = refused("", &environment(&[(name, value)]));
        assert!(said.contains(expected), "{name}={value}: {said}");
    };
    check(
        "SEMEL__SERVER__LISSTEN",
        "x",
        "environment SEMEL__SERVER__LISSTEN: server.lissten: unknown key; did you mean `listen`?",
    );
    check("SEMEL__SERVER", "x", "must be a table");
    check("SEMEL__OPERATIONS__7__NAME", "x", "there is no place 7");
    check("SEMEL__", "x", "an empty name");
    check("SEMEL__SERVER__DEVELOPMENT", "yes", "must be true or false");
    check("SEMEL__TENANTS", "5", "must be an array");
}

#[test]
fn no_text_makes_it_panic() {
    use proptest::prelude::*;
    let words = prop::sample::select(vec![
        "[server]",
        "[[tenants]]",
        "[[operations]]",
        "listen",
        "name",
        "tokens",
        "retry",
        "=",
        "\"",
        "'",
        "{",
        "}",
        "[",
        "]",
        "\n",
        "0",
        "-1",
        "1e400",
        "0x_",
        "99999999999999999999",
        "\"a\"",
        "true",
        "1979-05-27",
        ".",
        ",",
        "é",
        "\u{0}",
    ]);
    proptest!(|(parts in prop::collection::vec(words, 0..12))| {
        let text = parts.join(" ");
        if let Err(error) = read(&text, "semel.toml", false, &Sources::default()) {
            prop_assert!(!error.to_string().is_empty());
        }
    });
}

#[test]
fn a_password_of_the_store_shows_nowhere_and_stands_in_no_file_but_in_development() {
    let sources = environment(&[("URL", "postgres://semel:hunter2@db/x"), ("SEMEL__STORE__POOL", "3")]);
    let check = |text: &str, sources: &Sources, value: &str| {
        let (config, shown) = read(text, "semel.toml", false, sources).map_err(|e| e.to_string()).unwrap();
        assert_eq!(config.store.url.expose(), "postgres://semel:hunter2@db/x");
        assert!(!format!("{config:?} {shown:?}").contains("hunter2"), "{text}");
        let url = shown.iter().find(|shown| shown.path == "store.url").unwrap();
        assert_eq!(url.value, value, "{text}");
    };
    let masked = "\"postgres://semel:***@db/x\"";
    let literal = "[store]\nurl = \"postgres://semel:hunter2@db/x\"\n";
    check(&format!("[server]\ndevelopment = true\n{literal}"), &sources, masked);
    check("[store]\nurl = { env = \"URL\" }", &sources, "(hidden) from { env = \"URL\" }");
    check("", &environment(&[("SEMEL__STORE__URL", "postgres://semel:hunter2@db/x")]), masked);
    let given = Sources {
        flags: vec![("--store", "store.url", "postgres://semel:hunter2@db/x".to_owned())],
        ..Sources::default()
    };
    check("", &given, masked);
    let said = refused(literal, &Sources::default());
    assert!(
        said.starts_with("semel.toml:2: store.url: a password may stand in the file itself only"),
        "{said}"
    );
    assert!(!said.contains("hunter2"), "{said}");
    let listen =
        refused("[store]\nurl = { env = \"URL\" }\nlisten_url = \"postgres://semel:hunter2@db/x\"", &sources);
    assert!(listen.starts_with("semel.toml:3: store.listen_url: a password may stand"), "{listen}");
}

#[test]
fn keys_of_a_server_are_refused_where_there_is_none_each_with_its_line() {
    let said =
        refused("[store]\nurl = \"memory:\"\npool = 3\nstatement_timeout = \"1s\"", &Sources::default());
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("semel.toml:3: store.pool: means nothing for `memory:`"), "{said}");
    assert!(lines[1].starts_with("semel.toml:4: store.statement_timeout: means nothing"), "{said}");
    let url = "[store]\nurl = \"postgres://semel@db/x\"\n";
    take(&format!("{url}pool = 3\nstatement_timeout = \"1s\"\nconnect_timeout = \"1s\""));
    let said = refused(&format!("{url}statement_timeout = \"10s\""), &Sources::default());
    assert_eq!(said, "semel.toml:3: store.statement_timeout: must be from 100ms to 9s999ms");
}

#[test]
fn secrets_show_nowhere() {
    let text = "[server]\ndevelopment = true\n[[tenants]]\nname = \"a\"\ntokens = [\"hunter2\", { env = \"T\" }]\n\
                [admin]\ntokens = [{ role = \"read\", token = \"hunter2a\" }]\n\
                [[operations]]\nname = \"a\"\ntarget = \"http://a/\"\nheaders = { authorization = \"hunter2b\" }";
    let sources = environment(&[("T", "hunter2c")]);
    let (config, shown) = read(text, "semel.toml", false, &sources).map_err(|e| e.to_string()).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    assert!(!format!("{shown:?}").contains("hunter2"));
    assert!(shown.iter().any(|shown| shown.value == "(hidden) from { env = \"T\" }"));
}

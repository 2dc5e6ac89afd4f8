//! Sources as they are written down: texts in, sources or messages out.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use semel_core::policy::OnLapse;

use super::super::load::read;
use super::super::{Config, OperationConfig, Sources, Target};
use super::*;

fn sources() -> Sources {
    let pairs =
        [("TOKEN", "token-one"), ("NEXT", "token-two"), ("WHSEC", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")];
    let environment: BTreeMap<_, _> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Sources { environment, ..Sources::default() }
}

fn take(text: &str) -> Config {
    read(text, "semel.toml", false, &sources())
        .map(|(config, _)| config)
        .map_err(|error| error.to_string())
        .unwrap()
}

fn refused(text: &str) -> String {
    read(text, "semel.toml", false, &sources()).map(|_| ()).unwrap_err().to_string()
}

fn xendit(rest: &str) -> String {
    format!(
        "[[webhooks]]\nsource = \"xendit\"\nprovider = \"xendit\"\n\
         secrets = [{{ id = \"a\", value = {{ env = \"TOKEN\" }} }}]\n{rest}"
    )
}

const TARGET: &str = "target = \"http://127.0.0.1:9000/hooks\"\n";

fn delivery(operation: &OperationConfig) -> &DeliveryTarget {
    let Target::Delivery(delivery) = &operation.target else { panic!("{:?}", operation.target) };
    delivery
}

#[test]
fn a_source_of_one_line_has_its_providers_rules_and_one_target() {
    let config = take(&xendit(TARGET));
    let source = &config.webhooks[0];
    assert_eq!((source.source.name(), source.retention), ("xendit", Duration::from_secs(7 * 86_400)));
    assert_eq!(source.duplicates, Duplicates { dead_letter: false, alert: false });
    assert_eq!((source.conflict_status, source.response.status), (StatusCode::OK, StatusCode::OK));
    let [target] = &source.targets[..] else { panic!("one target") };
    let operation = &target.operation;
    assert_eq!((&*target.name, operation.name.as_str()), ("default", "webhook:xendit/default"));
    assert_eq!(operation.lane.as_str(), operation.name.as_str(), "a queue of its own");
    assert_eq!(operation.policy.on_lapse(), OnLapse::Resume);
    assert_eq!(operation.policy.retention(), source.retention);
    assert_eq!(operation.policy.retry().max_attempts(), 12);
    let delivery = delivery(operation);
    assert!(delivery.signer.is_none() && !delivery.ordered);
    assert_eq!((&*delivery.source, delivery.url.path()), ("xendit", "/hooks"));
    assert!(operation.is_semels_own() && config.operations.is_empty(), "no client may ask for it");
    assert_eq!(config.engine_operations().len(), 1);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn several_targets_take_over_what_their_source_says_and_have_names_secrets_and_schedules_of_their_own() {
    let config = take(&xendit(
        "timeout = \"9s\"\norder_by = \"/order_id\"\nretry = { max_attempts = 3 }\n\
         [[webhooks.targets]]\nname = \"orders\"\nurl = \"http://a/\"\nsecret = { env = \"WHSEC\" }\nconcurrency = 3\n\
         [[webhooks.targets]]\nname = \"books\"\nurl = \"http://b/\"\npermanent = [422]\nretry = { max_attempts = 7 }\n",
    ));
    let [orders, books] = &config.webhooks[0].targets[..] else { panic!("two targets") };
    assert_eq!((&*orders.name, &*books.name), ("orders", "books"));
    assert_eq!((orders.operation.concurrency, orders.operation.timeout), (3, Duration::from_secs(9)));
    assert_eq!(books.operation.timeout, Duration::from_secs(9));
    let tries = |target: &SourceTarget| target.operation.policy.retry().max_attempts();
    assert_eq!((tries(orders), tries(books)), (3, 7));
    assert!(delivery(&orders.operation).signer.is_some() && delivery(&books.operation).signer.is_none());
    assert!(delivery(&orders.operation).ordered && delivery(&books.operation).ordered);
    assert_eq!(delivery(&books.operation).statuses, Statuses::permanent(&[422]));
}

#[test]
fn secrets_have_ends_and_a_second_rotation_does_not_inherit_the_firsts() {
    let secrets = "[[webhooks]]\nsource = \"x\"\nprovider = \"xendit\"\ntarget = \"http://a/\"\nsecrets = [\n\
                   { id = \"old\", value = { env = \"TOKEN\" }, not_after = 2026-01-01T00:00:00Z },\n\
                   { id = \"new\", value = { env = \"NEXT\" } },\n]\n";
    let config = take(secrets);
    let body = bytes::Bytes::from_static(br#"{"id":"1"}"#);
    let verify = |token: &str, at: u64| {
        let headers = [("x-callback-token", token.as_bytes()), ("webhook-id", &b"evt"[..])];
        let delivery = semel_webhook::Delivery::new(&headers, &body);
        let found = config.webhooks[0].source.verify(&delivery, semel_core::Timestamp::from_millis(at));
        found.is_ok()
    };
    let end = 1_767_225_600_000;
    assert!(verify("token-one", end) && !verify("token-one", end + 1), "its own end");
    assert!(verify("token-two", end + 1), "which is nobody else's");
    take(&secrets.replace("2026-01-01T00:00:00Z", "\"2026-01-01T07:00:00+07:00\""));
    assert!(refused(&secrets.replace("2026-01-01T00:00:00Z", "\"soon\"")).contains(
        "semel.toml:6: webhooks[0].secrets[0].not_after: must be a moment such as 2026-12-31T23:59:59Z"
    ));
}

#[test]
fn what_is_wrong_with_a_source_is_said_with_its_line_and_key() {
    let check = |text: &str, expected: &str| {
        let said = refused(text);
        assert!(said.contains(expected), "{text}\n{said}");
    };
    let source = |rest: &str| xendit(&format!("{TARGET}{rest}"));
    check("[[webhooks]]\n", "semel.toml:1: webhooks[0].source: is missing");
    check("[[webhooks]]\n", "webhooks[0].provider: is missing");
    check("[[webhooks]]\n", "webhooks[0].target: is missing");
    check(
        "[[webhooks]]\nsource = \"a\"\nprovider = \"paypal\"\n",
        "semel.toml:3: webhooks[0].provider: there is no provider \"paypal\"; known: standard-webhooks, stripe",
    );
    let bare = format!("[[webhooks]]\nsource = \"a\"\nprovider = \"stripe\"\n{TARGET}");
    check(&bare, "webhooks[0].secrets: has no secret: nothing would be verified");
    check(&bare.replace("stripe", "none"), "`insecure = true` must say that this is meant");
    check(&bare.replace("\"a\"", "\"a/b\""), "webhooks[0].source: may hold letters, digits");
    let literal = bare.clone() + "secrets = [{ id = \"a\", value = \"text\" }]\n";
    check(&literal, "semel.toml:5: webhooks[0].secrets[0].value: must be { env = \"NAME\" }");
    check(&source("tolerance = \"5m\"\n"), "webhooks[0].tolerance: cannot be set for this provider");
    check(&source("scheme = { header = \"x\" }\n"), "webhooks[0].scheme: cannot be set for this provider");
    check(&source("identity = 5\n"), "webhooks[0].identity: must be an array of headers and JSON Pointers");
    check(&source("identity = [\"a b\"]\n"), "webhooks[0].identity: \"a b\": is no name of a header");
    check(
        &source("addresses = [\"10.0.0.0/99\"]\n"),
        "webhooks[0].addresses: \"10.0.0.0/99\": is no address",
    );
    check(&source("conflict_status = 300\n"), "webhooks[0].conflict_status: must be 200 or 409");
    check(&source("order_by = \"order_id\"\n"), "webhooks[0].order_by: must be a JSON Pointer");
    check(&source("tags = { kind = \"/kind\" }\n"), "`kind` is a tag that Semel gives itself");
    check(&source("content_hash = { headers = [] }\n"), "only `missing_identity = \"content-hash\"` does");
    check(&source("retentoin = 5\n"), "webhooks[0].retentoin: unknown key; did you mean `retention`?");
    check(
        &source("response = { status = 500 }\n"),
        "response.status: must be a whole number from 200 to 299",
    );
    check(&source("cache_size = -1\n"), "cache_size: must be a whole number");
    check(
        &source("[[webhooks.targets]]\nname = \"a\"\nurl = \"http://a/\"\n"),
        "target: is given beside `targets`",
    );
    check(
        &xendit("target = \"http://169.254.169.254/\"\n"),
        "semel.toml:5: webhooks[0].target: 169.254.169.254 is",
    );
    check(&xendit("target = \"builtin:echo\"\n"), "must begin with http://");
    check(
        &xendit(
            "[[webhooks.targets]]\nname = \"a\"\nurl = \"http://a/\"\n[[webhooks.targets]]\nname = \"a\"\nurl = \"http://b/\"\n",
        ),
        "webhooks[0].targets[1].name: there is a target `a` above",
    );
    check(
        &xendit(
            "[[webhooks.targets]]\nname = \"a/b\"\nurl = \"http://a/\"\nheaders = { webhook-id = { env = \"TOKEN\" } }\n",
        ),
        "webhooks[0].targets[0].name: must have 1 to 64",
    );
    check(&(xendit(TARGET) + &xendit(TARGET)), "webhooks[1].source: there is a source `xendit` above");
    check(
        "[[operations]]\nname = \"webhook:a/default\"\ntarget = \"http://a/\"\n",
        "operations[0].name: `webhook:a/default` is a name that Semel gives operations itself",
    );
}

#[test]
fn all_that_is_wrong_with_a_source_is_said_at_once_and_each_of_it_once() {
    let check = |text: &str, expected: &[&str]| {
        let said = refused(text);
        let lines: Vec<_> = said.lines().filter(|line| line.contains("webhooks[")).map(str::trim).collect();
        let found = |expected: &&str| lines.iter().filter(|line| line.contains(*expected)).count() == 1;
        assert!(expected.iter().all(found) && lines.len() == expected.len(), "{text}\n{said}");
    };
    check(
        "[[webhooks]]\nsource = \"a/b\"\nprovider = \"stripe\"\ntarget = \"http://a/\"\ninsecure = true\n\
         tolerance = \"25h\"\naddresses = [\"10.0.0.0/99\"]\nfingerprint_exclude = [\"a\"]\n\
         scheme = { header = \"x\" }\nconflict_status = 300\n",
        &[
            "semel.toml:2: webhooks[0].source: may hold letters",
            "semel.toml:5: webhooks[0].insecure: cannot be set for this provider",
            "webhooks[0].secrets: has no secret",
            "semel.toml:6: webhooks[0].tolerance: must be at most 24 h",
            "semel.toml:7: webhooks[0].addresses: \"10.0.0.0/99\"",
            "semel.toml:8: webhooks[0].fingerprint_exclude: volatile: is no JSON Pointer",
            "semel.toml:9: webhooks[0].scheme: cannot be set for this provider",
            "semel.toml:10: webhooks[0].conflict_status: must be 200 or 409",
        ],
    );
    // Neither the secret that cannot be read nor the scheme is said to be missing; what else is wrong, is.
    check(
        "[[webhooks]]\nsource = \"carrier\"\nprovider = \"generic\"\ntarget = \"http://a/\"\n\
         secrets = [{ id = \"a\", value = { env = \"NOBODY_HAS_SET_THIS\" } }]\nscheme = {}\n\
         tolerance = \"1m\"\naddresses = [\"nowhere\"]\n",
        &[
            "webhooks[0].secrets[0].value: ",
            "webhooks[0].scheme.header: is missing",
            "webhooks[0].identity: is missing",
            "webhooks[0].addresses: \"nowhere\"",
        ],
    );
}

#[test]
fn a_generic_source_is_described_by_a_table_or_a_token() {
    let generic = |rest: &str| {
        format!(
            "[[webhooks]]\nsource = \"carrier\"\nprovider = \"generic\"\nidentity = [\"/id\"]\n{TARGET}\
             secrets = [{{ id = \"a\", value = {{ env = \"TOKEN\" }} }}]\n{rest}"
        )
    };
    let config = take(&generic(
        "scheme = { header = \"x-sig\", separator = \",\", prefix = \"v1=\", template = \"{timestamp}.{body}\", \
         timestamp_prefix = \"t=\" }\ntolerance = \"1m\"\n",
    ));
    assert_eq!(config.webhooks[0].source.provider(), semel_webhook::Provider::Generic);
    take(&generic("token = { header = \"authorization\", prefix = \"Bearer \" }\n"));
    let check = |rest: &str, expected: &str| {
        let said = refused(&generic(rest));
        assert!(said.contains(expected), "{rest}\n{said}");
    };
    check("", "webhooks[0].scheme: is missing");
    check("scheme = {}\n", "webhooks[0].scheme.header: is missing");
    check("scheme = { header = \"x\", template = \"{timestamp}\" }\n", "scheme.template: must hold {body}");
    check(
        "scheme = { header = \"x\", template = \"{timestamp}{body}\" }\n",
        "nothing says where that is found",
    );
    check("scheme = { header = \"x\", separator = \"ab\" }\n", "scheme.separator: must be one character");
    check("scheme = { header = \"x\" }\ntoken = { header = \"y\" }\n", "token: is given beside `scheme`");
    check(
        "scheme = { header = \"x\", algorithm = \"md5\" }\n",
        "must be one of \"sha256\", \"sha512\", \"sha1\"",
    );
}

#[test]
fn what_is_probably_not_meant_is_a_warning_with_its_line_and_stops_nothing() {
    let stripe = "[[webhooks]]\nsource = \"s\"\nprovider = \"stripe\"\nsecrets = [{ id = \"a\", value = { env = \"TOKEN\" } }]\n\
                  target = \"http://a/\"\nretention = \"1d\"\n";
    let warnings =
        |text: &str| take(text).warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let said = warnings(stripe);
    assert_eq!(
        said,
        "semel.toml:6: webhooks[0].retention: identities are kept for 86400 s, and the provider retries for 259200 s: a \
         late retry will be a new event"
    );
    let none = "[[webhooks]]\nsource = \"n\"\nprovider = \"none\"\ninsecure = true\nidentity = [\"/id\"]\ntarget = \"http://a/\"\n";
    assert!(warnings(none).contains("webhooks[0].insecure: nothing is verified"), "{}", warnings(none));
}

#[test]
fn a_providers_answer_is_its_own_unless_the_source_says_otherwise() {
    let adyen = "[[webhooks]]\nsource = \"a\"\nprovider = \"adyen\"\ntarget = \"http://a/\"\n\
                 secrets = [{ id = \"a\", value = { env = \"HEX\" } }]\n";
    let mut environment = sources();
    environment.environment.insert(
        "HEX".to_owned(),
        "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056".to_owned(),
    );
    let response = |text: &str| {
        let (config, _) = read(text, "semel.toml", false, &environment).map_err(|e| e.to_string()).unwrap();
        config.webhooks[0].response.clone()
    };
    assert_eq!(response(adyen).body, "[accepted]");
    let own = response(&format!(
        "{adyen}response = {{ status = 202, body = \"ok\", content_type = \"text/plain\" }}\n"
    ));
    assert_eq!(
        (own.status, &own.body[..], own.content_type.unwrap()),
        (StatusCode::ACCEPTED, &b"ok"[..], "text/plain".parse().unwrap())
    );
}

#[test]
fn alerts_go_to_one_address_signed_or_as_slack_takes_them() {
    let alerts = take("[alerts]\nurl = \"http://127.0.0.1:9000/alerts\"\nsecret = { env = \"WHSEC\" }\n")
        .alerts
        .unwrap();
    assert_eq!((alerts.format, &alerts.on[..]), (AlertFormat::StandardWebhooks, &AlertKind::ALL[..]));
    assert_eq!((alerts.operation.name.as_str(), alerts.every), (ALERTS, Duration::from_secs(300)));
    assert!(delivery(&alerts.operation).signer.is_some() && alerts.operation.is_semels_own());
    let slack =
        take("[alerts]\nurl = \"http://a/\"\nformat = \"slack\"\non = [\"dead_letters\"]\nevery = \"1m\"\n");
    assert_eq!(slack.alerts.unwrap().on, [AlertKind::DeadLetters]);
    assert!(refused("[alerts]\n").contains("alerts.url: is missing"));
    assert!(
        refused("[alerts]\nurl = \"http://a/\"\non = [\"all\"]\n")
            .contains("there is no kind \"all\"; known: duplicates")
    );
    assert!(
        refused("[alerts]\nurl = \"http://a/\"\nformat = \"slack\"\nsecret = { env = \"WHSEC\" }\n")
            .contains("signs nothing")
    );
    assert!(
        refused("[alerts]\nurl = \"http://169.254.169.254/\"\n").contains("alerts.url: 169.254.169.254 is")
    );
}

#[test]
fn secrets_of_sources_and_targets_show_nowhere() {
    let text = xendit("target = \"http://a/\"\ntarget_secret = { env = \"WHSEC\" }\n");
    let (config, shown) = read(&text, "semel.toml", false, &sources()).map_err(|e| e.to_string()).unwrap();
    let all = format!("{config:?}{shown:?}");
    assert!(!all.contains("token-one") && !all.contains("MfKQ9r8GKYqrTwj"), "{all}");
}

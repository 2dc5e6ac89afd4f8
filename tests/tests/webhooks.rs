//! The door of webhooks: what a partner sends is verified, taken in once, and acknowledged when it is durable.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use ring::hmac;
use rustix::process::{Resource, Rlimit, Signal, prlimit};
use serde_json::{Value, json};

use crate::http::Answer;
use crate::server::{self, Server};
use crate::target::Target;
use crate::wait::eventually;

const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ADYEN: &str = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";

/// A source in development mode, where its secret may be a text.
fn source(name: &str, provider: &str, secret: &str, target: &str, more: &str) -> String {
    format!(
        "[[webhooks]]\nsource = \"{name}\"\nprovider = \"{provider}\"\n\
         secrets = [{{ id = \"main\", value = \"{secret}\" }}]\n{target}\n{more}\n"
    )
}

fn to(target: &Target) -> String {
    format!("target = \"{}/text\"", target.url())
}

fn xendit(target: &Target, more: &str) -> String {
    format!("[server]\ndevelopment = true\n{}", source("xendit", "xendit", "token-one", &to(target), more))
}

async fn deliver(server: &Server, source: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let url = format!("{}/v1/webhooks/{source}", server.url());
    server.http().post(&url, headers, body.to_owned()).await.unwrap()
}

/// A delivery of Xendit's, as `webhook-id` names it.
async fn paid(server: &Server, id: &str, body: &str) -> Answer {
    let headers =
        [("x-callback-token", "token-one"), ("webhook-id", id), ("content-type", "application/json")];
    deliver(server, "xendit", &headers, body).await
}

async fn admin(server: &Server, path: &str) -> Value {
    let answer = server.http().get(&format!("{}{path}", server.admin_url()), &[]).await.unwrap();
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

async fn records(server: &Server, query: &str) -> Vec<Value> {
    admin(server, &format!("/v1/records?{query}")).await["records"].as_array().unwrap().clone()
}

/// A counter, as it stands.
async fn counted(server: &Server, series: &str) -> u64 {
    let series = &*series.replace('{', "{service=\"semel\",");
    let scrape = server.http().get(&format!("{}/metrics", server.admin_url()), &[]).await.unwrap();
    let line = scrape
        .text()
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .map(str::to_owned);
    line.unwrap_or_else(|| panic!("there is no {series}")).split(' ').next().unwrap().parse().unwrap()
}

async fn verdict(server: &Server, source: &str, verdict: &str) -> u64 {
    counted(server, &format!("semel_webhooks_total{{source=\"{source}\",verdict=\"{verdict}\"}}")).await
}

async fn settled(server: &Server, count: usize) {
    let what = format!("{count} records are completed");
    eventually(&what, async || {
        (records(server, "state=completed&namespace=webhook").await.len() == count).then_some(())
    })
    .await;
}

fn sha256(key: &[u8], message: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a partner stamps by its own wall clock; the tolerance is a day"
)]
fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn adyen_item(psp: &str) -> Value {
    let signed = format!("{psp}::TestMerchant:TestPayment-1:1130:EUR:AUTHORISATION:true");
    json!({"NotificationRequestItem": {
        "additionalData": {"hmacSignature": STANDARD.encode(sha256(&unhex(ADYEN), &signed))},
        "amount": {"value": 1130, "currency": "EUR"}, "pspReference": psp, "eventCode": "AUTHORISATION",
        "merchantAccountCode": "TestMerchant", "merchantReference": "TestPayment-1", "success": "true",
    }})
}

/// A delivery: its source, its headers, its body, and how many events are in it.
type Genuine = (&'static str, Vec<(&'static str, String)>, String, usize);

/// A genuine delivery of each provider.
fn genuine() -> Vec<Genuine> {
    let body = r#"{"id":"evt_1","event_id":"evt_1"}"#.to_owned();
    let now = now_s();
    let standard = STANDARD.decode(WHSEC.strip_prefix("whsec_").unwrap()).unwrap();
    let base64 = |key: &[u8], message: &str| STANDARD.encode(sha256(key, message));
    let adyen =
        json!({"live": "false", "notificationItems": [adyen_item("psp-1"), adyen_item("psp-2")]}).to_string();
    vec![
        (
            "standard-webhooks",
            vec![
                ("webhook-id", "msg_1".to_owned()),
                ("webhook-timestamp", now.to_string()),
                ("webhook-signature", format!("v1,{}", base64(&standard, &format!("msg_1.{now}.{body}")))),
            ],
            body.clone(),
            1,
        ),
        (
            "stripe",
            vec![(
                "stripe-signature",
                format!("t={now},v1={}", hex(&sha256(WHSEC.as_bytes(), &format!("{now}.{body}")))),
            )],
            body.clone(),
            1,
        ),
        (
            "github",
            vec![
                ("x-hub-signature-256", format!("sha256={}", hex(&sha256(b"secret", &body)))),
                ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958".to_owned()),
            ],
            body.clone(),
            1,
        ),
        (
            "shopify",
            vec![
                ("x-shopify-hmac-sha256", base64(b"secret", &body)),
                ("x-shopify-webhook-id", "b54557e4".to_owned()),
            ],
            body.clone(),
            1,
        ),
        (
            "xendit",
            vec![("x-callback-token", "secret".to_owned()), ("webhook-id", "evt-1".to_owned())],
            body.clone(),
            1,
        ),
        ("adyen", vec![], adyen, 2),
        ("aftership", vec![("aftership-hmac-sha256", base64(b"secret", &body))], body.clone(), 1),
        (
            "easypost",
            vec![("x-hmac-signature", format!("hmac-sha256-hex={}", hex(&sha256(b"secret", &body))))],
            body.clone(),
            1,
        ),
        (
            "generic",
            vec![(
                "x-signature",
                format!("t={now},v1={}", hex(&sha256(b"secret", &format!("{now}.{body}")))),
            )],
            body.clone(),
            1,
        ),
        ("none", vec![], body, 1),
    ]
}

/// A source for each provider, named as it is.
fn every_provider(target: &Target) -> String {
    let mut config = "[server]\ndevelopment = true\n".to_owned();
    let hash = "missing_identity = \"content-hash\"";
    let generic = "identity = [\"/event_id\"]\ntolerance = \"24h\"\n\
                   scheme = { header = \"x-signature\", prefix = \"v1=\", separator = \",\", template = \"{timestamp}.{body}\", timestamp_prefix = \"t=\" }";
    for (provider, secret, more) in [
        ("standard-webhooks", WHSEC, "tolerance = \"24h\""),
        ("stripe", WHSEC, "tolerance = \"24h\""),
        ("github", "secret", ""),
        ("shopify", "secret", ""),
        ("xendit", "secret", ""),
        ("adyen", ADYEN, ""),
        ("aftership", "secret", hash),
        ("easypost", "secret", hash),
        ("generic", "secret", generic),
    ] {
        config += &source(provider, provider, secret, &to(target), more);
    }
    config
        + &format!(
            "[[webhooks]]\nsource = \"none\"\nprovider = \"none\"\ninsecure = true\nidentity = [\"/id\"]\n{}\n",
            to(target)
        )
}

#[tokio::test]
async fn each_providers_delivery_is_taken_in_once_and_answered_as_it_wants() {
    let target = Target::start().await;
    let server = Server::start(&every_provider(&target)).await;
    let mut events = 0;
    for (provider, headers, body, count) in genuine() {
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let expected = if provider == "adyen" { "[accepted]" } else { "" };
        for _ in 0..3 {
            let answer = deliver(&server, provider, &headers, &body).await;
            assert_eq!((answer.status, answer.text()), (200, expected), "{provider}");
        }
        let count64 = u64::try_from(count).unwrap();
        assert_eq!(verdict(&server, provider, "accepted").await, count64, "{provider}");
        assert_eq!(verdict(&server, provider, "duplicate").await, 2 * count64, "{provider}");
        events += count;
        // A byte more is another body, that nobody has signed; Xendit signs none.
        if !["xendit", "none", "adyen"].contains(&provider) {
            let forged = deliver(&server, provider, &headers, &format!("{body} ")).await;
            assert_eq!(forged.refusal(), (401, "SIGNATURE_INVALID".to_owned()), "{provider}");
        }
    }
    settled(&server, events).await;
    assert_eq!(target.seen().len(), events, "each event is delivered once");
    let bodies: Vec<_> = target.seen().into_iter().map(|arrived| arrived.body).collect();
    assert!(
        bodies.iter().any(|body| body == r#"{"id":"evt_1","event_id":"evt_1"}"#),
        "byte by byte: {bodies:?}"
    );
    server.stop().await;
}

#[tokio::test]
async fn each_verdict_has_its_status_its_count_its_line_and_its_audit_entry() {
    let target = Target::start().await;
    let server = Server::start(&xendit(&target, "tags = { order_id = \"/order_id\" }")).await;
    let body = r#"{"order_id":"A-1","amount":5}"#;
    assert_eq!(paid(&server, "evt-1", body).await.status, 200);
    settled(&server, 1).await;
    assert_eq!(paid(&server, "evt-1", body).await.status, 200, "a duplicate is acknowledged");
    assert_eq!(
        paid(&server, "evt-1", r#"{"order_id":"A-1","amount":6}"#).await.status,
        200,
        "and so is a conflict"
    );
    let wrong = [("x-callback-token", "token-two"), ("webhook-id", "evt-2")];
    let rejected = deliver(&server, "xendit", &wrong, body).await;
    assert_eq!(rejected.refusal(), (401, "SIGNATURE_INVALID".to_owned()));
    assert!(!rejected.text().contains("token"), "nobody is told what is wrong: {}", rejected.text());
    for (name, count) in [("accepted", 1), ("duplicate", 1), ("conflict", 1), ("rejected", 1)] {
        assert_eq!(verdict(&server, "xendit", name).await, count, "{name}");
        server.logged(&format!("\"verdict\":\"{name}\"")).await;
    }
    assert_eq!(
        counted(&server, "semel_webhook_rejections_total{source=\"xendit\",reason=\"signature_mismatch\"}")
            .await,
        1
    );
    assert_eq!(counted(&server, "semel_webhook_verified_total{source=\"xendit\",secret=\"main\"}").await, 3);
    server.logged("\"event_id\":\"evt-1\"").await;
    server.logged("\"partner\":\"xendit\"").await;
    server.logged("\"order_id\":\"A-1\"").await;
    assert!(
        !server.log().contains("token-one") && !server.log().contains("amount"),
        "neither secrets nor bodies"
    );

    let entry = |action: &'static str| {
        let server = &server;
        async move {
            let path = format!("/v1/audit?action={action}");
            eventually(action, async || admin(server, &path).await["entries"].get(0).cloned()).await
        }
    };
    assert_eq!(entry("accepted").await["actor"], "webhook:xendit/default");
    let duplicate = entry("replayed").await;
    let evidence = &duplicate["metadata"];
    assert_eq!(
        (&evidence["verdict"], &evidence["isRetry"]),
        (&json!("duplicate"), &json!(true)),
        "{duplicate}"
    );
    assert_eq!(evidence["sourceAddress"], "127.0.0.1");
    assert!(evidence["firstSeen"].is_string() && evidence["gapMs"].is_string(), "{duplicate}");
    assert_eq!((&duplicate["key"], &duplicate["tags"]["order_id"]), (&json!("evt-1"), &json!("A-1")));
    let conflict = entry("mismatch").await;
    assert_eq!(conflict["metadata"]["verdict"], "conflict", "{conflict}");
    let all = admin(&server, "/v1/audit?limit=1000").await.to_string();
    assert!(!all.contains("evt-2") && !all.contains("reject"), "a forger fills no audit: {all}");

    let filed = records(&server, "state=dead&tag=kind%3Dconflict").await;
    assert_eq!(filed.len(), 1, "the other body is kept, once: {filed:?}");
    assert_eq!(paid(&server, "evt-1", r#"{"order_id":"A-1","amount":6}"#).await.status, 200);
    assert_eq!(records(&server, "state=dead").await.len(), 1);
    assert_eq!(records(&server, "tag=event_id%3Devt-1").await.len(), 1, "and found by its event");
    assert_eq!(target.seen().len(), 1, "it is not delivered");
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_delivery_is_refused_for_what_it_is() {
    let target = Target::start().await;
    let config = xendit(&target, "rate_limit = { requests_per_second = 1, burst = 6 }");
    let server = Server::start(&config).await;
    assert_eq!(deliver(&server, "nobody", &[], "{}").await.refusal(), (404, "NOT_FOUND".to_owned()));
    let url = format!("{}/v1/webhooks/xendit", server.url());
    assert_eq!(server.http().get(&url, &[]).await.unwrap().refusal(), (405, "METHOD_NOT_ALLOWED".to_owned()));
    let token = [("x-callback-token", "token-one")];
    // Verified, and nothing says which event it is.
    for body in ["{}", "not json", ""] {
        let answer = deliver(&server, "xendit", &token, body).await;
        assert_eq!(answer.refusal(), (400, "VALIDATION_FAILED".to_owned()), "{body}");
        assert!(answer.text().contains("identity_m"), "{}", answer.text());
    }
    let unknown = server.execute("webhook:xendit/default", "k", "{}", &[]).await;
    assert_eq!(unknown.refusal(), (404, "UNKNOWN_OPERATION".to_owned()), "no client may ask for a delivery");
    assert!(records(&server, "").await.is_empty(), "nothing of it is stored");
    // One a second comes back into the bucket: whoever goes on asking finds it empty, however slow the machine is, once
    // requests come faster than that.
    let mut admitted = 0;
    let limited = loop {
        let answers = join_all((0..10).map(|_| paid(&server, "evt-2", "{}"))).await;
        admitted += answers.iter().filter(|answer| answer.status == 200).count();
        match answers.into_iter().find(|answer| answer.status != 200) {
            Some(limited) => break limited,
            None => assert!(admitted < 5_000, "nothing bounds them"),
        }
    };
    assert_eq!(limited.refusal(), (429, "RATE_LIMITED".to_owned()));
    assert!(limited.header("retry-after").is_some() && limited.header("ratelimit").is_some());
    server.stop().await;
}

/// Too large is too large, whoever has signed it, and however it is announced; and it is not read to its end to be told so.
#[tokio::test]
async fn unbounded_bodies_are_not_read_and_oversized_chunked_ones_are_413_and_no_bad_signature() {
    let target = Target::start().await;
    let server = Server::start(&xendit(&target, "max_body_bytes = 100")).await;
    let head = |token: &str, framing: &str| {
        format!(
            "POST /v1/webhooks/xendit HTTP/1.1\r\nhost: a\r\nx-callback-token: {token}\r\nwebhook-id: e\r\n{framing}\r\n\
             connection: close\r\n\r\n"
        )
    };
    for token in ["token-one", "guess"] {
        let whole = format!("65\r\n{}\r\n0\r\n\r\n", "x".repeat(101));
        let endless = format!("65\r\n{}\r\n", "x".repeat(101));
        let chunked = "transfer-encoding: chunked";
        // An announcement is enough; and of what is sent without one, the first byte too many.
        for (framing, body) in [("content-length: 1000000000", ""), (chunked, &*whole), (chunked, &*endless)]
        {
            let sent = head(token, framing) + body;
            let answer = crate::http::raw_to_end(&server.url(), sent.as_bytes()).await;
            assert!(answer.starts_with(b"HTTP/1.1 413 "), "{framing}: {}", String::from_utf8_lossy(&answer));
        }
    }
    let large = paid(&server, "evt-1", &"x".repeat(101)).await;
    assert_eq!(large.refusal(), (413, "PAYLOAD_TOO_LARGE".to_owned()));
    let fits = paid(&server, "evt-1", &format!("\"{}\"", "x".repeat(98))).await;
    assert_eq!(fits.status, 200, "{}", fits.text());
    server.stop().await;
}

#[tokio::test]
async fn dedupe_before_verification_would_let_forged_requests_probe_or_poison_identities_and_a_flood_stores_nothing()
 {
    let target = Target::start().await;
    let server = Server::start(&xendit(&target, "")).await;
    assert_eq!(paid(&server, "evt-1", "{}").await.status, 200);
    settled(&server, 1).await;
    let forge = async |at: usize| {
        // Every other one names an event that exists.
        let id = if at.is_multiple_of(2) { "evt-1".to_owned() } else { format!("forged-{at}") };
        let headers = [("x-callback-token", "guess"), ("webhook-id", id.as_str())];
        let mut answer = deliver(&server, "xendit", &headers, "{}").await;
        let mut said = answer.json();
        said["error"]["request_id"] = Value::Null;
        answer.body = said.to_string().into();
        (answer.status, answer.body)
    };
    let answers = join_all((0..400).map(forge)).await;
    assert!(answers.iter().all(|answer| answer.0 == 401 && *answer == answers[0]), "all are told the same");
    assert_eq!(verdict(&server, "xendit", "rejected").await, 400);
    assert_eq!(verdict(&server, "xendit", "duplicate").await, 0);
    assert_eq!(records(&server, "limit=1000").await.len(), 1);
    assert_eq!(paid(&server, "forged-1", "{}").await.status, 200);
    assert_eq!(verdict(&server, "xendit", "accepted").await, 2, "no identity was poisoned");
    server.stop().await;
}

#[tokio::test]
async fn a_store_outage_is_503_and_never_400_and_nothing_is_acknowledged_that_is_not_durable_l4_l12() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start().await;
    let config = format!("[store]\nurl = \"embedded:data\"\n{}", xendit(&target, ""));
    std::fs::write(folder.path().join("semel.toml"), &config).unwrap();
    // Above the limit a write fails, if the signal that says so is ignored.
    let command = server::command_of("trap '' XFSZ; exec \"$0\" \"$@\"", &["serve"], folder.path());
    let mut server = Server::run(command).await.unwrap();
    assert_eq!(paid(&server, "evt-1", "{}").await.status, 200);
    settled(&server, 1).await;
    let limit = Rlimit { current: Some(4_096), maximum: None };
    prlimit(Some(server.process()), Resource::Fsize, limit).unwrap();
    for id in ["evt-2", "evt-2", "evt-3"] {
        let answer = paid(&server, id, "{}").await;
        assert_eq!(answer.refusal(), (503, "IDEMPOTENCY_STORAGE_UNAVAILABLE".to_owned()));
        assert!(answer.header("retry-after").is_some(), "its partner is told to come again");
    }
    assert_eq!(target.seen().len(), 1, "nothing that is not durable is delivered");
    server.signal(Signal::KILL);
    server.ended().await;
    let server = Server::run(server::command(&["serve"], folder.path())).await.unwrap();
    assert_eq!(paid(&server, "evt-1", "{}").await.status, 200);
    assert_eq!(verdict(&server, "xendit", "duplicate").await, 1, "what was acknowledged is remembered");
    assert_eq!(paid(&server, "evt-3", "{}").await.status, 200, "its partner has come again");
    target.arrived(2).await;
    server.stop().await;
}

#[tokio::test]
async fn secrets_are_rotated_by_a_reload_and_an_old_one_holds_until_it_is_taken_out() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start().await;
    let both = "secrets = [{ id = \"old\", value = \"token-one\" }, { id = \"new\", value = \"token-two\" }]";
    let with = |secrets: &str| {
        let one = "secrets = [{ id = \"main\", value = \"token-one\" }]";
        let config = xendit(&target, "");
        assert!(config.contains(one));
        config.replace(one, secrets)
    };
    let server = Server::start_in(folder.path(), &xendit(&target, "")).await;
    let with_token = async |token: &str, id: &str| {
        deliver(&server, "xendit", &[("x-callback-token", token), ("webhook-id", id)], "{}").await.status
    };
    assert_eq!((with_token("token-one", "a").await, with_token("token-two", "b").await), (200, 401));
    let reload = async |secrets: &str, times: usize| {
        std::fs::write(folder.path().join("semel.toml"), with(secrets)).unwrap();
        server.signal(Signal::HUP);
        let told = "the configuration was read again";
        eventually(told, async || (server.log().matches(told).count() == times).then_some(())).await;
    };
    reload(both, 1).await;
    assert_eq!((with_token("token-one", "c").await, with_token("token-two", "d").await), (200, 200));
    assert_eq!(counted(&server, "semel_webhook_verified_total{source=\"xendit\",secret=\"old\"}").await, 1);
    assert_eq!(counted(&server, "semel_webhook_verified_total{source=\"xendit\",secret=\"new\"}").await, 1);
    reload("secrets = [{ id = \"new\", value = \"token-two\" }]", 2).await;
    assert_eq!((with_token("token-one", "e").await, with_token("token-two", "f").await), (401, 200));
    // One that has ended is as good as none.
    reload(&both.replace("\"token-one\" }", "\"token-one\", not_after = 2020-01-01T00:00:00Z }"), 3).await;
    assert_eq!((with_token("token-one", "g").await, with_token("token-two", "h").await), (401, 200));
    server.stop().await;
}

#[tokio::test]
async fn a_reload_under_load_drops_no_delivery() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start().await;
    let server = Server::start_in(folder.path(), &xendit(&target, "")).await;
    let many = async {
        for round in 0..20 {
            let ids: Vec<String> = (0..10).map(|at| format!("evt-{round}-{at}")).collect();
            let answers = join_all(ids.iter().map(|id| paid(&server, id, "{}"))).await;
            assert!(answers.iter().all(|answer| answer.status == 200));
            if round % 5 == 0 {
                std::fs::write(
                    folder.path().join("semel.toml"),
                    xendit(&target, &format!("timeout = \"{}s\"", round + 1)),
                )
                .unwrap();
                server.signal(Signal::HUP);
            }
        }
    };
    many.await;
    assert_eq!(verdict(&server, "xendit", "accepted").await, 200);
    target.arrived(200).await;
    server.stop().await;
}

#[tokio::test]
async fn an_event_for_several_targets_is_a_record_for_each_and_one_duplicate_for_all() {
    let target = Target::start().await;
    let targets = ["orders", "books"]
        .map(|name| format!("[[webhooks.targets]]\nname = \"{name}\"\nurl = \"{}/text\"\n", target.url()));
    let config = format!(
        "[server]\ndevelopment = true\n{}",
        source("xendit", "xendit", "token-one", "", &targets.concat())
    );
    let server = Server::start(&config).await;
    assert_eq!(paid(&server, "evt-1", "{}").await.status, 200);
    settled(&server, 2).await;
    assert_eq!(target.seen().len(), 2);
    assert_eq!(paid(&server, "evt-1", "{}").await.status, 200);
    let counts =
        (verdict(&server, "xendit", "accepted").await, verdict(&server, "xendit", "duplicate").await);
    assert_eq!(counts, (1, 1), "events are counted, and not their records");
    for name in ["orders", "books"] {
        let found = records(&server, &format!("tag=target%3D{name}")).await;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["operation"], format!("webhook:xendit/{name}"));
    }
    server.stop().await;
}

#[tokio::test]
async fn duplicates_are_filed_for_analysis_and_conflicts_answered_409_where_the_source_says_so() {
    let target = Target::start().await;
    let server =
        Server::start(&xendit(&target, "duplicates = { dead_letter = true }\nconflict_status = 409")).await;
    for _ in 0..4 {
        assert_eq!(paid(&server, "evt-1", "{}").await.status, 200);
        settled(&server, 1).await;
    }
    let filed = records(&server, "state=dead&tag=kind%3Dduplicate").await;
    assert_eq!(filed.len(), 3, "each by itself, whether it was remembered or looked up: {filed:?}");
    let conflict = paid(&server, "evt-1", "[]").await;
    assert_eq!(conflict.refusal(), (409, "IDEMPOTENCY_PARAMETER_MISMATCH".to_owned()));
    assert_eq!(records(&server, "state=dead&tag=kind%3Dconflict").await.len(), 1);
    assert_eq!(target.seen().len(), 1, "none of them is delivered");
    server.stop().await;
}

#[tokio::test]
async fn a_settled_duplicate_is_remembered_and_asks_no_store_but_a_conflict_does() {
    let target = Target::start().await;
    let server = Server::start(&xendit(&target, "")).await;
    assert_eq!(paid(&server, "evt-1", "{}").await.status, 200);
    settled(&server, 1).await;
    let hits = "semel_webhook_cache_hits_total{source=\"xendit\"}";
    let inserts = "semel_store_call_duration_seconds_count{call=\"insert\"}";
    assert_eq!(paid(&server, "evt-1", "{}").await.status, 200, "this one is looked up, and remembered");
    let before = counted(&server, inserts).await;
    for _ in 0..5 {
        assert_eq!(paid(&server, "evt-1", "{}").await.status, 200);
    }
    assert_eq!((counted(&server, hits).await, counted(&server, inserts).await), (5, before));
    assert_eq!(paid(&server, "evt-1", "{ }").await.status, 200, "the same, written otherwise");
    assert_eq!(counted(&server, hits).await, 6);
    assert_eq!(paid(&server, "evt-1", "[]").await.status, 200);
    assert_eq!(verdict(&server, "xendit", "conflict").await, 1, "what is remembered hides no conflict");
    assert_eq!(verdict(&server, "xendit", "duplicate").await, 7);
    server.stop().await;
}

#[tokio::test]
async fn the_debugger_says_why_a_signature_does_not_hold_and_shows_no_secret() {
    let target = Target::start().await;
    let config = source("github", "github", "It's a Secret to Everybody", &to(&target), "");
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&format!("[server]\ndevelopment = true\n{config}")).await;
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let verify = async |arguments: &[&str], request: &str| {
        let file = folder.path().join("request");
        std::fs::write(&file, request).unwrap();
        let admin = server.admin_url();
        let mut all = vec!["verify", "github", "--admin-url", &admin, "--body", file.to_str().unwrap()];
        all.extend(arguments);
        let output = server::command(&all, folder.path()).output().await.unwrap();
        let (said, problem) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(!said.contains("Secret to"), "{said}");
        (output.status.code().unwrap(), said, problem)
    };
    let whole = format!(
        "POST /v1/webhooks/github HTTP/1.1\r\nX-Hub-Signature-256: {signature}\r\nX-GitHub-Delivery: d-1\r\n\r\nHello, World!"
    );
    let (code, said, problem) = verify(&[], &whole).await;
    assert_eq!((code, problem.as_str()), (0, ""), "{said}");
    assert!(
        said.contains("verified: github") && said.contains("d-1") && said.contains("main verifies it"),
        "{said}"
    );
    let (code, said, _) = verify(&[], &format!("{whole}\n")).await;
    assert_eq!(code, 11);
    assert!(said.contains("a line end was added on the way"), "{said}");
    let signature = format!("X-Hub-Signature: {signature}");
    let (code, said, _) = verify(&["--header", &signature, "--json"], "Hello, World!").await;
    let reply: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &reply["verified"], &reply["reason"]), (11, &json!(false), &json!("header_missing")));
    let file = folder.path().join("request");
    let other = [
        "verify",
        "nobody",
        "--admin-url",
        &server.admin_url(),
        "-H",
        "a: b",
        "--body",
        file.to_str().unwrap(),
    ];
    let output = server::command(&other, folder.path()).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("NOT_FOUND") && said.contains("no webhook source of that name"), "{said}");
    assert!(
        records(&server, "").await.is_empty() && verdict(&server, "github", "rejected").await == 0,
        "it only looks"
    );
    server.stop().await;
}

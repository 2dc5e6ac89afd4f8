//! The providers' own libraries sign and Semel verifies; Semel signs and they verify. Standard Webhooks' and Svix's for
//! Python and Node, and Stripe's for both. Of providers whose libraries only verify, both judge the same deliveries alike:
//! `EasyPost`'s for both, Shopify's for Node, Adyen's for Python.
//!
//! The packages come from npm and `PyPI` by the ordinary clients, once, below the target folder.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as its tests do")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::SystemTime;

use bytes::Bytes;
use semel_core::Timestamp;
use semel_webhook::{Delivery, Provider, SecretValue, Signer, Source};
use serde_json::{Value, json};

/// What runs the libraries: a program and its script, for each language.
type Runners = [(PathBuf, PathBuf); 2];

fn run(program: &str, arguments: &[&str], folder: &Path) -> Result<(), String> {
    let output = Command::new(program).args(arguments).current_dir(folder).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{program}: {said}")) }
}

/// Copies a folder's files, and fetches its packages where that has not been done for this list of them.
fn provide(name: &str, list: &str, fetch: impl Fn(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    // target/debug/deps/interop-…: the target folder is three up.
    let test = std::env::current_exe().unwrap();
    let to = test.ancestors().nth(3).unwrap().join("tools/webhook").join(name);
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name);
    std::fs::create_dir_all(&to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    let (wanted, done) = (std::fs::read(to.join(list)).unwrap(), to.join(".fetched"));
    if std::fs::read(&done).ok() != Some(wanted.clone()) {
        fetch(&to)?;
        // Written last: a fetch that was cut off is begun again.
        std::fs::write(done, wanted).unwrap();
    }
    Ok(to)
}

fn install() -> Result<Runners, String> {
    let node = provide("node", "package.json", |folder| {
        run("npm", &["install", "--no-audit", "--no-fund"], folder)
    })?;
    let python = provide("python", "requirements.txt", |folder| {
        run("python3", &["-m", "venv", "venv"], folder)?;
        run("venv/bin/python", &["-m", "pip", "install", "--quiet", "-r", "requirements.txt"], folder)
    })?;
    Ok([
        ("node".into(), node.join("interop.mjs")),
        (python.join("venv/bin/python"), python.join("interop.py")),
    ])
}

/// The runners, fetched once. `None`, said aloud, where they cannot be had, which under CI is a failure, and in a
/// quick run.
fn runners() -> Option<&'static Runners> {
    static RUNNERS: OnceLock<Result<Runners, String>> = OnceLock::new();
    if std::env::var_os("SEMEL_QUICK").is_some() {
        println!("skipped: a quick run fetches no libraries");
        return None;
    }
    match RUNNERS.get_or_init(install) {
        Ok(runners) => Some(runners),
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "CI must be able to fetch the libraries: {why}");
            println!("skipped: the libraries cannot be fetched: {why}");
            None
        }
    }
}

/// What the libraries of one language make of the tasks.
fn ask((program, script): &(PathBuf, PathBuf), tasks: &[Value]) -> Vec<Value> {
    let mut command = Command::new(program);
    command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    // Dropped at the end of the statement: the script reads up to the end.
    process.stdin.take().unwrap().write_all(Value::from(tasks.to_vec()).to_string().as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let results: Vec<Value> = serde_json::from_str(said.lines().last().unwrap_or_default())
        .unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(results.len(), tasks.len(), "{said}");
    results
}

#[expect(
    clippy::disallowed_methods,
    reason = "the libraries compare with the wall clock and cannot be told another time"
)]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap())
}

fn verify(
    provider: Provider,
    secret: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<String, &'static str> {
    let source =
        Source::builder("partner", provider).secret(SecretValue::new("main", secret)).build().unwrap();
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    let body = Bytes::copy_from_slice(body.as_bytes());
    let verified = source.verify(&Delivery::new(&headers, &body), now());
    let verified = verified.map_err(|rejection| rejection.reason().as_str())?;
    Ok(verified.events()[0].identity().to_string())
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Bodies in which a library that signs anything but the bytes would be found out.
const BODIES: [&str; 4] = [
    r#"{"id":"evt_1","total":9007199254740993}"#,
    "{ \"id\" : \"evt_1\",\r\n  \"name\": \"\\u00e9 – ü – 🚚\" }\n",
    r#"{"id":"evt_1","n":1.0,"n2":1e2,"s":"a\/b"}"#,
    r#"{"id":"evt_1","list":[],"text":"%7B a+b & ' \" <"}"#,
];

#[test]
fn what_the_providers_libraries_sign_semel_verifies() {
    let Some(runners) = runners() else { return };
    let stamp = now().as_millis() / 1_000;
    for runner in runners {
        let mut tasks = Vec::new();
        for library in ["standardwebhooks", "svix", "stripe"] {
            tasks.extend(BODIES.map(|body| {
                json!({ "action": "sign", "library": library, "secret": SECRET, "id": "msg_1", "timestamp": stamp, "body": body })
            }));
        }
        for (task, result) in tasks.iter().zip(ask(runner, &tasks)) {
            let (library, body) = (task["library"].as_str().unwrap(), task["body"].as_str().unwrap());
            let (signature, stamp) = (result["signature"].as_str().unwrap(), stamp.to_string());
            let (provider, headers, identity) = match library {
                "stripe" => (Provider::Stripe, vec![("stripe-signature", signature)], "evt_1"),
                "svix" => {
                    let headers =
                        vec![("svix-id", "msg_1"), ("svix-timestamp", &stamp), ("svix-signature", signature)];
                    (Provider::StandardWebhooks, headers, "msg_1")
                }
                _ => {
                    let headers = vec![
                        ("webhook-id", "msg_1"),
                        ("webhook-timestamp", &*stamp),
                        ("webhook-signature", signature),
                    ];
                    (Provider::StandardWebhooks, headers, "msg_1")
                }
            };
            assert_eq!(
                verify(provider, SECRET, &headers, body),
                Ok(identity.to_owned()),
                "{runner:?} {library} {body}"
            );
            let altered = body.replace("evt_1", "evt_2");
            let refused = verify(provider, SECRET, &headers, &altered);
            assert_eq!(refused, Err("signature_mismatch"), "{runner:?} {library} {altered}");
        }
    }
}

#[test]
fn what_semel_signs_the_libraries_verify() {
    let Some(runners) = runners() else { return };
    let other = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    let private =
        "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
    // A rotation, and a key of the other kind: each target finds its own signature among them.
    let secrets =
        [SecretValue::new("old", SECRET), SecretValue::new("new", other), SecretValue::new("v1a", private)];
    let signer = Signer::try_new(&secrets).unwrap();
    for runner in runners {
        let (mut tasks, mut expected) = (Vec::new(), Vec::new());
        for library in ["standardwebhooks", "svix"] {
            for body in BODIES {
                let sent = signer.sign("msg_1", now(), body.as_bytes()).unwrap();
                let headers: serde_json::Map<_, _> =
                    sent.headers().map(|(name, value)| (name.to_owned(), value.into())).into_iter().collect();
                for (secret, body, holds) in [
                    (SECRET, body, true),
                    (other, body, true),
                    ("whsec_AAAA", body, false),
                    (SECRET, &body.replace("evt_1", "evt_2"), false),
                ] {
                    tasks.push(json!({ "action": "verify", "library": library, "secret": secret, "headers": headers, "body": body }));
                    expected.push(holds);
                }
            }
        }
        for ((task, result), holds) in tasks.iter().zip(ask(runner, &tasks)).zip(expected) {
            assert_eq!(result["holds"], holds, "{runner:?} {task} {result}");
        }
    }
}

fn code(secret: &str, body: &str) -> Vec<u8> {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let mut code = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    code.update(body.as_bytes());
    code.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// A delivery, and whether it is genuine.
struct Sample {
    secret: &'static str,
    headers: Vec<(&'static str, String)>,
    body: String,
    is_genuine: bool,
}

/// Deliveries of `EasyPost`, whose secret is normalised (NFKD) before it is a key.
fn of_easypost() -> Vec<Sample> {
    let header = |signature: String| vec![("X-Hmac-Signature", signature)];
    let mut samples = Vec::new();
    for (secret, normalised) in
        [("plain", "plain"), ("s\u{e9}cret", "se\u{301}cret"), ("se\u{301}cret \u{fb01}", "se\u{301}cret fi")]
    {
        for body in BODIES {
            let signature = format!("hmac-sha256-hex={}", hex(&code(normalised, body)));
            let sample = |signature: &str, body: &str, is_genuine| Sample {
                secret,
                headers: header(signature.to_owned()),
                body: body.to_owned(),
                is_genuine,
            };
            samples.push(sample(&signature, body, true));
            samples.push(sample(&signature, &body.replace("evt_1", "evt_2"), false));
            samples.push(sample(&signature[16..], body, false));
            samples.push(sample(&format!("hmac-sha256-hex={}", hex(&code("other", body))), body, false));
        }
    }
    samples
}

/// Deliveries of Shopify.
fn of_shopify() -> Vec<Sample> {
    use base64::Engine as _;
    let mut samples = Vec::new();
    for body in BODIES {
        let signature = |secret| base64::engine::general_purpose::STANDARD.encode(code(secret, body));
        let sample = |signature: String, body: &str, is_genuine| {
            let about = |name, value: &str| (name, value.to_owned());
            let headers = vec![
                about("X-Shopify-Webhook-Id", "evt_1"),
                about("X-Shopify-Topic", "orders/create"),
                about("X-Shopify-Shop-Domain", "a.myshopify.com"),
                about("X-Shopify-Api-Version", "2026-10"),
                ("X-Shopify-Hmac-Sha256", signature),
            ];
            Sample { secret: "client-secret", headers, body: body.to_owned(), is_genuine }
        };
        samples.push(sample(signature("client-secret"), body, true));
        samples.push(sample(signature("client-secret"), &body.replace("evt_1", "evt_2"), false));
        samples.push(sample(signature("other-secret"), body, false));
        samples.push(sample(hex(&code("client-secret", body)), body, false));
    }
    samples
}

#[test]
fn what_the_libraries_of_easypost_and_shopify_take_semel_takes_and_nothing_else() {
    let Some(runners) = runners() else { return };
    for runner in runners {
        let is_node = runner.0.ends_with("node");
        let mut samples = vec![(Provider::Easypost, of_easypost())];
        if is_node {
            samples.push((Provider::Shopify, of_shopify()));
        }
        for (provider, samples) in samples {
            let task = |sample: &Sample| {
                let headers: serde_json::Map<_, _> =
                    sample.headers.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
                json!({ "action": "verify", "library": provider.as_str(), "secret": sample.secret, "headers": headers, "body": sample.body })
            };
            let tasks: Vec<_> = samples.iter().map(task).collect();
            for (sample, result) in samples.iter().zip(ask(runner, &tasks)) {
                let Sample { secret, headers, body, is_genuine } = sample;
                assert_eq!(result["holds"], *is_genuine, "{runner:?} {headers:?} {body} {result}");
                let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
                assert_eq!(
                    verify(provider, secret, &headers, body).is_ok(),
                    *is_genuine,
                    "{headers:?} {body}"
                );
            }
        }
    }
}

#[test]
fn what_adyens_library_signs_semel_verifies_and_both_refuse_what_was_altered() {
    const KEY: &str = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";
    let Some([_, python]) = runners() else { return };
    let body = |reference: &str, signature: &str| {
        json!({ "live": "false", "notificationItems": [{ "NotificationRequestItem": {
            "additionalData": { "hmacSignature": signature }, "pspReference": "psp-1", "originalReference": "",
            "merchantAccountCode": "Shop", "merchantReference": reference,
            "amount": { "value": 1130, "currency": "EUR" }, "eventCode": "AUTHORISATION", "success": "true",
        } }] })
        .to_string()
    };
    let task = |action: &str, body: String| json!({ "action": action, "library": "adyen", "secret": KEY, "timestamp": 0, "body": body });
    for reference in ["order-1", "\u{fc}-\u{1f69a}", ""] {
        let signed = ask(python, &[task("sign", body(reference, ""))]);
        let signature = signed[0]["signature"].as_str().unwrap();
        let (genuine, altered) = (body(reference, signature), body("order-2", signature));
        let judged = ask(python, &[task("verify", genuine.clone()), task("verify", altered.clone())]);
        assert_eq!((&judged[0]["holds"], &judged[1]["holds"]), (&json!(true), &json!(false)), "{judged:?}");
        let by_semel = |body: &str| verify(Provider::Adyen, KEY, &[], body);
        assert_eq!(by_semel(&genuine), Ok("psp-1|AUTHORISATION|true".to_owned()), "{genuine}");
        assert_eq!(by_semel(&altered), Err("signature_mismatch"));
    }
}

/// `AfterShip` has no library that verifies, so its users compute the signature as its documentation shows it for Node.
#[test]
fn what_aftership_has_its_users_compute_semel_verifies() {
    let Some([node, _]) = runners() else { return };
    let secret = "aftership-s\u{e9}cret";
    let tasks = BODIES
        .map(|body| json!({ "action": "sign", "library": "aftership", "secret": secret, "body": body }));
    for (body, result) in BODIES.iter().zip(ask(node, &tasks)) {
        let signature = result["signature"].as_str().unwrap();
        let prefixed = format!("hmac-sha256={signature}");
        for header in [
            ("aftership-hmac-sha256", signature),
            ("as-signature-hmac-sha256", signature),
            ("am-webhook-signature", &*prefixed),
        ] {
            // By the second of its places: the bodies have an `id`, and no `event_id`.
            assert_eq!(verify(Provider::Aftership, secret, &[header], body), Ok("#2:evt_1".to_owned()));
            let altered = body.replace("evt_1", "evt_2");
            assert_eq!(verify(Provider::Aftership, secret, &[header], &altered), Err("signature_mismatch"));
        }
    }
}

//! The providers' own libraries sign and Semel verifies; Semel signs and they verify. Standard Webhooks' and Svix's for
//! Python and Node, and Stripe's for both.
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
        run("venv/bin/pip", &["install", "--quiet", "-r", "requirements.txt"], folder)
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

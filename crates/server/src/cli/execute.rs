//! `semel execute OP --key K --payload '…'`: the Execute API for shells and scripts.

use std::io::Read as _;

use bytes::Bytes;
use clap::Args;
use http::{Method, Request, Response, StatusCode, header};
use semel_api::{Content, Json};
use semel_runtime::OsEntropy;
use serde_json::value::RawValue;

use super::client::{self, Problem, ServerArgs};
use super::{exit, fail, runtime, say};

/// What `semel execute` takes.
#[derive(Args, Clone, Debug)]
pub(super) struct ExecuteArgs {
    /// The name of a configured operation, such as payment.charge
    operation: String,
    /// The idempotency key: the same on every retry of one attempt. Without it a random one is made, and shown
    #[arg(long, short, value_name = "KEY")]
    key: Option<String>,
    /// The payload, as JSON; - reads it from standard input
    #[arg(long, short, value_name = "JSON", default_value = "{}", allow_hyphen_values = true)]
    payload: String,
    /// Be answered at once; a worker of the server does it
    #[arg(long = "async")]
    respond_async: bool,
    /// Wait up to this many seconds for a result that is not there yet
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
    /// Print the whole answer, also when it is completed, and errors, to standard output as the JSON that came
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn execute(args: &ExecuteArgs) -> u8 {
    match run(args) {
        Ok(code) => code,
        Err(Problem { code, text }) => fail(code, text),
    }
}

fn run(args: &ExecuteArgs) -> Result<u8, Problem> {
    let payload = payload(&args.payload)?;
    let key = args.key.clone().unwrap_or_else(random_key);
    if args.key.is_none() {
        eprintln!("semel: the key is {key}; give it with --key to try the same again");
    }
    let body = serde_json::to_vec(&Body { operation: &args.operation, payload: &payload });
    let body = body.map_err(|error| error.to_string())?;
    let mut request = Request::builder()
        .method(Method::POST)
        .header(header::CONTENT_TYPE, "application/json")
        .header("idempotency-key", quoted(&key));
    if args.respond_async {
        request = request.header("prefer", "respond-async");
    }
    if let Some(wait) = args.wait {
        request = request.header("prefer", format!("wait={wait}"));
    }
    let runtime = runtime().map_err(|error| error.to_string())?;
    let sent = client::send(&args.server, request, "/v1/idempotency/execute", body.into());
    Ok(tell(args, &runtime.block_on(sent)?))
}

#[derive(serde::Serialize)]
struct Body<'a> {
    operation: &'a str,
    payload: &'a RawValue,
}

fn payload(given: &str) -> Result<Box<RawValue>, Problem> {
    let mut text = given.to_owned();
    if given == "-" {
        text.clear();
        let read = std::io::stdin().read_to_string(&mut text);
        read.map_err(|error| format!("cannot read standard input: {error}"))?;
    }
    serde_json::from_str(&text).map_err(|error| Problem::usage(format!("the payload is not JSON: {error}")))
}

/// A Structured Field string, which every key fits (RFC 9651, section 4.1.6).
fn quoted(key: &str) -> String {
    format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""))
}

fn random_key() -> String {
    use semel_core::ledger::Entropy as _;
    OsEntropy.token().reveal()
}

/// Prints an answer and says what it comes to. A result goes to standard output, everything else to standard error.
fn tell(args: &ExecuteArgs, answer: &Response<Bytes>) -> u8 {
    let text = String::from_utf8_lossy(answer.body());
    let said: Answer<'_> = serde_json::from_slice(answer.body()).unwrap_or_default();
    if args.json {
        say(&text);
    }
    let status = answer.status();
    if let Some(error) = said.error {
        if !args.json {
            eprintln!("semel: {} ({}): {}", error.code, status.as_u16(), error.message);
            for detail in &error.details {
                eprintln!("  {} {}", detail.field, detail.message);
                if let Some(said) = &detail.result {
                    eprintln!("  {}", readable(said));
                }
            }
        }
        return code_of(status, &error.code);
    }
    match (status, said.status.as_deref()) {
        (StatusCode::ACCEPTED, _) => {
            if !args.json {
                eprintln!("semel: it is being processed; ask again with the same key");
            }
            exit::PROCESSING
        }
        (status, Some("completed")) if status.is_success() => {
            if !args.json {
                say(said.result.map_or("null", RawValue::get));
            }
            exit::DONE
        }
        _ => fail(exit::FAILED, format!("an answer that is none of Semel's: {status}")),
    }
}

/// What a target said, for people: JSON as it came, another text as it is, without what a terminal would obey.
fn readable(said: &Json) -> String {
    let content = serde_json::from_str::<Content>(said.as_str()).ok();
    let text = content.and_then(|content| String::from_utf8(content.body_base64).ok());
    text.as_deref().unwrap_or(said.as_str()).replace(char::is_control, " ")
}

#[derive(Default, serde::Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    status: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<semel_api::error::ErrorBody>,
}

fn code_of(status: StatusCode, code: &str) -> u8 {
    match code {
        "IDEMPOTENCY_OUTCOME_UNKNOWN" => exit::UNKNOWN,
        // Under `resume` it may be tried again, which 503 says.
        "OUTCOME_UNKNOWN" if status == StatusCode::SERVICE_UNAVAILABLE => exit::TRY_AGAIN,
        "OUTCOME_UNKNOWN" => exit::UNKNOWN,
        "IDEMPOTENCY_CONCURRENT_REQUEST" => exit::PROCESSING,
        "INTERNAL" => exit::FAILED,
        _ if matches!(status.as_u16(), 429 | 503) => exit::TRY_AGAIN,
        _ => exit::REFUSED,
    }
}

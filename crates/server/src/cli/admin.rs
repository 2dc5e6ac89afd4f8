//! What commands for operators share: which admin listener and as whom, which records, what went wrong, and asking before
//! anything is changed.

use std::future::Future;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use http::{Method, Request, Response, Uri, header};
use semel_api::error::ErrorEnvelope;
use semel_api::{ErrorCode, Time};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::client::{self, ServerArgs};
use super::{exit, fail, runtime, say, table};

/// Which admin listener, and as whom.
#[derive(Args, Clone, Debug)]
pub(super) struct AdminArgs {
    /// The address of the server's admin listener
    #[arg(
        long = "admin-url",
        value_name = "URL",
        env = "SEMEL_ADMIN_URL",
        default_value = "http://127.0.0.1:8081"
    )]
    url: Uri,
    /// The operator's token. Better given by the environment than on a command line that others can see
    #[arg(long, value_name = "TOKEN", env = "SEMEL_ADMIN_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// PEM file with an authority to trust besides the system's, or with the server's own certificate
    #[arg(long, value_name = "FILE", env = "SEMEL_CA")]
    ca: Option<PathBuf>,
}

impl AdminArgs {
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Bytes>, Ended> {
        let answer = self.send(method, path, body).await?;
        if answer.status().is_success() { Ok(answer) } else { Err(refused(&answer)) }
    }

    /// As [`ask`](Self::ask), for whoever has something to say of a refusal.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Bytes>, Ended> {
        let server = ServerArgs { url: self.url.clone(), token: self.token.clone(), ca: self.ca.clone() };
        let request = Request::builder().method(method).header(header::CONTENT_TYPE, "application/json");
        Ok(client::send(&server, request, path, body).await?)
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<(T, Bytes), Ended> {
        let answer = self.ask(Method::POST, path, body.to_string().into()).await?;
        Ok((read(answer.body())?, answer.into_body()))
    }
}

/// Which records: the conditions that hold for all of them, dead letters or not. All that is given must hold.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct WhichArgs {
    /// Of this operation
    #[arg(long, value_name = "NAME")]
    pub(super) operation: Option<String>,
    /// With this key
    #[arg(long, value_name = "KEY")]
    pub(super) key: Option<String>,
    /// With this tag
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) tag: Option<String>,
    /// In this namespace: execute, http, webhook, topic or job
    #[arg(long, value_name = "NAME")]
    pub(super) namespace: Option<String>,
    /// Created (taken in) at or after, such as 2026-11-21T04:30:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) from: Option<Time>,
    /// Created (taken in) before
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) until: Option<Time>,
}

/// A path with a query of all the conditions of a filter, and of what is given besides. Of several names one must hold.
pub(super) fn path_with(path: &str, filter: &impl Serialize, more: &[(&str, Option<String>)]) -> String {
    let filter = json!(filter);
    let text = |value: &Value| match value {
        Value::Array(names) => Some(names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")),
        other => other.as_str().map(str::to_owned),
    };
    let conditions = filter.as_object().into_iter().flatten();
    let conditions = conditions.filter_map(|(name, value)| Some((name.as_str(), text(value)?)));
    let more = more.iter().filter_map(|(name, value)| Some((*name, value.clone()?)));
    let mut query = form_urlencoded::Serializer::new(String::new());
    format!("{path}?{}", query.extend_pairs(conditions.chain(more)).finish())
}

/// The path of one of a collection, or of a command on it.
pub(super) fn path_of(collection: &str, id: &str, command: Option<&str>) -> String {
    let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
    let command = command.map_or_else(String::new, |command| format!("/{command}"));
    format!("{collection}/{id}{command}")
}

/// Why something is changed, which has to be said.
pub(super) fn reason(given: Option<&str>) -> Result<&str, Ended> {
    let missing = || Ended(exit::USAGE, "--reason is missing: the audit log wants to know why".to_owned());
    given.filter(|reason| !reason.trim().is_empty()).ok_or_else(missing)
}

/// Prints what one record has, each on a line of its own, without what it has not.
pub(super) fn tell(rows: Vec<(&str, Option<String>)>) {
    let rows = rows.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value?]));
    say(table(&[], rows));
}

pub(super) fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Ended> {
    serde_json::from_slice(body)
        .map_err(|_| Ended(exit::FAILED, "an answer that is none of Semel's".to_owned()))
}

pub(super) fn refused(answer: &Response<Bytes>) -> Ended {
    let status = answer.status().as_u16();
    let Ok(ErrorEnvelope { error }) = serde_json::from_slice(answer.body()) else {
        return Ended(exit::FAILED, format!("an answer that is none of Semel's: {status}"));
    };
    let mut details = String::new();
    for detail in &error.details {
        details.extend(["\n  ", &detail.field, " ", &detail.message]);
    }
    let code = match status {
        429 | 503 => exit::TRY_AGAIN,
        500.. => exit::FAILED,
        _ => exit::REFUSED,
    };
    Ended(code, format!("{} ({status}): {}{details}", error.code, error.message))
}

/// Whether it is Semel that refuses, and by this code.
pub(super) fn is_refused_with(answer: &Response<Bytes>, code: ErrorCode) -> bool {
    let envelope = serde_json::from_slice(answer.body());
    envelope.is_ok_and(|ErrorEnvelope { error }| error.code == code.as_str())
}

pub(super) fn time(text: &str) -> Result<Time, String> {
    Time::parse(text).ok_or_else(|| "expected a time such as 2026-11-21T04:30:00Z".to_owned())
}

/// Why a command ends: what is said, and its exit code.
pub(super) struct Ended(pub(super) u8, pub(super) String);

impl From<String> for Ended {
    fn from(problem: String) -> Self {
        Self(exit::FAILED, problem)
    }
}

impl From<client::Problem> for Ended {
    fn from(problem: client::Problem) -> Self {
        Self(problem.code, problem.text)
    }
}

/// Runs what speaks to the server, and gives its exit code.
pub(super) fn ended(work: impl Future<Output = Result<u8, Ended>>) -> u8 {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(exit::FAILED, error),
    };
    match runtime.block_on(work) {
        Ok(code) => code,
        Err(Ended(code, problem)) => fail(code, problem),
    }
}

pub(super) fn confirmed(question: &str) -> Result<bool, Ended> {
    if !std::io::stdin().is_terminal() {
        return Err(Ended(exit::USAGE, format!("{question} Say so with --yes")));
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    let read = std::io::stderr().flush().and_then(|()| std::io::stdin().lock().read_line(&mut answer));
    read.map_err(|error| error.to_string())?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// The JSON that came, as it came.
pub(super) fn print(body: &Bytes) {
    say(String::from_utf8_lossy(body));
}

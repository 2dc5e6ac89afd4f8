//! What commands for operators share: which admin listener and as whom, what went wrong, and asking before anything is changed.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use http::{Method, Request, Response, Uri, header};
use semel_api::Time;
use semel_api::error::ErrorEnvelope;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::client::{self, ServerArgs};
use super::{exit, fail, runtime, say};

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
        let server = ServerArgs { url: self.url.clone(), token: self.token.clone(), ca: self.ca.clone() };
        let request = Request::builder().method(method).header(header::CONTENT_TYPE, "application/json");
        let answer = client::send(&server, request, path, body).await?;
        if answer.status().is_success() { Ok(answer) } else { Err(refused(&answer)) }
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

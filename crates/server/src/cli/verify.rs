//! `semel verify SOURCE < request`: why the signature of a delivery does not hold.

use std::io::Read as _;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use semel_api::Time;
use semel_api::webhooks::{HeaderField, VerifyReply, VerifyRequest};
use serde_json::json;

use super::admin::{AdminArgs, Ended, time};
use super::{exit, fail, runtime, say};

/// What `semel verify` takes.
#[derive(Args, Clone, Debug)]
pub(super) struct VerifyArgs {
    /// The source, as it is configured
    source: String,
    /// A header field of the delivery, such as 'Stripe-Signature: t=…'; several times for several. With it, the body alone
    /// is read; without it, a whole request: its header fields, an empty line, and the body
    #[arg(long = "header", short = 'H', value_name = "FIELD", value_parser = field)]
    headers: Vec<HeaderField>,
    /// The file to read instead of standard input
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// When it arrived, such as 2026-11-21T04:30:00Z; without it, now
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Time>,
    /// Where it came from, for a source that lists addresses
    #[arg(long, value_name = "ADDRESS")]
    address: Option<IpAddr>,
    /// Print the JSON that came
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

fn field(text: &str) -> Result<HeaderField, String> {
    let (name, value) = text.split_once(':').ok_or("expected a header field such as 'Webhook-Id: msg_1'")?;
    Ok(HeaderField { name: name.trim().to_owned(), value: value.trim().to_owned() })
}

pub(super) fn verify(args: &VerifyArgs) -> u8 {
    match run(args) {
        Ok(code) => code,
        Err(Ended(code, problem)) => fail(code, problem),
    }
}

fn run(args: &VerifyArgs) -> Result<u8, Ended> {
    let mut bytes = Vec::new();
    let read = match &args.body {
        Some(file) => std::fs::File::open(file).and_then(|mut file| file.read_to_end(&mut bytes)),
        None => std::io::stdin().read_to_end(&mut bytes),
    };
    read.map_err(|error| format!("cannot read the delivery: {error}"))?;
    let (headers, body) = if args.headers.is_empty() {
        request(&bytes).map_err(|problem| Ended(exit::USAGE, problem))?
    } else {
        (args.headers.clone(), bytes)
    };
    let wanted = VerifyRequest { headers, body_base64: body, at: args.at, address: args.address };
    let source: String = form_urlencoded::byte_serialize(args.source.as_bytes()).collect();
    let path = format!("/v1/webhooks/{source}/verify");
    let runtime = runtime().map_err(|error| error.to_string())?;
    let (reply, text) = runtime.block_on(args.admin.post::<VerifyReply>(&path, &json!(wanted)))?;
    if args.json {
        say(String::from_utf8_lossy(&text));
    } else {
        tell(&reply);
    }
    Ok(if reply.verified { exit::DONE } else { exit::REFUSED })
}

/// A whole request as it came over the wire: a request line or none, header fields, an empty line, the body. The lines of
/// its head may end as a file's do; of the body not a byte is touched.
fn request(bytes: &[u8]) -> Result<(Vec<HeaderField>, Vec<u8>), String> {
    let mut headers = Vec::new();
    let mut rest = bytes;
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let Some(end) = end else {
            return Err("no empty line ends the header fields; give them with --header to read a body alone"
                .to_owned());
        };
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        rest = &rest[end + 1..];
        if line.is_empty() {
            return Ok((headers, rest.to_vec()));
        }
        let line = std::str::from_utf8(line).map_err(|_| "a header field is no text".to_owned())?;
        let is_request_line = headers.is_empty() && line.split(' ').count() == 3 && line.contains(" HTTP/");
        if !is_request_line {
            headers.push(field(line)?);
        }
    }
}

fn tell(reply: &VerifyReply) {
    let verdict = if reply.verified { "verified" } else { "not verified" };
    say(format_args!("{verdict}: {} ({})", reply.source, reply.provider));
    let mut lines: Vec<(&str, String)> = Vec::new();
    lines.extend(reply.message.clone().map(|message| ("reason", message)));
    lines.extend(reply.findings.iter().map(|finding| ("found", finding.clone())));
    lines.extend(reply.template.clone().map(|template| ("signed", template)));
    lines.extend(reply.skew_ms.map(|skew| ("time stamp", format!("{skew} ms from its arrival"))));
    lines.push(("body", format!("{} bytes", reply.body_bytes)));
    for secret in &reply.secrets {
        let state = match (secret.used, secret.holds) {
            (true, _) => "verifies it",
            (false, true) => "holds",
            (false, false) => "has expired",
        };
        lines.push(("secret", format!("{} {state}", secret.id)));
    }
    lines.extend(reply.events.iter().map(|event| ("event", event.clone())));
    lines.extend(reply.rule.clone().map(|rule| ("rule", rule)));
    let rows = lines.into_iter().map(|(name, value)| [name.to_owned(), value]);
    say(super::table(&[], rows));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_came_and_its_body_is_not_touched() {
        let check = |text: &str, names: &[&str], body: &str| {
            let (headers, found) = request(text.as_bytes()).unwrap();
            let found_names: Vec<&str> = headers.iter().map(|field| &*field.name).collect();
            assert_eq!((&found_names[..], &found[..]), (names, body.as_bytes()), "{text:?}");
        };
        check("POST /hooks HTTP/1.1\r\nHost: a\r\nX-Id: b:c\r\n\r\n{}\r\n", &["Host", "X-Id"], "{}\r\n");
        check("X-Id: b\n\n\n{}", &["X-Id"], "\n{}");
        check("\nbody", &[], "body");
        for wrong in ["{}", "X-Id: b\n{}", "POST /hooks\n\n"] {
            assert!(request(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }
}

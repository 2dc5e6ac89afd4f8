//! Bodies: bounded, in time, JSON.

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use semel_api::{ApiError, Detail, ErrorCode};
use tokio_util::sync::CancellationToken;

use crate::limits;

/// Reads a JSON body, whole; or until the server stops, which waits for nothing that has not begun.
pub(crate) async fn json<B>(
    headers: &HeaderMap,
    body: B,
    bytes_max: usize,
    stopping: &CancellationToken,
) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    check_type(headers)?;
    raw(headers, body, bytes_max, stopping).await
}

/// As [`json`], whatever the body is: its bytes as they came, content codings included.
pub(crate) async fn raw<B>(
    headers: &HeaderMap,
    body: B,
    bytes_max: usize,
    stopping: &CancellationToken,
) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    tokio::select! {
        // What is already there is read first: a request that has come whole is served.
        biased;
        whole = read(headers, body, bytes_max) => whole,
        () = stopping.cancelled() => Err(ApiError::new(ErrorCode::Overloaded)
            .with_message("The server is stopping, and the request had not arrived whole")
            .with_retry_after(limits::RETRY_AFTER_OVERLOAD)),
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let refuse = |field, message| {
        Err(ApiError::new(ErrorCode::UnsupportedMediaType).with_detail(Detail::new(
            field,
            "media_type",
            message,
        )))
    };
    let Some(given) = headers.get(header::CONTENT_TYPE) else {
        return refuse("Content-Type", "is missing; send application/json");
    };
    let given = given.to_str().unwrap_or("");
    let (essence, parameters) = given.split_once(';').unwrap_or((given, ""));
    if !essence.trim().eq_ignore_ascii_case("application/json") {
        return refuse("Content-Type", "must be application/json");
    }
    let charset = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    if charset.is_some_and(|charset| !charset.eq_ignore_ascii_case("utf-8")) {
        return refuse("Content-Type", "must be UTF-8, as JSON is");
    }
    match headers.get(header::CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            refuse("Content-Encoding", "must not be compressed")
        }
        _ => Ok(()),
    }
}

async fn read<B>(headers: &HeaderMap, mut body: B, bytes_max: usize) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let too_large = || {
        let message = format!("must have at most {bytes_max} bytes");
        ApiError::new(ErrorCode::PayloadTooLarge).with_detail(Detail::new("body", "too_large", message))
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    // Refused before a byte of it is read; what comes in chunks, or lies, is cut off below.
    if announced.is_some_and(|announced: usize| announced > bytes_max) {
        return Err(too_large());
    }
    let whole = async {
        // A copy, since a short body is a slice of the connection's read buffer: a record that kept it would keep all of
        // that buffer in memory with it, and the connection would need a new one for its next request.
        let mut whole = Vec::with_capacity(announced.unwrap_or(0).min(limits::BODY_BYTES_AT_ONCE));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Detail::new("body", "incomplete", "ended before it was whole"))?;
            let Ok(data) = frame.into_data() else { continue };
            if data.len() > bytes_max - whole.len() {
                return Err(too_large());
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.into())
    };
    tokio::time::timeout(limits::BODY_READ_WITHIN, whole).await.unwrap_or_else(|_| {
        let seconds = limits::BODY_READ_WITHIN.as_secs();
        Err(Detail::new("body", "slow", format!("must arrive within {seconds} seconds")).into())
    })
}

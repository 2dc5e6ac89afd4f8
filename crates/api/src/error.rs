//! The error catalogue, and the three ways in which an error is written.
//!
//! A code is stable for ever and has one page in `docs/errors/`. Nothing of the inside of the server is in an error:
//! what is not in the catalogue is [`ErrorCode::Internal`].

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::value::Json;

macro_rules! catalogue {
    ($($(#[$doc:meta])* $name:ident $code:literal $status:literal $message:literal $advice:literal;)*) => {
        /// What went wrong, for programs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $code)] $name,)*
        }

        impl ErrorCode {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The code, as programs compare it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The status it goes with, where it is not given another one ([`ApiError::with_status`]).
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// What it means, for people.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$name => $message,)* }
            }

            /// What the client does.
            pub const fn client_does(self) -> &'static str {
                match self { $(Self::$name => $advice,)* }
            }
        }
    };
}

catalogue! {
    /// The request has no idempotency key, and needs one.
    IdempotencyKeyRequired "IDEMPOTENCY_KEY_REQUIRED" 400
        "This request needs an Idempotency-Key header" "add a key";
    /// The key is malformed, too long or given twice.
    IdempotencyKeyInvalid "IDEMPOTENCY_KEY_INVALID" 400
        "The idempotency key is not valid" "fix the key";
    /// Something else about the request is not valid.
    ValidationFailed "VALIDATION_FAILED" 400
        "The request is not valid" "fix the named fields";
    /// Somebody holds the claim.
    IdempotencyConcurrentRequest "IDEMPOTENCY_CONCURRENT_REQUEST" 409
        "A request with this idempotency key is being processed" "retry, same key, after Retry-After";
    /// An earlier attempt may have had an effect.
    IdempotencyOutcomeUnknown "IDEMPOTENCY_OUTCOME_UNKNOWN" 409
        "An earlier request with this idempotency key may have been executed, and its outcome is not known"
        "do not retry blindly; ask, or wait for resolution";
    /// The token is wrong, stale or spent.
    IdempotencyFenced "IDEMPOTENCY_FENCED" 409
        "The claim is lost: another attempt has taken its place, or it was settled" "stop: the claim is lost";
    /// The key stands for something else.
    IdempotencyParameterMismatch "IDEMPOTENCY_PARAMETER_MISMATCH" 422
        "This idempotency key was used with other parameters" "new key for new parameters";
    /// It was done, and what it gave is not kept.
    IdempotencyResultGone "IDEMPOTENCY_RESULT_GONE" 410
        "The operation was executed; its result is no longer kept" "it was done; the result is no longer kept";
    /// The store does not answer, so nothing ran.
    IdempotencyStorageUnavailable "IDEMPOTENCY_STORAGE_UNAVAILABLE" 503
        "The idempotency store does not answer; nothing was executed" "retry, same key, after Retry-After";
    /// Its retries are spent.
    OperationDead "OPERATION_DEAD" 409
        "The operation failed for good" "retries were spent; an operator decides";
    /// An operator put it aside.
    OperationDiscarded "OPERATION_DISCARDED" 410
        "The operation was discarded by an operator" "an operator discarded it";
    /// A run of this job type is active.
    JobAlreadyRunning "JOB_ALREADY_RUNNING" 409
        "Another instance is already running" "skip this run";
    /// No operation of that name is configured.
    UnknownOperation "UNKNOWN_OPERATION" 404
        "There is no operation of this name" "use the name of a configured operation";
    /// The target refused it for good.
    OperationRejected "OPERATION_REJECTED" 422
        "The target rejected the operation" "fix the request, new key";
    /// The target could not be reached, so nothing ran there.
    TargetUnavailable "TARGET_UNAVAILABLE" 503
        "The target of the operation is not available; nothing was executed" "retry, same key";
    /// The target's answer was lost or proves nothing.
    OutcomeUnknown "OUTCOME_UNKNOWN" 502
        "The operation may have been executed; the target gave no answer that says so"
        "do not retry blindly; ask, or wait for resolution";
    /// There is no token, or none that is known.
    Unauthenticated "UNAUTHENTICATED" 401
        "This request needs a valid bearer token" "send a token";
    /// The token is not for this.
    Forbidden "FORBIDDEN" 403
        "This token may not do this" "use a token that may";
    /// There is no such thing.
    NotFound "NOT_FOUND" 404
        "There is nothing here" "check the address";
    /// There is such a thing, and it does not take this method.
    MethodNotAllowed "METHOD_NOT_ALLOWED" 405
        "This method is not possible here" "use a method that the Allow header names";
    /// The record is in no state for this command.
    IllegalTransition "ILLEGAL_TRANSITION" 409
        "The record is not in a state for this command"
        "the record is not in a state for this command; load it again";
    /// The record has changed since it was looked at.
    VersionConflict "VERSION_CONFLICT" 409
        "The record has changed since it was looked at" "load the record again, and judge anew";
    /// A webhook's signature does not hold.
    SignatureInvalid "SIGNATURE_INVALID" 401
        "The signature is not valid" "sign with the shared secret, within the tolerance";
    /// The body is too large.
    PayloadTooLarge "PAYLOAD_TOO_LARGE" 413
        "The request is too large" "send less";
    /// The headers are too large.
    HeadersTooLarge "HEADERS_TOO_LARGE" 431
        "The request's headers are too large" "send fewer or shorter headers";
    /// The body's media type is not taken here.
    UnsupportedMediaType "UNSUPPORTED_MEDIA_TYPE" 415
        "This media type is not supported here" "send application/json";
    /// More requests than this tenant may send.
    RateLimited "RATE_LIMITED" 429
        "Too many requests" "retry after Retry-After";
    /// More requests in progress than the server takes.
    Overloaded "OVERLOADED" 503
        "The server has too many requests in progress" "retry after Retry-After";
    /// Something unexpected.
    Internal "INTERNAL" 500
        "Something went wrong" "retry, same key, with backoff";
}

/// Where the project keeps a page for each code: see [`ErrorCode::page`].
pub const PAGES: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/errors/{code}.md");

impl ErrorCode {
    /// The address of its page: where `base` has a place for the `{code}`, or else behind it.
    pub fn page(self, base: &str) -> String {
        if base.contains("{code}") {
            base.replace("{code}", self.slug())
        } else {
            format!("{base}{}", self.slug())
        }
    }

    /// The name of its page: `docs/errors/{slug}.md`, and the last part of its `type` in problem details.
    pub const fn slug(self) -> &'static str {
        self.as_str()
    }

    /// The code of that name.
    pub fn parse(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.as_str() == code)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that is wrong with a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Detail {
    /// The path of the field, the name of the header, `body`, or `target`.
    pub field: String,
    /// What kind of wrong, such as `missing`, `type` or `unknown`.
    pub code: String,
    /// What is wrong, for people.
    pub message: String,
    /// With `OPERATION_REJECTED`, what the target said: its JSON, or `{"content_type","body_base64"}`. Absent where it
    /// said nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub result: Option<Json>,
}

impl Detail {
    /// A detail.
    pub fn new(field: impl Into<String>, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), code: code.into(), message: message.into(), result: None }
    }

    /// That the target refused, with what it said.
    pub fn rejected(status: u16, result: Option<Json>) -> Self {
        Self { result, ..Self::new("target", "rejected", format!("answered {status}")) }
    }
}

/// An error as a client is told it, before it is written in one of its [`Form`]s.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    code: ErrorCode,
    status: u16,
    message: Cow<'static, str>,
    details: Vec<Detail>,
    retry_after: Option<Duration>,
}

impl ApiError {
    /// An error of this code, with its status and message.
    pub const fn new(code: ErrorCode) -> Self {
        Self {
            code,
            status: code.status(),
            message: Cow::Borrowed(code.message()),
            details: Vec::new(),
            retry_after: None,
        }
    }

    /// With another status: `OPERATION_REJECTED` has the target's, `OUTCOME_UNKNOWN` 502 or 504, and profiles may
    /// have their own.
    #[must_use]
    pub const fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// With a message that says more. Nothing of the inside belongs in it.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.message = message.into();
        self
    }

    /// With one more thing that is wrong.
    #[must_use]
    pub fn with_detail(mut self, detail: Detail) -> Self {
        self.details.push(detail);
        self
    }

    /// With each field named as it stands in the body: below `parent`.
    #[must_use]
    pub fn below(mut self, parent: &str) -> Self {
        for detail in &mut self.details {
            detail.field = format!("{parent}.{}", detail.field);
        }
        self
    }

    /// With the time after which a retry makes sense.
    #[must_use]
    pub const fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// What went wrong.
    pub const fn code(&self) -> ErrorCode {
        self.code
    }

    /// The status of the response.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// What it means, for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What is wrong, one by one.
    pub fn details(&self) -> &[Detail] {
        &self.details
    }

    /// The value of the `Retry-After` header: whole seconds, rounded up, at least one.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        let after = self.retry_after?;
        Some((after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1))
    }
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> Self {
        Self::new(code)
    }
}

/// A validation failure in this field.
impl From<Detail> for ApiError {
    fn from(detail: Detail) -> Self {
        Self::new(ErrorCode::ValidationFailed).with_detail(detail)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        for Detail { field, message, .. } in &self.details {
            write!(f, "; {field} {message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ApiError {}

/// How an error is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Form {
    /// `{"error":{…}}`: the default of `/v1`.
    #[default]
    Envelope,
    /// `{"code","message","details":{…}}`.
    Flat,
    /// `application/problem+json` (RFC 9457).
    Problem,
}

impl Form {
    /// The form that an `Accept` header asks for; `default` unless it names `application/problem+json` with a weight
    /// above that of `application/json`. The flat form has no media type of its own, so only a profile chooses it.
    pub fn of_accept(accept: Option<&str>, default: Self) -> Self {
        let Some(accept) = accept else { return default };
        let weight = |name: &str| {
            accept.split(',').find_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let named = parts.next().is_some_and(|media| media.eq_ignore_ascii_case(name));
                let weight = parts
                    .filter_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
                    .find_map(|weight| weight.trim().parse::<f32>().ok())
                    .unwrap_or(1.0);
                named.then_some(weight)
            })
        };
        let (problem, json) = (weight("application/problem+json"), weight("application/json"));
        match (problem, json) {
            (Some(problem), json) if problem > 0.0 && json.is_none_or(|json| problem >= json) => {
                Self::Problem
            }
            (_, Some(json)) if json > 0.0 && default == Self::Problem => Self::Envelope,
            _ => default,
        }
    }
}

/// An error, written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The value of `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

/// `{"error":{…}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorEnvelope {
    /// The error.
    pub error: ErrorBody,
}

/// The error in its envelope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// What went wrong, for programs: a code of the catalogue.
    pub code: String,
    /// What went wrong, for people.
    pub message: String,
    /// What is wrong with the request, one by one; what the target said, where it was the one who refused.
    #[serde(default)]
    pub details: Vec<Detail>,
    /// Seconds after which a retry makes sense; the same as the `Retry-After` header.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after: Option<u64>,
    /// The request, as in the logs and the `X-Request-Id` header.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request_id: Option<String>,
}

/// The flat form. (Its names are those that its clients read.)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FlatError {
    /// What went wrong, for programs: a code of the catalogue.
    pub code: String,
    /// What went wrong, for people.
    pub message: String,
    /// More about it.
    pub details: FlatDetails,
}

/// More about an error, in the flat form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct FlatDetails {
    /// Seconds after which a retry makes sense.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after: Option<u64>,
    /// The request, as in the logs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request_id: Option<String>,
    /// What is wrong with the request, one by one; what the target said, where it was the one who refused.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub errors: Vec<Detail>,
}

/// Problem details (RFC 9457), with the code as an extension member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// The page of the code.
    #[serde(rename = "type")]
    pub type_uri: String,
    /// What the code means: the same for every error of it.
    pub title: String,
    /// The status of the response.
    pub status: u16,
    /// What went wrong this time, for people.
    pub detail: String,
    /// What went wrong, for programs: a code of the catalogue.
    pub code: String,
    /// What is wrong with the request, one by one; what the target said, where it was the one who refused.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub errors: Vec<Detail>,
    /// Seconds after which a retry makes sense.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after: Option<u64>,
    /// The request, as in the logs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request_id: Option<String>,
}

impl ApiError {
    /// Writes it. `type_base` is the base of [`ErrorCode::page`], such as `https://errors.example/`: the code's
    /// slug is added to it.
    pub fn render(&self, form: Form, type_base: &str, request_id: Option<&str>) -> Rendered {
        let body = match form {
            Form::Envelope => serde_json::to_vec(&self.envelope(request_id)),
            Form::Flat => serde_json::to_vec(&self.flat(request_id)),
            Form::Problem => serde_json::to_vec(&self.problem(type_base, request_id)),
        };
        let content_type = match form {
            Form::Envelope | Form::Flat => "application/json",
            Form::Problem => "application/problem+json",
        };
        // Texts and numbers can always be written; the type of `to_vec` does not know that.
        let body = body.unwrap_or_else(|_| br#"{"error":{"code":"INTERNAL"}}"#.to_vec());
        Rendered { content_type, body }
    }

    fn envelope(&self, request_id: Option<&str>) -> ErrorEnvelope {
        ErrorEnvelope {
            error: ErrorBody {
                code: self.code.as_str().to_owned(),
                message: self.message.clone().into_owned(),
                details: self.details.clone(),
                retry_after: self.retry_after_seconds(),
                request_id: request_id.map(str::to_owned),
            },
        }
    }

    fn flat(&self, request_id: Option<&str>) -> FlatError {
        FlatError {
            code: self.code.as_str().to_owned(),
            message: self.message.clone().into_owned(),
            details: FlatDetails {
                retry_after: self.retry_after_seconds(),
                request_id: request_id.map(str::to_owned),
                errors: self.details.clone(),
            },
        }
    }

    fn problem(&self, type_base: &str, request_id: Option<&str>) -> Problem {
        Problem {
            type_uri: self.code.page(type_base),
            title: self.code.message().to_owned(),
            status: self.status,
            detail: self.message.clone().into_owned(),
            code: self.code.as_str().to_owned(),
            errors: self.details.clone(),
            retry_after: self.retry_after_seconds(),
            request_id: request_id.map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(error: &ApiError, form: Form) -> String {
        String::from_utf8(error.render(form, "https://errors.example/", Some("r-1")).body).unwrap()
    }

    #[test]
    fn the_page_of_a_code_is_where_the_base_has_a_place_for_it_or_behind_it() {
        let page = |base| ErrorCode::Internal.page(base);
        assert_eq!(page("https://errors.example/"), "https://errors.example/INTERNAL");
        assert_eq!(page("https://errors.example/{code}.html"), "https://errors.example/INTERNAL.html");
        assert!(page(PAGES).starts_with("https://") && page(PAGES).ends_with("/docs/errors/INTERNAL.md"));
    }

    #[test]
    fn the_three_forms_of_one_error() {
        let error = ApiError::new(ErrorCode::IdempotencyConcurrentRequest)
            .with_retry_after(Duration::from_millis(1_200));
        assert_eq!(
            text(&error, Form::Envelope),
            r#"{"error":{"code":"IDEMPOTENCY_CONCURRENT_REQUEST","message":"A request with this idempotency key is being processed","details":[],"retry_after":2,"request_id":"r-1"}}"#
        );
        assert_eq!(
            text(&error, Form::Flat),
            r#"{"code":"IDEMPOTENCY_CONCURRENT_REQUEST","message":"A request with this idempotency key is being processed","details":{"retryAfter":2,"requestId":"r-1"}}"#
        );
        assert_eq!(
            text(&error, Form::Problem),
            r#"{"type":"https://errors.example/IDEMPOTENCY_CONCURRENT_REQUEST","title":"A request with this idempotency key is being processed","status":409,"detail":"A request with this idempotency key is being processed","code":"IDEMPOTENCY_CONCURRENT_REQUEST","retry_after":2,"request_id":"r-1"}"#
        );
        assert_eq!(error.render(Form::Problem, "", None).content_type, "application/problem+json");
    }

    #[test]
    fn what_the_target_said_is_passed_on_as_it_came() {
        let said = Json::from_text(r#"{"z":1.10,"a":9007199254740993}"#).unwrap();
        let detail = Detail::rejected(402, Some(said));
        let error = ApiError::new(ErrorCode::OperationRejected).with_status(402).with_detail(detail);
        assert_eq!(error.status(), 402);
        let entry = r#"[{"field":"target","code":"rejected","message":"answered 402","result":{"z":1.10,"a":9007199254740993}}]"#;
        for (form, member) in [
            (Form::Envelope, format!(r#""details":{entry}"#)),
            (Form::Flat, format!(r#""details":{{"requestId":"r-1","errors":{entry}}}"#)),
            (Form::Problem, format!(r#""errors":{entry}"#)),
        ] {
            assert!(text(&error, form).contains(&member), "{form:?}: {}", text(&error, form));
        }
    }

    #[test]
    fn what_the_target_said_is_read_back_as_it_was_written_in_every_form() {
        let said = Json::from_text(r#"{"n":9007199254740993}"#).unwrap();
        for result in [Some(said), None] {
            let detail = Detail::rejected(422, result);
            let error = ApiError::new(ErrorCode::OperationRejected).with_detail(detail.clone());
            let read: ErrorEnvelope = serde_json::from_str(&text(&error, Form::Envelope)).unwrap();
            assert_eq!(read.error.details[..], *std::slice::from_ref(&detail));
            let read: FlatError = serde_json::from_str(&text(&error, Form::Flat)).unwrap();
            assert_eq!(read.details.errors[..], *std::slice::from_ref(&detail));
            let read: Problem = serde_json::from_str(&text(&error, Form::Problem)).unwrap();
            assert_eq!(read.errors, [detail]);
        }
    }

    #[test]
    fn a_pause_is_rounded_up_and_never_zero() {
        let after = |millis| {
            ApiError::new(ErrorCode::Overloaded)
                .with_retry_after(Duration::from_millis(millis))
                .retry_after_seconds()
        };
        assert_eq!((after(0), after(1), after(1_000), after(1_001)), (Some(1), Some(1), Some(1), Some(2)));
    }

    #[test]
    fn accept_chooses_problem_details_only_where_it_prefers_them() {
        let of = |accept: &str| Form::of_accept(Some(accept), Form::Envelope);
        assert_eq!(of("application/problem+json"), Form::Problem);
        assert_eq!(of("application/json, Application/Problem+JSON"), Form::Problem);
        assert_eq!(of("application/json, application/problem+json;q=0.5"), Form::Envelope);
        assert_eq!(of("application/problem+json;q=0"), Form::Envelope);
        assert_eq!(of("*/*"), Form::Envelope);
        assert_eq!(Form::of_accept(Some("application/json"), Form::Problem), Form::Envelope);
        assert_eq!(Form::of_accept(Some("application/json"), Form::Flat), Form::Flat);
        assert_eq!(Form::of_accept(None, Form::Flat), Form::Flat);
    }

    #[test]
    fn codes_are_found_by_name_and_none_is_there_twice() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.as_str()), Some(*code));
            assert_eq!(serde_json::to_string(code).unwrap(), format!("\"{code}\""));
            assert!((400..600).contains(&code.status()), "{code}");
        }
        assert_eq!(ErrorCode::parse("NOPE"), None);
    }
}

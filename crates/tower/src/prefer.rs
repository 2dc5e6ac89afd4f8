//! The `Prefer` header (RFC 7240): `wait=N` and `respond-async`. What is not understood is ignored, as it says there.

use std::fmt::Write as _;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

const HEADER: HeaderName = HeaderName::from_static("prefer");
/// What says which preferences were honoured.
pub const APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// What the client prefers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefer {
    /// To be answered at once, with 202.
    pub respond_async: bool,
    /// To wait this long for a result, at most what the server allows.
    pub wait: Option<Duration>,
}

impl Prefer {
    /// Reads the headers. Of a preference that is given twice the first counts (RFC 7240, section 2).
    pub fn of_headers(headers: &HeaderMap, wait_max: Duration) -> Self {
        let mut prefer = Self::default();
        let values = headers.get_all(HEADER).iter().filter_map(|value| value.to_str().ok());
        for preference in values.flat_map(|value| value.split(',')) {
            // Parameters of a preference follow a semicolon; neither of these has any.
            let preference = preference.split(';').next().unwrap_or("");
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            match name.trim() {
                name if name.eq_ignore_ascii_case("respond-async") => prefer.respond_async = true,
                name if name.eq_ignore_ascii_case("wait") && prefer.wait.is_none() => {
                    let digits = value.trim().trim_matches('"');
                    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
                    // A number that no integer holds is a number still, and is capped as any other.
                    let seconds = is_number.then(|| digits.parse().unwrap_or(u64::MAX));
                    prefer.wait = seconds.map(|seconds| Duration::from_secs(seconds).min(wait_max));
                }
                _ => {}
            }
        }
        prefer
    }
}

/// The value of `Preference-Applied`.
pub fn applied(respond_async: bool, waited: Option<Duration>) -> Option<HeaderValue> {
    let mut text = String::new();
    if respond_async {
        text.push_str("respond-async");
    }
    if let Some(waited) = waited {
        let separator = if text.is_empty() { "" } else { ", " };
        write!(text, "{separator}wait={}", waited.as_secs()).ok()?;
    }
    (!text.is_empty()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&'static str]) -> Prefer {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_static(value));
        }
        Prefer::of_headers(&headers, Duration::from_secs(30))
    }

    #[test]
    fn both_preferences_are_read_in_every_spelling_of_the_rfc() {
        let both = Prefer { respond_async: true, wait: Some(Duration::from_secs(10)) };
        assert_eq!(read(&["respond-async, wait=10"]), both);
        assert_eq!(read(&["respond-async", "wait=10"]), both);
        assert_eq!(read(&["Respond-Async; x=y , WAIT = \"10\""]), both);
        assert_eq!(read(&["wait=10, wait=20", "respond-async"]), both);
        for far in ["wait=99999", "wait=99999999999999999999"] {
            assert_eq!(read(&[far]).wait, Some(Duration::from_secs(30)), "capped");
        }
    }

    #[test]
    fn what_is_not_understood_is_ignored() {
        for value in ["wait", "wait=", "wait=-1", "wait=1.5", "handling=lenient", "", ",;="] {
            assert_eq!(read(&[value]), Prefer::default(), "{value}");
        }
    }

    #[test]
    fn what_was_honoured_is_said() {
        assert_eq!(applied(false, None), None);
        assert_eq!(applied(true, Some(Duration::from_secs(3))).unwrap(), "respond-async, wait=3");
        assert_eq!(applied(false, Some(Duration::from_secs(3))).unwrap(), "wait=3");
    }
}

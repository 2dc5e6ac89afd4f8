//! Sending on: when to try again, and what a target's answer means. The sending itself is the server's.

use std::time::Duration;

use semel_core::Timestamp;
use semel_core::error::Invalid;
use semel_core::policy::Schedule;

use crate::limits;

/// When a delivery is tried again unless its target says otherwise: 12 tries or 3 days, whichever is spent first; the first
/// pause up to 5 s, none above 6 h, with full jitter.
///
/// # Errors
/// None: the numbers are within core's limits.
pub fn default_schedule() -> Result<Schedule, Invalid> {
    let first = Duration::from_secs(5);
    Schedule::try_new(
        limits::TRIES_DEFAULT,
        first,
        limits::PAUSE_MAX_DEFAULT,
        Some(limits::TRYING_FOR_DEFAULT),
    )
}

/// What a target's answer means for the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Done,
    /// It will never be taken: no try helps, and it goes to the dead letters.
    Bury,
    /// It is tried again, by the schedule, and not before this pause where the target asks for one.
    Retry {
        /// What `Retry-After` says, at most [`limits::RETRY_AFTER_MAX`].
        not_before: Option<Duration>,
    },
}

/// Which answers are final: 2xx is done, 410 and the statuses that a target lists are permanent, all else is tried again,
/// redirects included (a signed delivery is not sent where somebody else points).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statuses {
    permanent: Vec<u16>,
}

impl Statuses {
    /// Besides 410, these are permanent.
    pub fn permanent(statuses: &[u16]) -> Self {
        Self { permanent: statuses.to_vec() }
    }

    /// What the answer means, with its `Retry-After` if it has one.
    pub fn judge(&self, status: u16, retry_after: Option<&str>, now: Timestamp) -> Verdict {
        match status {
            200..=299 => Verdict::Done,
            410 => Verdict::Bury,
            status if self.permanent.contains(&status) => Verdict::Bury,
            _ => Verdict::Retry { not_before: retry_after.and_then(|text| pause(text, now)) },
        }
    }
}

/// Seconds or a date (RFC 9110, section 10.2.3). What is neither is as good as absent; a date in the past is no pause.
fn pause(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number takes: longer than any pause that is granted.
        let seconds = text.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(limits::RETRY_AFTER_MAX));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let date = date.duration_since(std::time::SystemTime::UNIX_EPOCH).ok()?;
    let now = Duration::from_millis(now.as_millis());
    Some(date.saturating_sub(now).min(limits::RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_twelve_tries_or_three_days() {
        let schedule = default_schedule().unwrap();
        assert!(!schedule.is_spent(11, Duration::from_secs(60)) && schedule.is_spent(12, Duration::ZERO));
        assert!(schedule.is_spent(1, Duration::from_secs(3 * 86_400)));
        assert_eq!((schedule.first().as_secs(), schedule.cap().as_secs()), (5, 6 * 3_600));
    }

    #[test]
    fn an_answer_is_done_permanent_or_tried_again() {
        let now = Timestamp::from_millis(1_445_412_000_000);
        let check = |status, retry_after, expected| {
            let found = Statuses::permanent(&[422]).judge(status, retry_after, now);
            assert_eq!(found, expected, "{status} {retry_after:?}");
        };
        let retry = |seconds: Option<u64>| Verdict::Retry { not_before: seconds.map(Duration::from_secs) };
        for status in [200, 202, 204, 299] {
            check(status, Some("5"), Verdict::Done);
        }
        check(410, None, Verdict::Bury);
        check(422, None, Verdict::Bury);
        for status in [100, 301, 400, 404, 408, 409, 429, 500, 503, 599] {
            check(status, None, retry(None));
        }
        check(503, Some("120"), retry(Some(120)));
        check(503, Some("0"), retry(Some(0)));
        check(429, Some("Wed, 21 Oct 2015 07:28:00 GMT"), retry(Some(480)));
        check(429, Some("Wed, 21 Oct 2015 07:00:00 GMT"), retry(Some(0)));
        check(503, Some("99999999999999999999999"), retry(Some(86_400)));
        check(503, Some("Fri, 31 Dec 9999 23:59:59 GMT"), retry(Some(86_400)));
        for nonsense in ["", "-1", "soon", "1.5"] {
            check(503, Some(nonsense), retry(None));
        }
    }
}

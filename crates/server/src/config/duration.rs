//! Lengths of time as people write them: `30s`, `1h30m`, `7d`.

use std::time::Duration;

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// What is allowed, for messages.
pub(crate) const ALLOWED: &str = "a length of time such as \"500ms\", \"30s\", \"5m\", \"1h30m\" or \"7d\"";

/// Reads a length of time.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut millis: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &rest[..letters])?;
        rest = &rest[letters..];
        millis = millis.checked_add(number.checked_mul(*unit)?)?;
    }
    Some(Duration::from_millis(millis))
}

/// Writes a length of time so that [`parse`] reads it, in the largest units that fit.
pub(crate) fn show(length: Duration) -> String {
    let mut millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (name, unit) in UNITS.iter().rev() {
        if millis >= *unit {
            text.push_str(&(millis / unit).to_string());
            text.push_str(name);
            millis %= unit;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_as_people_write_them_and_written_back() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("0s", 0),
            ("1s500ms", 1_500),
        ] {
            let length = Duration::from_millis(millis);
            assert_eq!(parse(text), Some(length), "{text}");
            assert_eq!(show(length), text);
        }
    }

    #[test]
    fn what_is_no_length_of_time_is_refused() {
        for text in
            ["", "30", "s", "-5s", "5 s", "1.5s", "5y", "99999999999999999999s", "999999999999999999d", "é"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

//! When a schedule begins its job: cron, in a time zone.
//!
//! What daylight saving does to an instant is `croner`'s to say (`docs/adr/0024-schedules.md`): a time that does not
//! exist is the first moment after the gap, one that exists twice is the first of the two; what recurs within the hour
//! goes on through both.

use std::fmt;
use std::str::FromStr as _;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::config::Missed;

/// A schedule.
#[derive(Clone)]
pub struct Cron {
    text: String,
    zone_name: String,
    pattern: croner::Cron,
    zone: TimeZone,
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({} {})", self.text, self.zone_name)
    }
}

impl Cron {
    /// Reads five fields, or six with seconds before them, or a nickname such as `@hourly`.
    ///
    /// # Errors
    /// It is none: which field, and what may stand there.
    pub fn parse(text: &str, zone: &Zone) -> Result<Self, String> {
        let pattern = croner::Cron::from_str(text).map_err(|_| wrong(text))?;
        let cron =
            Self { text: text.to_owned(), zone_name: zone.name.clone(), pattern, zone: zone.zone.clone() };
        // One that never comes would be waited for without a word.
        match cron.next_after(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(cron),
            None => Err("names a time that never comes".to_owned()),
        }
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The name of its time zone.
    pub fn zone_name(&self) -> &str {
        &self.zone_name
    }

    /// The first instant after this one.
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        // Instants are whole seconds.
        let second = Timestamp::from_second(at.as_second()).ok()?.to_zoned(self.zone.clone());
        let next = self.pattern.find_next_occurrence(&second, false).ok()?;
        Some(next.timestamp())
    }

    /// Whether an instant that has come does not begin its job any more: the next one has come as well, or it came more
    /// than `late` ago and is not to be caught up with.
    pub(crate) fn is_missed(
        &self,
        instant: Timestamp,
        now: Timestamp,
        late: Duration,
        missed: Missed,
    ) -> bool {
        let is_overtaken = self.next_after(instant).is_some_and(|next| next <= now);
        is_overtaken
            || match missed {
                Missed::CatchUp => false,
                Missed::Skip => now > instant && now.duration_since(instant).unsigned_abs() > late,
            }
    }

    /// The instants after `after` and up to `now`: the last `limit` of them, the oldest first.
    pub fn between(&self, after: Timestamp, now: Timestamp, limit: usize) -> Vec<Timestamp> {
        let mut found = Vec::new();
        let Ok(mut second) = Timestamp::from_second(now.as_second()) else { return found };
        let mut inclusive = true;
        while found.len() < limit {
            let at = second.to_zoned(self.zone.clone());
            let Ok(before) = self.pattern.find_previous_occurrence(&at, inclusive) else { break };
            second = before.timestamp();
            if second <= after {
                break;
            }
            found.push(second);
            inclusive = false;
        }
        found.reverse();
        found
    }
}

/// What a schedule has, in its order: the name of each field, and what may stand in it.
const FIELDS: [(&str, &str); 7] = [
    ("second", "0-59"),
    ("minute", "0-59"),
    ("hour", "0-23"),
    ("day-of-month", "1-31, or L for the last"),
    ("month", "1-12 or JAN-DEC"),
    ("day-of-week", "0-7 or SUN-SAT"),
    ("year", "1-5000"),
];

/// The fields of a schedule of five.
const USUAL: std::ops::Range<usize> = 1..6;

/// What stands for a whole schedule.
const NICKNAMES: &str = "@hourly, @daily, @weekly, @monthly, @yearly";

/// Why a text is no schedule. Each of its fields is tried by itself, so that all that are wrong are named.
fn wrong(text: &str) -> String {
    let given: Vec<&str> = text.split_whitespace().collect();
    if given.len() == 1 && text.contains('@') {
        return format!("is none of {NICKNAMES}; {}", expected());
    }
    let first = match given.len() {
        5 => USUAL.start,
        6 | 7 => 0,
        0 => return format!("is empty; {}", expected()),
        1 => return format!("is no cron expression: it has one field; {}", expected()),
        number => return format!("is no cron expression: it has {number} fields; {}", expected()),
    };
    let mut problems = Vec::new();
    for (place, field) in given.iter().enumerate() {
        let alone = (0..given.len()).map(|other| if other == place { *field } else { "*" });
        if croner::Cron::from_str(&alone.collect::<Vec<_>>().join(" ")).is_err() {
            let (name, allowed) = FIELDS[first + place];
            problems.push(format!("`{field}` is no {name} ({allowed})"));
        }
    }
    format!("is no cron expression: {}; {}", problems.join(", "), expected())
}

fn expected() -> String {
    let names: Vec<&str> = FIELDS[USUAL].iter().map(|(name, _)| *name).collect();
    let (number, names) = (names.len(), names.join(" "));
    format!("expected {number} fields: {names}, such as \"0 2 * * *\" (the second may stand before them)")
}

/// A time zone.
#[derive(Clone, Debug)]
pub struct Zone {
    name: String,
    zone: TimeZone,
}

impl Zone {
    /// The zone of this name, such as `Europe/Berlin`: of the system's database, or of the one that is built in.
    ///
    /// # Errors
    /// There is none.
    pub fn parse(name: &str) -> Result<Self, String> {
        let zone = TimeZone::get(name);
        let zone =
            zone.map_err(|_| format!("`{name}` is no time zone; try one such as \"Europe/Berlin\""))?;
        Ok(Self { name: name.to_owned(), zone })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron(text: &str, zone: &str) -> Cron {
        Cron::parse(text, &Zone::parse(zone).unwrap()).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// The instants that follow, as the clock on the wall shows them.
    fn following(cron: &Cron, from: &str, number: usize) -> Vec<String> {
        let mut last = at(from);
        let next = || {
            last = cron.next_after(last)?;
            Some(last.to_zoned(cron.zone.clone()).strftime("%d %H:%M %z").to_string())
        };
        std::iter::from_fn(next).take(number).collect()
    }

    #[test]
    fn daylight_saving_the_hour_that_does_not_exist() {
        // Berlin, 29 March 2026: 02:00 is 03:00.
        let daily = cron("30 2 * * *", "Europe/Berlin");
        let seen = following(&daily, "2026-03-27T12:00:00Z", 3);
        assert_eq!(seen, ["28 02:30 +0100", "29 03:00 +0200", "30 02:30 +0200"], "once on each day");
        let often = cron("*/30 * * * *", "Europe/Berlin");
        let seen = following(&often, "2026-03-29T00:20:00Z", 3);
        assert_eq!(seen, ["29 01:30 +0100", "29 03:00 +0200", "29 03:30 +0200"], "every half hour");
    }

    #[test]
    fn daylight_saving_the_hour_that_exists_twice() {
        // Berlin, 25 October 2026: 03:00 is 02:00 again.
        let daily = cron("30 2 * * *", "Europe/Berlin");
        let seen = following(&daily, "2026-10-24T12:00:00Z", 2);
        assert_eq!(seen, ["25 02:30 +0200", "26 02:30 +0100"], "once on that day");
        let often = cron("*/30 * * * *", "Europe/Berlin");
        let seen = following(&often, "2026-10-24T23:50:00Z", 5);
        let expected =
            ["25 02:00 +0200", "25 02:30 +0200", "25 02:00 +0100", "25 02:30 +0100", "25 03:00 +0100"];
        assert_eq!(seen, expected, "every half hour");
    }

    #[test]
    fn looking_back_finds_what_looking_ahead_does() {
        for (text, zone) in
            [("30 2 * * *", "Europe/Berlin"), ("*/7 * * * *", "UTC"), ("0 0 1 * *", "Asia/Kolkata")]
        {
            let cron = cron(text, zone);
            for (from, until) in [
                ("2026-03-28T00:10:00Z", "2026-03-30T12:00:00Z"),
                ("2026-10-24T00:10:00Z", "2026-10-26T12:00:00Z"),
                ("2026-02-27T00:00:00Z", "2026-03-02T00:00:00Z"),
            ] {
                let (from, until) = (at(from), at(until));
                let mut ahead = Vec::new();
                let mut last = from;
                while let Some(next) = cron.next_after(last).filter(|next| *next <= until) {
                    ahead.push(next);
                    last = next;
                }
                assert_eq!(cron.between(from, until, 10_000), ahead, "{text} {zone} {from}");
                let newest: Vec<_> = ahead.iter().rev().take(3).rev().copied().collect();
                assert_eq!(cron.between(from, until, 3), newest);
            }
        }
    }

    #[test]
    fn a_clock_that_steps_forward_has_missed_what_lies_between_and_one_that_steps_back_nothing() {
        let cron = cron("*/10 * * * *", "UTC");
        let late = Duration::from_secs(60);
        // Which instants have come, and which of them are missed: without catching up, and with it.
        let come = |after: &str, now: &str| {
            let instants = cron.between(at(after), at(now), 100);
            let told = instants.into_iter().map(|instant| {
                let skipped = cron.is_missed(instant, at(now), late, Missed::Skip);
                let not_caught_up = cron.is_missed(instant, at(now), late, Missed::CatchUp);
                (instant.strftime("%H:%M").to_string(), skipped, not_caught_up)
            });
            told.collect::<Vec<_>>()
        };
        let (noon, now) = ("2026-11-21T12:00:00Z", "2026-11-21T12:10:00.3Z");
        assert_eq!(come(noon, now), [("12:10".to_owned(), false, false)], "just now");
        let (ten, twenty) = (("12:10".to_owned(), true, true), ("12:20".to_owned(), true, true));
        let stepped = come(noon, "2026-11-21T12:30:05Z");
        assert_eq!(stepped, [ten.clone(), twenty, ("12:30".to_owned(), false, false)]);
        let late = come(noon, "2026-11-21T12:25:00Z");
        assert_eq!(
            late,
            [ten, ("12:20".to_owned(), true, false)],
            "the last is caught up with, where that is asked for"
        );
        assert!(come(noon, "2026-11-21T11:00:00Z").is_empty(), "set back");
        assert!(come(noon, "2026-11-21T12:00:00.9Z").is_empty(), "an instant is a whole second");
        assert_eq!(come("1970-01-01T00:00:00Z", noon).len(), 100, "no more than so many");
    }

    #[test]
    fn daylight_saving_in_zones_that_are_out_of_the_ordinary() {
        // Lord Howe Island, 5 April 2026: 02:00 is 01:30 again, half an hour.
        let daily = cron("45 1 * * *", "Australia/Lord_Howe");
        let seen = following(&daily, "2026-04-03T20:00:00Z", 2);
        assert_eq!(seen, ["05 01:45 +1100", "06 01:45 +1030"], "once on that day");
        // Cairo, 24 April 2026: midnight is 01:00, so the day has no 00:00.
        let midnight = cron("0 0 * * *", "Africa/Cairo");
        let seen = following(&midnight, "2026-04-22T12:00:00Z", 3);
        assert_eq!(seen, ["23 00:00 +0200", "24 01:00 +0300", "25 00:00 +0300"], "once on each day");
        // Hours are counted by the wall, which is where they are named.
        let hourly = cron("0 * * * *", "Europe/Berlin");
        let seen = following(&hourly, "2026-10-24T23:30:00Z", 4);
        assert_eq!(seen, ["25 02:00 +0200", "25 02:00 +0100", "25 03:00 +0100", "25 04:00 +0100"]);
    }

    #[test]
    fn what_is_no_schedule_says_so() {
        let utc = Zone::parse("UTC").unwrap();
        for (odd, said) in [
            ("", "is empty; expected 5 fields: minute hour"),
            ("hourly", "it has one field"),
            ("every day", "it has 2 fields"),
            (
                "* * * *",
                "it has 4 fields; expected 5 fields: minute hour day-of-month month day-of-week, such as",
            ),
            ("* * * * * * * *", "it has 8 fields"),
            ("61 * * * *", "is no cron expression: `61` is no minute (0-59); expected 5 fields: minute hour"),
            (
                "0 25 32 13 8",
                "`25` is no hour (0-23), `32` is no day-of-month (1-31, or L for the last), \
                              `13` is no month (1-12 or JAN-DEC), `8` is no day-of-week (0-7 or SUN-SAT);",
            ),
            ("60 * * * * *", "`60` is no second (0-59)"),
            ("* * * * * * 0", "`0` is no year"),
            (
                "*/0 9-x * * MUN",
                "`*/0` is no minute (0-59), `9-x` is no hour (0-23), `MUN` is no day-of-week",
            ),
            ("0 2 * * @daily", "`@daily` is no day-of-week"),
            ("@midnight", "is none of @hourly, @daily, @weekly, @monthly, @yearly"),
            ("0 0 31 2 *", "names a time that never comes"),
        ] {
            let error = Cron::parse(odd, &utc).unwrap_err();
            assert!(error.contains(said), "{odd}: {error}");
        }
        assert!(Zone::parse("Mars/Olympus").is_err());
        for word in NICKNAMES.split(", ") {
            assert!(Cron::parse(word, &utc).is_ok(), "{word}");
        }
        let seconds = cron("*/15 * * * * *", "UTC");
        assert_eq!(seconds.next_after(at("2026-11-21T12:00:00.2Z")), Some(at("2026-11-21T12:00:15Z")));
    }
}

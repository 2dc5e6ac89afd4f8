//! Histograms of durations whose buckets each lead to a trace: the last one that was seen there is its exemplar.
//!
//! `prometheus-client` makes exemplars only for histograms that it locks at every observation, so these are written
//! here, below the registry's own text. Without a trace an observation costs what it costs in [`Durations`].

use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;

use super::histogram::{DURATION_BOUNDS, Durations};

/// The id of a trace, out of a `traceparent` header (W3C Trace Context, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId([u8; Self::CHARS]);

impl TraceId {
    const CHARS: usize = 32;

    /// The id that a `traceparent` names; `None` if it is malformed, since then there is no such trace.
    pub fn of(traceparent: &HeaderValue) -> Option<Self> {
        let text = traceparent.as_bytes();
        let (version, rest) = (text.get(..3)?, text.get(3..)?);
        let (id, parent) = (rest.get(..Self::CHARS)?, rest.get(Self::CHARS..)?);
        let is_hex = |digits: &[u8]| digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let is_zero = |digits: &[u8]| digits.iter().all(|byte| *byte == b'0');
        let (span, flags) = (parent.get(1..17)?, parent.get(18..20)?);
        let framed = version[2] == b'-' && parent[0] == b'-' && parent[17] == b'-';
        // Later versions may add fields; the first has none.
        let ends = match parent.get(20) {
            None => true,
            Some(after) => *after == b'-' && &version[..2] != b"00",
        };
        let valid = framed
            && ends
            && is_hex(&version[..2])
            && &version[..2] != b"ff"
            && is_hex(id)
            && !is_zero(id)
            && is_hex(span)
            && !is_zero(span)
            && is_hex(flags);
        valid.then_some(Self(id.try_into().ok()?))
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// How long things took, and a trace for each bucket. Clones are the same histogram.
#[derive(Clone, Debug, Default)]
pub(super) struct TracedDurations {
    durations: Durations,
    latest: Arc<[Mutex<Option<Exemplar>>; DURATION_BOUNDS.len() + 1]>,
}

#[derive(Clone, Copy, Debug)]
struct Exemplar {
    trace: TraceId,
    took: Duration,
}

impl TracedDurations {
    /// It took this long, as a part of this trace.
    pub(super) fn observe(&self, took: Duration, trace: Option<TraceId>) {
        self.durations.observe(took);
        // Whoever finds it taken leaves it: one exemplar is as good as another, and nobody waits for it.
        if let Some(trace) = trace
            && let Some(mut latest) = self.latest[Durations::bucket(took)].try_lock()
        {
            *latest = Some(Exemplar { trace, took });
        }
    }
}

/// Histograms of one name, by their labels.
#[derive(Debug)]
pub(super) struct TracedFamily {
    name: &'static str,
    help: &'static str,
    /// Labels as they are written, `name="value"` with commas between.
    series: Mutex<Vec<(String, TracedDurations)>>,
}

impl TracedFamily {
    pub(super) const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, series: Mutex::new(Vec::new()) }
    }

    /// The histogram with these labels, to find once and keep.
    pub(super) fn get_or_create(&self, labels: &[(&str, &str)]) -> TracedDurations {
        let labels = written(labels);
        let mut series = self.series.lock();
        if let Some((_, known)) = series.iter().find(|(known, _)| *known == labels) {
            return known.clone();
        }
        let created = TracedDurations::default();
        series.push((labels, created.clone()));
        created
    }

    /// Writes all of them as OpenMetrics text, below these labels.
    pub(super) fn write(&self, common: &[(&str, &str)], text: &mut String) -> fmt::Result {
        let (name, common) = (self.name, written(common));
        writeln!(text, "# HELP {name} {}.\n# TYPE {name} histogram", self.help)?;
        // Nobody who counts is kept waiting while this is written.
        let series = self.series.lock().clone();
        for (own, histogram) in &series {
            let comma = if common.is_empty() || own.is_empty() { "" } else { "," };
            histogram.write(name, &format!("{common}{comma}{own}"), text)?;
        }
        Ok(())
    }
}

impl TracedDurations {
    fn write(&self, name: &str, labels: &str, text: &mut String) -> fmt::Result {
        let (counts, sum) = self.durations.read();
        let count: u64 = counts.iter().sum();
        writeln!(text, "{name}_sum{{{labels}}} {:?}", sum.as_secs_f64())?;
        writeln!(text, "{name}_count{{{labels}}} {count}")?;
        let comma = if labels.is_empty() { "" } else { "," };
        let mut below = 0;
        for (place, here) in counts.iter().enumerate() {
            below += here;
            write!(text, "{name}_bucket{{{labels}{comma}le=\"")?;
            match DURATION_BOUNDS.get(place) {
                Some(bound) => write!(text, "{:?}", bound.as_secs_f64())?,
                None => text.write_str("+Inf")?,
            }
            write!(text, "\"}} {below}")?;
            let latest = *self.latest[place].lock();
            if let Some(Exemplar { trace, took }) = latest {
                write!(text, " # {{trace_id=\"{}\"}} {:?}", trace.as_str(), took.as_secs_f64())?;
            }
            text.write_char('\n')?;
        }
        Ok(())
    }
}

fn written(labels: &[(&str, &str)]) -> String {
    let label = |(name, value): &(&str, &str)| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("{name}=\"{value}\"")
    };
    labels.iter().map(label).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(traceparent: &str) -> Option<String> {
        TraceId::of(&HeaderValue::from_str(traceparent).unwrap()).map(|id| id.as_str().to_owned())
    }

    #[test]
    fn a_trace_id_is_taken_only_from_a_traceparent_that_is_one() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        for good in [
            &format!("00-{trace}-b7ad6b7169203331-01"),
            &format!("00-{trace}-b7ad6b7169203331-00"),
            &format!("cc-{trace}-b7ad6b7169203331-01-what-comes-later"),
        ] {
            assert_eq!(id(good).as_deref(), Some(trace), "{good}");
        }
        let zero = "0".repeat(32);
        for odd in [
            "",
            "00",
            trace,
            &format!("00-{trace}-b7ad6b7169203331"),
            &format!("00-{trace}-b7ad6b7169203331-0"),
            &format!("00-{trace}-b7ad6b7169203331-01-more"),
            &format!("00-{trace}-b7ad6b7169203331-011"),
            &format!("ff-{trace}-b7ad6b7169203331-01"),
            &format!("00-{zero}-b7ad6b7169203331-01"),
            &format!("00-{trace}-0000000000000000-01"),
            &format!("00-{}-b7ad6b7169203331-01", trace.to_uppercase()),
            &format!("00_{trace}_b7ad6b7169203331_01"),
            &format!("00-{}\"-b7ad6b7169203331-01", &trace[1..]),
        ] {
            assert_eq!(id(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_bucket_shows_the_last_trace_that_was_seen_in_it_and_the_others_none() {
        let family = TracedFamily::new("took_seconds", "How long");
        let histogram = family.get_or_create(&[("door", "a\"b\\")]);
        let trace = |digit: char| {
            let id = digit.to_string().repeat(32);
            TraceId::of(&HeaderValue::from_str(&format!("00-{id}-b7ad6b7169203331-01")).unwrap())
        };
        histogram.observe(Duration::from_micros(1_500), trace('a'));
        histogram.observe(Duration::from_micros(2_000), trace('b'));
        histogram.observe(Duration::from_micros(2_100), None);
        family.get_or_create(&[("door", "a\"b\\")]).observe(Duration::from_secs(11), None);
        let mut text = String::new();
        family.write(&[("service", "s")], &mut text).unwrap();
        let labels = r#"service="s",door="a\"b\\""#;
        let lines: Vec<&str> = text.lines().collect();
        let (b, bucket) = ("b".repeat(32), format!("took_seconds_bucket{{{labels},le="));
        assert_eq!(lines[..2], ["# HELP took_seconds How long.", "# TYPE took_seconds histogram"]);
        for line in [
            format!("took_seconds_sum{{{labels}}} 11.0056"),
            format!("took_seconds_count{{{labels}}} 4"),
            format!("{bucket}\"0.001\"}} 0"),
            format!("{bucket}\"0.0025\"}} 3 # {{trace_id=\"{b}\"}} 0.002"),
            format!("{bucket}\"10.0\"}} 3"),
            format!("{bucket}\"+Inf\"}} 4"),
        ] {
            assert!(lines.contains(&line.as_str()), "{line}\n{text}");
        }
    }
}

//! How figures are written: medians with their spread, the machine beside them.

use std::fmt::Write as _;

use crate::scenario::{Absent, Head};

/// Median, lowest and highest of some measurements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    /// The middle one.
    pub(crate) median: f64,
    /// The lowest.
    pub(crate) low: f64,
    /// The highest.
    pub(crate) high: f64,
}

impl Spread {
    /// Of at least one measurement; of none, all are not a number.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            at(middle)
        } else {
            f64::midpoint(at(middle.wrapping_sub(1)), at(middle))
        };
        Self { median, low: at(0), high: at(sorted.len().wrapping_sub(1)) }
    }

    /// `0.52 (0.48–0.55)`.
    pub(crate) fn text(self) -> String {
        format!("{:.2} ({:.2}–{:.2})", self.median, self.low, self.high)
    }
}

/// A bar of the quality document, and what was measured against it.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    what: String,
    measured: f64,
    must: f64,
    goal: f64,
    /// Whether more is better.
    at_least: bool,
}

impl Bar {
    /// Met from this value on.
    pub(crate) fn least(what: impl Into<String>, measured: f64, must: f64, goal: f64) -> Self {
        Self { what: what.into(), measured, must, goal, at_least: true }
    }

    /// Met up to this value.
    pub(crate) fn most(what: impl Into<String>, measured: f64, must: f64, goal: f64) -> Self {
        Self { what: what.into(), measured, must, goal, at_least: false }
    }

    fn verdict(&self) -> &'static str {
        let reaches = |bar: f64| if self.at_least { self.measured >= bar } else { self.measured <= bar };
        match (reaches(self.must), reaches(self.goal)) {
            (_, true) => "goal",
            (true, false) => "must",
            (false, false) => "**missed**",
        }
    }
}

/// The bars that a scenario measures, each with its verdict.
pub(crate) fn bars(text: &mut String, bars: &[Bar]) {
    text.push_str("\n## Bars\n\n| bar | must | goal | measured | reached |\n|---|---|---|---|---|\n");
    for bar in bars {
        let sign = if bar.at_least { "≥" } else { "≤" };
        let _ = writeln!(
            text,
            "| {} | {sign} {} | {sign} {} | {:.2} | {} |",
            bar.what,
            bar.must,
            bar.goal,
            bar.measured,
            bar.verdict()
        );
    }
    text.push('\n');
}

/// Microseconds in the unit that reads well.
pub(crate) fn micros(value: f64) -> String {
    if value >= 10_000.0 {
        format!("{:.0} ms", value / 1000.0)
    } else if value >= 1000.0 {
        format!("{:.1} ms", value / 1000.0)
    } else {
        format!("{value:.0} µs")
    }
}

/// Bytes in mebibytes.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// The machine, the disk's syncs.
pub(crate) fn head(text: &mut String, head: &Head) {
    let machine = &head.machine;
    let _ = writeln!(
        text,
        "{}, commit `{}`, {}. {} cores of {}, {} of memory, Linux {}, disk {}. Load generator, endpoint and database share \
         the cores.\n\n| durable write of 4 KiB | p50 | p99 |\n|---|---|---|",
        machine.date,
        machine.commit,
        machine.rustc,
        machine.cores,
        machine.processor,
        mebibytes(machine.memory_bytes),
        machine.kernel,
        machine.disk
    );
    for sync in &head.syncs {
        let _ = writeln!(text, "| {} | {} µs | {} µs |", sync.kind, sync.p50_us, sync.p99_us);
    }
}

/// The same for a scenario of the server alone, with the form of it that was measured.
pub(crate) fn head_of_server(text: &mut String, head: &Head) {
    self::head(text, head);
    let about = head.server.describe();
    let _ = writeln!(text, "\n{}: {}.", about.name, about.durability);
}

/// Sides without figures, with what was tried.
pub(crate) fn absent(text: &mut String, absent: &[Absent]) {
    if absent.is_empty() {
        return;
    }
    text.push_str("## Without figures\n\n");
    for one in absent {
        let _ = writeln!(text, "- {}: {}", one.peer.describe().name, one.why.replace('\n', " "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_two_middle_ones() {
        for (values, median) in
            [(vec![3.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0, 2.0, 3.0], 2.5), (vec![7.0], 7.0)]
        {
            assert!((Spread::of(values.into_iter()).median - median).abs() < f64::EPSILON);
        }
    }

    #[test]
    fn a_bar_says_what_of_it_is_reached_in_its_own_direction() {
        let least = |measured| Bar::least("x", measured, 0.5, 0.7).verdict();
        assert_eq!([least(0.4), least(0.5), least(0.7)], ["**missed**", "must", "goal"]);
        let most = |measured| Bar::most("x", measured, 4.0, 2.5).verdict();
        assert_eq!([most(4.1), most(4.0), most(2.5)], ["**missed**", "must", "goal"]);
    }

    #[test]
    fn times_are_written_in_the_unit_that_reads_well() {
        assert_eq!([micros(999.0), micros(1500.0), micros(12_400.0)], ["999 µs", "1.5 ms", "12 ms"]);
    }
}

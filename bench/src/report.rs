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
    fn times_are_written_in_the_unit_that_reads_well() {
        assert_eq!([micros(999.0), micros(1500.0), micros(12_400.0)], ["999 µs", "1.5 ms", "12 ms"]);
    }
}

//! A histogram of durations that costs two additions to feed.
//!
//! Every request feeds several of them from many threads, so there is no lock: each bucket is an atomic of its own,
//! and the count is their sum, taken when somebody reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Upper bounds: from 100 µs, since a durable write takes about that, to 10 s, past which a client has given up.
pub(super) const DURATION_BOUNDS: [Duration; 16] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// Upper bounds of batches: powers of two up to what a commit can hold.
pub(super) const BATCH_BOUNDS: [u64; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024];

/// How long things took. Clones are the same histogram.
#[derive(Clone, Debug, Default)]
pub struct Durations(Arc<Buckets<{ DURATION_BOUNDS.len() + 1 }>>);

/// How many things were done at once. Clones are the same histogram.
#[derive(Clone, Debug, Default)]
pub struct Sizes(Arc<Buckets<{ BATCH_BOUNDS.len() + 1 }>>);

/// The last bucket holds what is above every bound.
#[derive(Debug)]
struct Buckets<const N: usize> {
    counts: [AtomicU64; N],
    sum: AtomicU64,
}

impl<const N: usize> Default for Buckets<N> {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }
}

impl<const N: usize> Buckets<N> {
    fn add(&self, bucket: usize, value: u64) {
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    #[expect(clippy::cast_precision_loss, reason = "a sum of 2^53 ns is a hundred days of waiting")]
    fn encode(&self, bounds: &[f64], scale: f64, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        let mut buckets = Vec::with_capacity(N);
        let mut count = 0;
        for (place, cell) in self.counts.iter().enumerate() {
            let here = cell.load(Ordering::Relaxed);
            count += here;
            buckets.push((bounds.get(place).copied().unwrap_or(f64::INFINITY), here));
        }
        let sum = self.sum.load(Ordering::Relaxed) as f64 / scale;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

impl Durations {
    /// It took this long.
    pub fn observe(&self, took: Duration) {
        self.0.add(Self::bucket(took), u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The bucket that this belongs to. Bounds are inclusive (`le`).
    pub(super) fn bucket(took: Duration) -> usize {
        DURATION_BOUNDS.partition_point(|bound| *bound < took)
    }

    /// What is in each bucket, and the sum of all.
    pub(super) fn read(&self) -> ([u64; DURATION_BOUNDS.len() + 1], Duration) {
        let counts = std::array::from_fn(|place| self.0.counts[place].load(Ordering::Relaxed));
        (counts, Duration::from_nanos(self.0.sum.load(Ordering::Relaxed)))
    }
}

impl Sizes {
    /// There were this many at once.
    pub fn observe(&self, size: u64) {
        self.0.add(BATCH_BOUNDS.partition_point(|bound| *bound < size), size);
    }
}

impl EncodeMetric for Durations {
    fn encode(&self, encoder: MetricEncoder<'_>) -> std::fmt::Result {
        self.0.encode(&DURATION_BOUNDS.map(|bound| bound.as_secs_f64()), 1e9, encoder)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

impl EncodeMetric for Sizes {
    fn encode(&self, encoder: MetricEncoder<'_>) -> std::fmt::Result {
        #[expect(clippy::cast_precision_loss, reason = "bounds are small")]
        let bounds = BATCH_BOUNDS.map(|bound| bound as f64);
        self.0.encode(&bounds, 1.0, encoder)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

impl prometheus_client::metrics::TypedMetric for Durations {
    const TYPE: MetricType = MetricType::Histogram;
}

impl prometheus_client::metrics::TypedMetric for Sizes {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn a_value_on_a_bound_is_below_it_and_a_large_one_is_above_all() {
        let durations = Durations::default();
        for micros in [0, 100, 101, 10_000_000, 10_000_001] {
            durations.observe(Duration::from_micros(micros));
        }
        let mut registry = Registry::default();
        registry.register("took_seconds", "how long", durations);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let line = |le: &str| {
            let start = format!("took_seconds_bucket{{le=\"{le}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&start).map(str::to_owned))
        };
        assert_eq!(line("0.0001").as_deref(), Some("2"), "{text}");
        assert_eq!(line("0.00025").as_deref(), Some("3"));
        assert_eq!(line("10.0").as_deref(), Some("4"));
        assert_eq!(line("+Inf").as_deref(), Some("5"));
        assert!(
            text.contains("took_seconds_count 5\n") && text.contains("took_seconds_sum 20.000202\n"),
            "{text}"
        );
    }
}

//! What the process uses, under the names that every Prometheus client gives them. Read from `/proc` at each scrape;
//! elsewhere than on Linux there is nothing to read, and these are absent.

use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

pub(super) fn register(registry: &mut Registry) {
    registry.register_collector(Box::new(Process));
}

#[derive(Debug)]
struct Process;

/// What was read.
#[derive(Debug, PartialEq)]
struct Usage {
    cpu_seconds: f64,
    start_time_seconds: f64,
    threads: i64,
    virtual_bytes: i64,
    resident_bytes: i64,
    open_fds: i64,
    max_fds: i64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(usage) = Usage::read() else { return Ok(()) };
        // The suffix `_total` is added to counters.
        let cpu = ConstCounter::new(usage.cpu_seconds);
        let name = "process_cpu_seconds";
        cpu.encode(encoder.encode_descriptor(name, "Processor time", None, cpu.metric_type())?)?;
        let start = ConstGauge::new(usage.start_time_seconds);
        let name = "process_start_time_seconds";
        start.encode(encoder.encode_descriptor(
            name,
            "Start, since the epoch",
            None,
            start.metric_type(),
        )?)?;
        for (name, help, value) in [
            ("process_threads", "Threads", usage.threads),
            ("process_virtual_memory_bytes", "Virtual memory", usage.virtual_bytes),
            ("process_resident_memory_bytes", "Resident memory", usage.resident_bytes),
            ("process_open_fds", "Open files", usage.open_fds),
            ("process_max_fds", "Files that may be open", usage.max_fds),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

impl Usage {
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let system = fs::read_to_string("/proc/stat").ok()?;
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        let open = fs::read_dir("/proc/self/fd").ok()?.count();
        Self::parse(&stat, &system, &limits, open)
    }

    #[expect(clippy::cast_precision_loss, reason = "metrics are doubles")]
    fn parse(stat: &str, system: &str, limits: &str, open: usize) -> Option<Self> {
        // The second field is the program's name in parentheses, and may hold anything, also parentheses.
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // proc_pid_stat(5) counts from 1, and the first two are gone.
        let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
        let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
        let page_bytes = i64::try_from(rustix::param::page_size()).ok()?;
        let boot = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse::<i64>().ok()?;
        let max = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) as f64 / ticks_per_second,
            threads: field(20)?,
            start_time_seconds: boot as f64 + field(22)? as f64 / ticks_per_second,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * page_bytes,
            // Reading the folder opens it.
            open_fds: i64::try_from(open).ok()?.saturating_sub(1),
            // `unlimited` is said as the largest number there is.
            max_fds: max.split_ascii_whitespace().next()?.parse().unwrap_or(i64::MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_whose_name_has_parentheses_is_read_all_the_same() {
        let stat =
            "7 (a) b) S 1 1 1 0 -1 0 0 0 0 0 250 50 0 0 20 0 12 0 1000 4096000 25 18446744073709551615 0";
        let limits =
            "Limit  Soft  Hard  Units\nMax open files            1024                 524288  files\n";
        let usage = Usage::parse(stat, "cpu 1\nbtime 1700000000\n", limits, 11).unwrap();
        let ticks = rustix::param::clock_ticks_per_second();
        assert_eq!(
            (usage.threads, usage.virtual_bytes, usage.open_fds, usage.max_fds),
            (12, 4_096_000, 10, 1_024)
        );
        if ticks == 100 {
            assert!((usage.cpu_seconds - 3.0).abs() < 1e-9);
            assert!((usage.start_time_seconds - 1_700_000_010.0).abs() < 1e-9);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_can_be_read() {
        let usage = Usage::read().unwrap();
        assert!(usage.resident_bytes > 0 && usage.open_fds > 0 && usage.threads > 0, "{usage:?}");
    }
}

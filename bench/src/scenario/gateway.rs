//! The gateway with the contract, without it, and nginx, each before the same upstream, in alternation.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::{Harness, Head, Run, again};
use crate::limits::CONNECTIONS;
use crate::peer::Proxy;
use crate::report::{self, Bar, Spread, micros};

/// Load that is not counted: connections, caches and pools get warm.
const WARM_UP: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    /// Every request with a key that nobody has used.
    First,
    /// Keys that have been used before.
    Replay,
}

#[derive(Serialize)]
struct Sample {
    round: usize,
    proxy: Proxy,
    connections: usize,
    kind: Kind,
    run: Run,
}

#[derive(Serialize)]
struct Gateway {
    head: Head,
    rounds: usize,
    absent: Vec<(Proxy, String)>,
    samples: Vec<Sample>,
}

/// Measures and writes `gateway.md`.
///
/// # Errors
/// When the gateway is not there or fails; an nginx that cannot be had is named in the results.
pub(crate) fn run(harness: &mut Harness) -> Result<()> {
    let mut proxies = Vec::new();
    let mut absent = Vec::new();
    for proxy in Proxy::ALL {
        match proxy.prepare(&harness.places) {
            Ok(()) => proxies.push(proxy),
            Err(error) if proxy == Proxy::Nginx => absent.push((proxy, format!("{error:#}"))),
            Err(error) => return Err(error),
        }
    }
    let head = harness.head()?;
    let mut samples = Vec::new();
    harness.expect_steps(harness.rounds * proxies.len());
    for round in 0..harness.rounds {
        // Each round begins elsewhere, so that nobody always follows the same neighbour.
        proxies.rotate_left(1);
        for proxy in &proxies {
            harness.say(format!("round {} of {}: {proxy:?}", round + 1, harness.rounds));
            one(harness, *proxy, round, &mut samples)?;
            harness.step();
        }
    }
    let gateway = Gateway { head, rounds: harness.rounds, absent, samples };
    harness.write("gateway", &gateway, &table(&gateway))
}

fn one(harness: &mut Harness, proxy: Proxy, round: usize, samples: &mut Vec<Sample>) -> Result<()> {
    let side = proxy.start(&harness.places, "gateway")?;
    let warm = harness.fresh();
    Harness::measure(&side, &Harness::plan(&side, CONNECTIONS[0], WARM_UP, warm))?;
    for connections in CONNECTIONS {
        let keys = harness.fresh();
        let first = Harness::measure(&side, &Harness::plan(&side, connections, harness.first_run, keys))?;
        let keys = again(keys, first.figures.sent);
        samples.push(Sample { round, proxy, connections, kind: Kind::First, run: first });
        if proxy == Proxy::On {
            let plan = Harness::plan(&side, connections, harness.first_run * 2 / 3, keys);
            let run = Harness::measure(&side, &plan)?;
            samples.push(Sample { round, proxy, connections, kind: Kind::Replay, run });
        }
    }
    side.stop()
}

impl Gateway {
    fn of(&self, proxy: Proxy, connections: usize, kind: Kind) -> Vec<&Sample> {
        let wanted =
            |sample: &&Sample| (sample.proxy, sample.connections, sample.kind) == (proxy, connections, kind);
        self.samples.iter().filter(wanted).collect()
    }

    /// A ratio of throughputs, by round.
    fn ratio(&self, over: (Proxy, Kind), under: Proxy, connections: usize) -> Spread {
        let under = self.of(under, connections, Kind::First);
        let ratios = self.of(over.0, connections, over.1).into_iter().filter_map(move |sample| {
            let same = under.iter().find(|other| other.round == sample.round)?;
            Some(sample.run.figures.per_second / same.run.figures.per_second)
        });
        Spread::of(ratios.collect::<Vec<_>>().into_iter())
    }
}

fn table(gateway: &Gateway) -> String {
    let mut text = "# Reverse proxies before the same upstream\n\n".to_owned();
    report::head(&mut text, &gateway.head);
    let _ = writeln!(
        text,
        "\nMedians of {} rounds, lowest and highest in brackets. The upstream is the bare axum endpoint, in a process of its own; \
         generator, proxy and upstream share the cores. No side logs requests. The gateway with the contract syncs each claim and \
         each outcome before it goes on; a replay reaches no upstream.\n\n\
         | proxy | connections | requests /s | p50 | p99 | CPU per request, proxy and upstream | failed |\n|---|---|---|---|---|---|---|",
        gateway.rounds
    );
    let rows = [
        (Proxy::Nginx, Kind::First, ""),
        (Proxy::Off, Kind::First, ""),
        (Proxy::On, Kind::First, ": first runs"),
        (Proxy::On, Kind::Replay, ": replays"),
    ];
    for connections in CONNECTIONS {
        for (proxy, kind, what) in rows {
            let samples = gateway.of(proxy, connections, kind);
            if samples.is_empty() {
                continue;
            }
            let spread =
                |figure: fn(&Run) -> f64| Spread::of(samples.iter().map(|sample| figure(&sample.run)));
            let rate = spread(|run| run.figures.per_second);
            let failed: u64 = samples.iter().map(|s| s.run.figures.failed + s.run.figures.shed).sum();
            let _ = writeln!(
                text,
                "| {}{what} | {connections} | {:.0} ({:.0}–{:.0}) | {} | {} | {:.1} µs | {failed} |",
                proxy.name(),
                rate.median,
                rate.low,
                rate.high,
                micros(spread(|run| run.figures.p50_us as f64).median),
                micros(spread(|run| run.figures.p99_us as f64).median),
                spread(|run| run.processor_us).median,
            );
        }
    }
    let mut bars = Vec::new();
    for connections in CONNECTIONS {
        let on = gateway.ratio((Proxy::On, Kind::First), Proxy::Off, connections);
        let off = gateway.ratio((Proxy::Off, Kind::First), Proxy::Nginx, connections);
        let _ = writeln!(
            text,
            "\nAt {connections} connections: contract on / off {}, off / nginx {}.",
            on.text(),
            off.text()
        );
        bars.push(Bar::least(format!("contract on / off, {connections} connections"), on.median, 0.5, 0.7));
        if gateway.absent.is_empty() {
            bars.push(Bar::least(format!("off / nginx, {connections} connections"), off.median, 0.5, 0.8));
        }
    }
    for (proxy, why) in &gateway.absent {
        let _ = writeln!(text, "\n{} has no figures: {}", proxy.name(), why.replace('\n', " "));
    }
    report::bars(&mut text, &bars);
    text
}

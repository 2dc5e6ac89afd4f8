//! Webhooks taken in: verified, deduplicated, synced, answered; against H in the same round.
//!
//! Twice: with a target that nobody can reach, so that the circuit is open and only taking in is measured, and with one that
//! takes everything, so that the dispatcher works beside it. Then the same events again: duplicates.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{Harness, Head, Run, again};
use crate::limits::{CONNECTIONS, START_PATIENCE};
use crate::load::{self, Body, Keys, Plan, WEBHOOK_SECRET};
use crate::peer::{EXECUTE, Peer, Running, Setup};
use crate::process;
use crate::report::{self, Bar, Spread, micros};

/// The door of the source.
const PATH: &str = "/v1/webhooks/github";
/// Load that is not counted: connections, caches and pools get warm, and the circuit opens.
const WARM_UP: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    /// The bare endpoint.
    H,
    /// Every request an event that nobody has sent, and no target that answers.
    Taken,
    /// Events that have been sent before.
    Duplicate,
    /// As taken, and each is delivered.
    TakenAndDelivered,
}

impl Kind {
    const ALL: [Self; 4] = [Self::H, Self::Taken, Self::Duplicate, Self::TakenAndDelivered];

    const fn name(self) -> &'static str {
        match self {
            Self::H => "H: bare axum endpoint",
            Self::Taken => "taken in, nothing delivered (circuit open)",
            Self::Duplicate => "duplicates",
            Self::TakenAndDelivered => "taken in, deliveries beside it",
        }
    }
}

#[derive(Serialize)]
struct Sample {
    round: usize,
    connections: usize,
    kind: Kind,
    run: Run,
}

#[derive(Serialize)]
struct Webhooks {
    head: Head,
    rounds: usize,
    samples: Vec<Sample>,
}

/// Measures and writes `webhooks.md`.
///
/// # Errors
/// When the server is not there, or does not take an event.
pub(crate) fn run(harness: &mut Harness) -> Result<()> {
    harness.peers = vec![Peer::H, harness.server];
    let absent = harness.prepare();
    ensure!(absent.is_empty(), "{}", absent[0].why);
    let head = harness.head()?;
    let mut samples = Vec::new();
    let mut sides = [Kind::H, Kind::Taken, Kind::TakenAndDelivered];
    harness.expect_steps(harness.rounds * sides.len());
    for round in 0..harness.rounds {
        // Each round begins elsewhere, so that nobody always follows the same neighbour.
        sides.rotate_left(1);
        for side in sides {
            harness.say(format!("round {} of {}: {}", round + 1, harness.rounds, side.name()));
            match side {
                Kind::H => bare(harness, round, &mut samples)?,
                Kind::Taken | Kind::Duplicate => taken(harness, round, &mut samples)?,
                Kind::TakenAndDelivered => delivered(harness, round, &mut samples)?,
            }
            harness.step();
        }
    }
    let webhooks = Webhooks { head, rounds: harness.rounds, samples };
    harness.write("webhooks", &webhooks, &table(&webhooks))
}

fn bare(harness: &mut Harness, round: usize, samples: &mut Vec<Sample>) -> Result<()> {
    let side = Peer::H.start(&harness.places, "webhooks-h", false)?;
    let keys = harness.fresh();
    Harness::measure(&side, &Harness::plan(&side, CONNECTIONS[0], WARM_UP, keys))?;
    for connections in CONNECTIONS {
        let keys = harness.fresh();
        let run = Harness::measure(&side, &Harness::plan(&side, connections, harness.first_run, keys))?;
        samples.push(Sample { round, connections, kind: Kind::H, run });
    }
    side.stop()
}

fn taken(harness: &mut Harness, round: usize, samples: &mut Vec<Sample>) -> Result<()> {
    // Nobody listens there.
    let side = server(harness, "http://127.0.0.1:1/")?;
    warm(harness, &side)?;
    for connections in CONNECTIONS {
        let keys = harness.fresh();
        let first = Harness::measure(&side, &plan(&side, connections, harness.first_run, keys))?;
        let keys = again(keys, first.figures.sent);
        samples.push(Sample { round, connections, kind: Kind::Taken, run: first });
        let run = Harness::measure(&side, &plan(&side, connections, harness.first_run * 2 / 3, keys))?;
        samples.push(Sample { round, connections, kind: Kind::Duplicate, run });
    }
    side.stop()
}

fn delivered(harness: &mut Harness, round: usize, samples: &mut Vec<Sample>) -> Result<()> {
    let target = Peer::H.start(&harness.places, "webhooks-target", false)?;
    let side = server(harness, &format!("http://{}{EXECUTE}", target.addr))?;
    warm(harness, &side)?;
    for connections in CONNECTIONS {
        let keys = harness.fresh();
        let run = Harness::measure(&side, &plan(&side, connections, harness.first_run, keys))?;
        samples.push(Sample { round, connections, kind: Kind::TakenAndDelivered, run });
    }
    side.stop()?;
    target.stop()
}

/// The server with a source whose events go there; it has taken one.
fn server(harness: &Harness, target: &str) -> Result<Running> {
    let configuration = format!(
        "[server]\ndevelopment = true\n[[webhooks]]\nsource = \"github\"\nprovider = \"github\"\n\
         secrets = [{{ id = \"bench\", value = \"{WEBHOOK_SECRET}\" }}]\ntarget = \"{target}\"\nconcurrency = 32\n"
    );
    let setup = Setup { configuration: Some(configuration) };
    let side = harness.server.start_with(&harness.places, "webhooks", false, &setup)?;
    takes(side.addr)?;
    Ok(side)
}

/// Whether it takes an event, and the same once more, rightly.
fn takes(addr: SocketAddr) -> Result<()> {
    process::wait_for(
        START_PATIENCE,
        || Ok(()),
        || {
            for _ in 0..2 {
                let reply = load::once(addr, PATH, u64::MAX / 4, Body::Webhook)?;
                ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
            }
            Ok(())
        },
    )
    .map(drop)
}

fn warm(harness: &mut Harness, side: &Running) -> Result<()> {
    let keys = harness.fresh();
    Harness::measure(side, &plan(side, CONNECTIONS[0], WARM_UP, keys)).map(drop)
}

fn plan(side: &Running, connections: usize, duration: Duration, keys: Keys) -> Plan {
    let plan = Harness::plan(side, connections, duration, keys);
    Plan { path: PATH.to_owned(), body: Body::Webhook, ..plan }
}

impl Webhooks {
    fn of(&self, kind: Kind, connections: usize) -> Vec<&Sample> {
        let wanted = |sample: &&Sample| (sample.kind, sample.connections) == (kind, connections);
        self.samples.iter().filter(wanted).collect()
    }

    /// A figure divided by that of H, by round.
    fn ratio(&self, kind: Kind, connections: usize, figure: fn(&Run) -> f64) -> Spread {
        let bare = self.of(Kind::H, connections);
        let ratios = self.of(kind, connections).into_iter().filter_map(move |sample| {
            let same = bare.iter().find(|other| other.round == sample.round)?;
            Some(figure(&sample.run) / figure(&same.run))
        });
        Spread::of(ratios.collect::<Vec<_>>().into_iter())
    }
}

fn table(webhooks: &Webhooks) -> String {
    let mut text = "# Webhooks taken in\n\n".to_owned();
    report::head_of_server(&mut text, &webhooks.head);
    let _ = writeln!(
        text,
        "\nMedians of {} rounds, lowest and highest in brackets. Each request is verified (HMAC-SHA-256, as GitHub signs), found to be \
         new or not, and synced to disk before it is answered 200. Generator, server and target share the cores.\n\n\
         | what | connections | requests /s | / H | p50 | p99 | p99 / H's | CPU per request | failed |\n\
         |---|---|---|---|---|---|---|---|---|",
        webhooks.rounds
    );
    let mut bars = Vec::new();
    for connections in CONNECTIONS {
        for kind in Kind::ALL {
            let samples = webhooks.of(kind, connections);
            let spread =
                |figure: fn(&Run) -> f64| Spread::of(samples.iter().map(|sample| figure(&sample.run)));
            let rate = spread(|run| run.figures.per_second);
            let of_h = webhooks.ratio(kind, connections, |run| run.figures.per_second);
            let p99_of_h = webhooks.ratio(kind, connections, |run| run.figures.p99_us as f64);
            let failed: u64 = samples.iter().map(|s| s.run.figures.failed + s.run.figures.shed).sum();
            let _ = writeln!(
                text,
                "| {} | {connections} | {:.0} ({:.0}–{:.0}) | {} | {} | {} | {:.1} | {:.1} µs | {failed} |",
                kind.name(),
                rate.median,
                rate.low,
                rate.high,
                of_h.text(),
                micros(spread(|run| run.figures.p50_us as f64).median),
                micros(spread(|run| run.figures.p99_us as f64).median),
                p99_of_h.median,
                spread(|run| run.processor_us).median,
            );
            if kind == Kind::Taken {
                let what = format!("webhook ingest / H, {connections} connections");
                bars.push(Bar::least(what, of_h.median, 0.40, 0.60));
            }
        }
    }
    report::bars(&mut text, &bars);
    text
}

//! All sides in alternation: each round starts each side afresh, drives it, stops it, so that no other is in its way.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::{Absent, Harness, Head, Run, again};
use crate::limits::{CONNECTIONS, ROUNDS_MIN};
use crate::machine::SyncLatency;
use crate::peer::Peer;
use crate::report::{self, Bar, Spread, micros};

/// Load that is not counted: connections, caches and pools get warm.
const WARM_UP: Duration = Duration::from_secs(1);

/// How long one client alone is measured.
const ALONE: Duration = Duration::from_secs(1);

/// One measurement.
#[derive(Clone, Debug, Serialize)]
struct Sample {
    round: usize,
    peer: Peer,
    connections: usize,
    kind: Kind,
    run: Run,
}

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    FirstRun,
    Replay,
}

#[derive(Serialize)]
struct Contest {
    head: Head,
    rounds: usize,
    first_run_s: f64,
    /// The disk again at the end: it is shared, too.
    syncs_after: Vec<SyncLatency>,
    absent: Vec<Absent>,
    samples: Vec<Sample>,
}

/// Measures and writes `contest.md`.
///
/// # Errors
/// When H itself fails or results cannot be written; a peer that fails is named in the results.
pub(crate) fn run(harness: &mut Harness) -> Result<()> {
    let mut absent = harness.prepare();
    let head = harness.head()?;
    let mut samples = Vec::new();
    harness.expect_steps(harness.rounds * harness.peers.len());
    for round in 0..harness.rounds {
        let mut order = harness.peers.clone();
        // Each round begins elsewhere, so that nobody always follows the same neighbour.
        let shift = round % order.len().max(1);
        order.rotate_left(shift);
        for peer in order {
            if absent.iter().any(|gone| gone.peer == peer) {
                continue;
            }
            harness.say(format!("round {} of {}: {peer:?}", round + 1, harness.rounds));
            match one(harness, peer, round) {
                Ok(mut found) => samples.append(&mut found),
                Err(error) => {
                    absent.push(Absent { peer, why: format!("failed in round {}: {error:#}", round + 1) });
                }
            }
            harness.step();
        }
    }
    let syncs_after = harness.head()?.syncs;
    let contest = Contest {
        head,
        rounds: harness.rounds,
        first_run_s: harness.first_run.as_secs_f64(),
        syncs_after,
        absent,
        samples,
    };
    harness.write("contest", &contest, &table(&contest))
}

fn one(harness: &mut Harness, peer: Peer, round: usize) -> Result<Vec<Sample>> {
    let side = peer.start(&harness.places, "contest", false)?;
    let mut samples = Vec::new();
    let warm = harness.fresh();
    Harness::measure(&side, &Harness::plan(&side, CONNECTIONS[0], WARM_UP, warm))?;
    let replay_time = harness.first_run * 2 / 3;
    for (connections, first_time, replay_time) in [
        (1, ALONE, ALONE / 2),
        (CONNECTIONS[0], harness.first_run, replay_time),
        (CONNECTIONS[1], harness.first_run, replay_time),
    ] {
        let keys = harness.fresh();
        let first = Harness::measure(&side, &Harness::plan(&side, connections, first_time, keys))?;
        let keys = again(keys, first.figures.sent);
        samples.push(Sample { round, peer, connections, kind: Kind::FirstRun, run: first });
        let replay = Harness::measure(&side, &Harness::plan(&side, connections, replay_time, keys))?;
        samples.push(Sample { round, peer, connections, kind: Kind::Replay, run: replay });
    }
    side.stop()?;
    Ok(samples)
}

impl Contest {
    /// The median of the fastest way to make 4 KiB durable, before or after: what a sync costs here.
    fn fastest_sync_us(&self) -> u64 {
        self.head.syncs.iter().chain(&self.syncs_after).map(|sync| sync.p50_us).min().unwrap_or(1)
    }
}

type Group<'a> = BTreeMap<(Peer, usize, Kind), Vec<&'a Sample>>;

fn table(contest: &Contest) -> String {
    let mut groups = Group::new();
    for sample in &contest.samples {
        groups.entry((sample.peer, sample.connections, sample.kind)).or_default().push(sample);
    }
    let mut text = String::from("# First runs and replays, against H and the peers\n\n");
    report::head(&mut text, &contest.head);
    let _ = writeln!(
        text,
        "\n{} rounds in alternation, {} s of first runs and {:.1} s of replays each; medians. `/ H` is the median of the \
         rounds' ratios to H in the same round, with the lowest and highest ratio in brackets.{}\n",
        contest.rounds,
        contest.first_run_s,
        contest.first_run_s * 2.0 / 3.0,
        if contest.rounds < ROUNDS_MIN {
            " **Fewer rounds than the bars ask for: not for quoting.**"
        } else {
            ""
        }
    );
    for connections in CONNECTIONS {
        at(&mut text, &groups, connections);
    }
    alone(&mut text, &groups, contest);
    against(&mut text, &groups);
    report::bars(&mut text, &bars(&groups, contest));
    report::absent(&mut text, &contest.absent);
    text
}

fn at(text: &mut String, groups: &Group<'_>, connections: usize) {
    let _ = writeln!(text, "## {connections} connections\n");
    text.push_str(
        "| side | durability | first runs /s | / H | p50 | p99 | p99 / H | p99.9 | replays /s | / H | replay p99 | memory \
         | CPU per first run | failed |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for peer in sides(groups) {
        let (Some(first), Some(replay)) = (
            groups.get(&(peer, connections, Kind::FirstRun)),
            groups.get(&(peer, connections, Kind::Replay)),
        ) else {
            continue;
        };
        let about = peer.describe();
        let median = |samples: &[&Sample], of: fn(&Run) -> f64| {
            Spread::of(samples.iter().map(|one| of(&one.run))).median
        };
        let rate = |run: &Run| run.figures.per_second;
        let failed: u64 =
            first.iter().chain(replay.iter()).map(|one| one.run.figures.failed + one.run.figures.shed).sum();
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | {} | {} | {} | {} | {} | {:.0} | {} | {} | {:.0} MiB | {:.1} µs | {failed} |",
            about.name,
            about.durability,
            median(first, rate),
            ratio(groups, peer, connections, Kind::FirstRun, rate),
            micros(median(first, |run| run.figures.p50_us as f64)),
            micros(median(first, |run| run.figures.p99_us as f64)),
            ratio(groups, peer, connections, Kind::FirstRun, |run| run.figures.p99_us as f64),
            micros(median(first, |run| run.figures.p999_us as f64)),
            median(replay, rate),
            ratio(groups, peer, connections, Kind::Replay, rate),
            micros(median(replay, |run| run.figures.p99_us as f64)),
            median(first, |run| run.memory_bytes as f64) / f64::from(1 << 20),
            median(first, |run| run.processor_us),
        );
    }
    text.push('\n');
}

fn sides(groups: &Group<'_>) -> Vec<Peer> {
    let mut sides: Vec<Peer> = groups.keys().map(|(peer, ..)| *peer).collect();
    sides.dedup();
    sides
}

/// The ratio to H, round by round.
fn ratios(groups: &Group<'_>, peer: Peer, at: (usize, Kind), of: fn(&Run) -> f64) -> Option<Spread> {
    let ours = groups.get(&(peer, at.0, at.1))?;
    let ceiling = groups.get(&(Peer::H, at.0, at.1))?;
    let pairs: Vec<f64> = ours
        .iter()
        .filter_map(|sample| {
            let h = ceiling.iter().find(|h| h.round == sample.round)?;
            Some(of(&sample.run) / of(&h.run))
        })
        .collect();
    (!pairs.is_empty()).then(|| Spread::of(pairs.into_iter()))
}

fn ratio(groups: &Group<'_>, peer: Peer, connections: usize, kind: Kind, of: fn(&Run) -> f64) -> String {
    ratios(groups, peer, (connections, kind), of).map_or_else(|| "–".to_owned(), Spread::text)
}

fn alone(text: &mut String, groups: &Group<'_>, contest: &Contest) {
    let fastest =
        contest.head.syncs.iter().chain(&contest.syncs_after).map(|sync| sync.p50_us).min().unwrap_or(1);
    let _ = writeln!(
        text,
        "## One client alone\n\nA sync is {fastest} µs here: the fastest durable 4 KiB write of the table above.\n\n\
         | side | first run p50 | in syncs | p99 | replay p50 |\n|---|---|---|---|---|"
    );
    for peer in sides(groups) {
        let (Some(first), Some(replay)) =
            (groups.get(&(peer, 1, Kind::FirstRun)), groups.get(&(peer, 1, Kind::Replay)))
        else {
            continue;
        };
        let p50 = Spread::of(first.iter().map(|one| one.run.figures.p50_us as f64)).median;
        let p99 = Spread::of(first.iter().map(|one| one.run.figures.p99_us as f64)).median;
        let again = Spread::of(replay.iter().map(|one| one.run.figures.p50_us as f64)).median;
        let _ = writeln!(
            text,
            "| {} | {} | {:.1} | {} | {} |",
            peer.describe().name,
            micros(p50),
            p50 / fastest as f64,
            micros(p99),
            micros(again)
        );
    }
    text.push('\n');
}

/// The bars of each form of the server that took part.
fn bars(groups: &Group<'_>, contest: &Contest) -> Vec<Bar> {
    let mut bars = Vec::new();
    for peer in sides(groups).into_iter().filter(|peer| peer.is_server()) {
        let name = peer.describe().name;
        let mut add = |what: &str, at, of: fn(&Run) -> f64, least: bool, (must, goal)| {
            let Some(found) = ratios(groups, peer, at, of) else { return };
            let what = format!("{name}: {what} at {}", at.0);
            bars.push(if least {
                Bar::least(what, found.median, must, goal)
            } else {
                Bar::most(what, found.median, must, goal)
            });
        };
        let rate = |run: &Run| run.figures.per_second;
        let p99 = |run: &Run| run.figures.p99_us as f64;
        let [few, many] = CONNECTIONS;
        add("first runs / H", (few, Kind::FirstRun), rate, true, (0.45, 0.60));
        add("first runs / H", (many, Kind::FirstRun), rate, true, (0.50, 0.70));
        add("p99 / H's", (few, Kind::FirstRun), p99, false, (2.5, 1.5));
        add("p99 / H's", (many, Kind::FirstRun), p99, false, (2.5, 1.5));
        add("replays / H", (few, Kind::Replay), rate, true, (0.75, 0.90));
        add("replays / H", (many, Kind::Replay), rate, true, (0.70, 0.90));
        if let Some(first) = groups.get(&(peer, 1, Kind::FirstRun)) {
            let p50 = Spread::of(first.iter().map(|one| one.run.figures.p50_us as f64)).median;
            let syncs = p50 / contest.fastest_sync_us() as f64;
            bars.push(Bar::most(format!("{name}: first run's p50 alone, in syncs"), syncs, 4.0, 2.5));
        }
        for connections in CONNECTIONS {
            if let Some((ours, theirs, _)) = best_peer(groups, peer, connections) {
                let what = format!("{name}: first runs / the best durable peer's at {connections}");
                bars.push(Bar::least(what, ours / theirs, 1.3, 2.0));
            }
        }
    }
    bars
}

/// First runs of this form of the server, and of the best peer at equal durability, which is named.
fn best_peer(groups: &Group<'_>, server: Peer, connections: usize) -> Option<(f64, f64, Peer)> {
    let rate = |peer: Peer| {
        let found = groups.get(&(peer, connections, Kind::FirstRun))?;
        Some(Spread::of(found.iter().map(|one| one.run.figures.per_second)).median)
    };
    let (peer, theirs) = sides(groups)
        .into_iter()
        .filter(|peer| !peer.is_server() && peer.describe().durable)
        .filter_map(|peer| Some((peer, rate(peer)?)))
        .max_by(|(_, one), (_, other)| one.total_cmp(other))?;
    Some((rate(server)?, theirs, peer))
}

fn against(text: &mut String, groups: &Group<'_>) {
    for connections in CONNECTIONS {
        for server in sides(groups).into_iter().filter(|peer| peer.is_server()) {
            if let Some((ours, theirs, peer)) = best_peer(groups, server, connections) {
                let _ = writeln!(
                    text,
                    "At {connections} connections \"{}\" does {:.2}× the first runs of the best peer of equal durability ({}).\n",
                    server.describe().name,
                    ours / theirs,
                    peer.describe().name
                );
            }
        }
    }
}

//! Jobs that a schedule starts: each instant once over all nodes, whatever becomes of the node that had it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use rustix::process::Signal;
use semel_api::Time;
use serde_json::Value;

use crate::faketime::WallClock;
use crate::server::Server;
use crate::shared_store::{Kind, on_every_store};
use crate::target::{Arrived, Target};
use crate::wait::eventually;

const RUNS: &str = "/v1/jobs/EXPIRE_LOCKS/runs?limit=1000";
/// Short, so that a dead holder is overtaken while the test waits.
const LEASE: &str = "lease = \"3s\"";

on_every_store! {
    each_instant_of_a_schedule_begins_its_job_once_over_three_nodes,
    an_overlapping_instant_is_skipped_and_recorded,
    a_killed_holder_of_a_scheduled_job_is_overtaken_l2,
    a_paused_holder_of_a_scheduled_job_is_fenced_l6,
    the_clock_of_one_node_steps_and_each_instant_begins_its_job_once,
}

/// `EXPIRE_LOCKS`, every second.
fn every_second(target: &Target, path: &str, more: &str) -> String {
    let url = target.url();
    format!(
        "[[jobs]]\ntype = \"EXPIRE_LOCKS\"\nschedule = \"* * * * * *\"\ntarget = \"{url}{path}\"\n{more}\n"
    )
}

async fn history(server: &Server) -> Vec<Value> {
    server.get(RUNS, &[]).await.json()["runs"].as_array().unwrap().clone()
}

fn of_status<'a>(runs: &'a [Value], status: &'a str) -> impl Iterator<Item = &'a Value> {
    runs.iter().filter(move |run| run["status"] == status)
}

fn fence(arrived: &Arrived) -> u64 {
    arrived.headers["semel-fence"].parse().unwrap()
}

async fn each_instant_of_a_schedule_begins_its_job_once_over_three_nodes(kind: Kind) {
    let Some(store) = kind.fresh().await else { return };
    let target = Target::start().await;
    let (config, url) = (every_second(&target, "/json", ""), store.url());
    let nodes = join_all((0..3).map(|_| Server::start_on(&url, &config))).await;
    target.arrived(5).await;
    let seen = target.seen();
    let bodies: Vec<Value> =
        seen.iter().map(|arrived| serde_json::from_str(&arrived.body).unwrap()).collect();
    let instants: BTreeSet<_> = bodies.iter().map(|body| body["scheduledAt"].as_str().unwrap()).collect();
    assert_eq!(instants.len(), seen.len(), "each once: {instants:?}");
    let fences: BTreeSet<u64> = seen.iter().map(fence).collect();
    let keys: BTreeSet<_> = seen.iter().map(|arrived| &arrived.headers["idempotency-key"]).collect();
    assert_eq!((fences.len(), keys.len()), (seen.len(), seen.len()));
    assert!(seen.iter().all(|arrived| arrived.headers["semel-job"] == "EXPIRE_LOCKS"));
    let runs = history(&nodes[0]).await;
    assert!(of_status(&runs, "COMPLETED").all(|run| run["scheduledAt"].is_string()));
    let jobs = nodes[1].get("/v1/jobs", &[]).await.json();
    let schedule = &jobs["jobs"][0]["schedule"];
    assert_eq!((&schedule["cron"], &schedule["timeZone"]), (&"* * * * * *".into(), &"UTC".into()));
    assert!(schedule["nextAt"].is_string());
}

/// Seconds since 1970 by the clock on the wall.
#[expect(clippy::disallowed_methods, reason = "a schedule goes by the wall clock")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// `EXPIRE_LOCKS`, at one second of every minute that is near, and at another half a minute later: far enough apart that
/// what one instant has begun is over before the next.
fn twice_a_minute(target: &Target, path: &str, more: &str) -> String {
    let (one, other) = ((now() + 3) % 60, (now() + 33) % 60);
    every_second(target, path, more).replace("* * * * * *", &format!("{one},{other} * * * * *"))
}

async fn an_overlapping_instant_is_skipped_and_recorded(kind: Kind) {
    let Some(store) = kind.fresh().await else { return };
    let target = Target::start().await;
    target.close();
    let config = every_second(&target, "/gated", "");
    let nodes =
        [Server::start_on(&store.url(), &config).await, Server::start_on(&store.url(), &config).await];
    target.arrived(1).await;
    let skips = eventually("the next instants are skipped", async || {
        let runs = history(&nodes[1]).await;
        // A skip is written down in two steps.
        let skips = of_status(&runs, "SKIPPED").filter(|skip| skip["completedAt"].is_string());
        let skips: Vec<Value> = skips.cloned().collect();
        (skips.len() >= 2).then_some(skips)
    })
    .await;
    for skip in &skips {
        assert!(skip["scheduledAt"].is_string() && skip["by"].is_string(), "{skip}");
        assert_eq!(skip["results"]["details"], "Another instance is already running");
    }
    assert_eq!(target.seen().len(), 1, "one runs");
    let scrapes: Vec<String> = join_all(nodes.iter().map(async |node| {
        node.http().get(&format!("{}/metrics", node.admin_url()), &[]).await.unwrap().text().to_owned()
    }))
    .await;
    let skipped = r#"job_type="EXPIRE_LOCKS",status="SKIPPED"} "#;
    assert!(scrapes.iter().any(|scrape| scrape.contains(skipped)), "{scrapes:?}");
    target.open();
}

async fn a_killed_holder_of_a_scheduled_job_is_overtaken_l2(kind: Kind) {
    let Some(store) = kind.fresh().await else { return };
    let target = Target::start().await;
    let config = twice_a_minute(&target, "/gated", LEASE);
    target.close();
    let victim = Server::start_on(&store.url(), &config).await;
    target.arrived(1).await;
    let heir = Server::start_on(&store.url(), &config).await;
    victim.kill().await;
    target.open();
    // What it had begun is begun again, under the same key: the instant was its own.
    let seen = eventually("its instant is taken over", async || {
        let seen = target.seen();
        let key = &seen[0].headers["idempotency-key"];
        let again = seen[1..].iter().find(|arrived| &arrived.headers["idempotency-key"] == key).cloned()?;
        Some([seen[0].clone(), again])
    })
    .await;
    assert_eq!(seen[1].headers["semel-attempt"], "2");
    assert!(fence(&seen[1]) > fence(&seen[0]), "L2: {} after {}", fence(&seen[1]), fence(&seen[0]));
    let runs =
        eventually("the dead holder's run is ended for it, and the other ends by itself", async || {
            let runs = history(&heir).await;
            let of = |fence: u64| runs.iter().find(|run| run["fence"].as_u64() == Some(fence));
            let ends = [of(fence(&seen[0]))?["status"].clone(), of(fence(&seen[1]))?["status"].clone()];
            (ends[1] != "RUNNING").then_some(ends)
        })
        .await;
    assert_eq!(runs, ["LAPSED", "COMPLETED"]);
}

async fn a_paused_holder_of_a_scheduled_job_is_fenced_l6(kind: Kind) {
    let Some(store) = kind.fresh().await else { return };
    let target = Target::start().await;
    let config = every_second(&target, "/gated", LEASE);
    target.close();
    let paused = Server::start_on(&store.url(), &config).await;
    target.arrived(1).await;
    paused.signal(Signal::STOP);
    let other = Server::start_on(&store.url(), &config).await;
    target.arrived(2).await;
    let seen = target.seen();
    assert!(fence(&seen[1]) > fence(&seen[0]), "L2");
    // The target answers both; then the one that slept wakes, and reads its answer.
    target.open();
    paused.signal(Signal::CONT);
    paused.logged("a run of a job could not be ended").await;
    let runs = history(&other).await;
    let first = runs.iter().find(|run| run["fence"].as_u64() == Some(fence(&seen[0]))).unwrap();
    assert_eq!(first["status"], "LAPSED", "what it says of its run counts no more");
}

/// The instants that have begun the job, each as often as it has.
fn begun(target: &Target) -> Vec<String> {
    let bodies =
        target.seen().into_iter().map(|arrived| serde_json::from_str::<Value>(&arrived.body).unwrap());
    bodies.map(|body| body["scheduledAt"].as_str().unwrap().to_owned()).collect()
}

/// The newest instant that has begun the job, in seconds since 1970.
fn newest(target: &Target) -> u64 {
    let instants =
        begun(target).into_iter().map(|instant| Time::parse(&instant).unwrap().as_millis() / 1_000);
    instants.max().unwrap()
}

async fn the_clock_of_one_node_steps_and_each_instant_begins_its_job_once(kind: Kind) {
    let Some(store) = kind.fresh().await else { return };
    let Some(clock) = WallClock::new() else { return };
    let target = Target::start().await;
    let config = every_second(&target, "/json", "");
    let steady = Server::start_on(&store.url(), &config).await;
    let environment = clock.environment();
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let stepping = Server::start_on_with(&store.url(), &config, &environment).await;
    target.arrived(3).await;
    // Back, over instants that both have come to; ahead, to some that the other has not; and home again.
    for offset in ["-3s", "+5s", "+0s"] {
        clock.step(offset);
        let before = target.seen().len();
        target.arrived(before + 4).await;
        if offset == "+5s" {
            eventually("it is ahead", async || (newest(&target) > now() + 2).then_some(())).await;
        }
    }
    let begun = begun(&target);
    let once: BTreeSet<&String> = begun.iter().collect();
    assert_eq!(once.len(), begun.len(), "each once: {begun:?}");
    for node in [&steady, &stepping] {
        assert_eq!(node.get("/readyz", &[]).await.status, 200);
    }
}

#[tokio::test]
async fn a_tick_is_not_lost_on_restart_and_missed_ones_are_recorded() {
    let target = Target::start().await;
    let folder = tempfile::tempdir().unwrap();
    // It may be killed in the middle of a run.
    let config = every_second(&target, "/json", LEASE);
    let server = Server::start_in(folder.path(), &config).await;
    target.arrived(2).await;
    server.kill().await;
    let (down, before) = (Instant::now(), target.seen().len());
    eventually("three instants go by", async || (down.elapsed() > Duration::from_secs(3)).then_some(()))
        .await;
    let server = Server::start_in(folder.path(), &config).await;
    target.arrived(before + 1).await;
    let runs = eventually("the instants that nobody was there for", async || {
        let runs = history(&server).await;
        let missed =
            |run: &&Value| run["results"]["details"] == "Nothing was running at this instant of the schedule";
        let missed: Vec<Value> = of_status(&runs, "SKIPPED").filter(missed).cloned().collect();
        (missed.len() >= 2).then_some(missed)
    })
    .await;
    let instants: BTreeSet<_> = runs.iter().map(|run| run["scheduledAt"].as_str().unwrap()).collect();
    assert_eq!(instants.len(), runs.len(), "each once");
    let begun: Vec<Value> =
        target.seen().iter().map(|arrived| serde_json::from_str(&arrived.body).unwrap()).collect();
    assert!(begun.iter().all(|body| !instants.contains(body["scheduledAt"].as_str().unwrap())));
}

/// An hour from now, by a clock that is then set forward by one and a half.
#[tokio::test]
async fn an_instant_that_a_clock_has_stepped_over_is_recorded_or_caught_up_with() {
    let Some(clock) = WallClock::new() else { return };
    let target = Target::start().await;
    let jobs = |schedule: &str| {
        let jobs = [("SKIPS", "skip"), ("CATCHES_UP", "catch-up")].map(|(name, missed)| {
            let job = every_second(&target, "/json", &format!("missed = \"{missed}\""));
            job.replace("EXPIRE_LOCKS", name).replace("* * * * * *", schedule)
        });
        jobs.concat()
    };
    let folder = tempfile::tempdir().unwrap();
    let of =
        |name: &str| target.seen().into_iter().filter(|arrived| arrived.headers["semel-job"] == name).count();
    // Both have run before, so that whenever the server looks at its clock, it knows where it has stopped.
    let server = Server::start_in(folder.path(), &jobs("* * * * * *")).await;
    eventually("both have run", async || (of("SKIPS") > 0 && of("CATCHES_UP") > 0).then_some(())).await;
    assert!(server.stop().await.success());
    let (skips, catches_up) = (of("SKIPS"), of("CATCHES_UP"));
    let at = now() + 3_600;
    let daily = format!("{} {} * * *", at / 60 % 60, at / 3_600 % 24);
    let store = format!("embedded:{}", folder.path().join("data").display());
    let environment = clock.environment();
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let server = Server::start_on_with(&store, &jobs(&daily), &environment).await;
    clock.step("+90m");
    eventually("one is caught up with", async || (of("CATCHES_UP") > catches_up).then_some(())).await;
    let instant = begun(&target).pop().unwrap();
    assert_eq!(newest(&target) / 60, at / 60, "{instant}");
    let run = eventually("the other is recorded", async || {
        let runs = server.get("/v1/jobs/SKIPS/runs?limit=1000", &[]).await.json()["runs"].clone();
        let mut of_instant = runs.as_array().unwrap().iter();
        of_instant.find(|run| run["scheduledAt"] == *instant && run["completedAt"].is_string()).cloned()
    })
    .await;
    let said = (run["status"].as_str().unwrap(), run["results"]["details"].as_str().unwrap());
    assert_eq!(said, ("SKIPPED", "Nothing was running at this instant of the schedule"));
    assert_eq!((of("SKIPS"), of("CATCHES_UP")), (skips, catches_up + 1));
}

#[tokio::test]
async fn a_reload_begins_and_ends_schedules_and_lets_runs_go_on() {
    let (target, folder) = (Target::start().await, tempfile::tempdir().unwrap());
    let server = Server::start_in(folder.path(), "").await;
    let reload = |config: &str| {
        std::fs::write(folder.path().join("semel.toml"), config).unwrap();
        server.signal(Signal::HUP);
    };
    target.close();
    reload(&every_second(&target, "/gated", ""));
    target.arrived(1).await;
    reload("");
    eventually("it is scheduled no more", async || {
        let jobs = server.get("/v1/jobs", &[]).await.json();
        jobs["jobs"][0]["schedule"].is_null().then_some(())
    })
    .await;
    let running = server.get("/v1/jobs", &[]).await.json()["jobs"][0]["running"].clone();
    target.open();
    let path = format!("/v1/jobs/EXPIRE_LOCKS/runs/{}", running["id"].as_str().unwrap());
    eventually("the run that had begun ends by itself", async || {
        (server.get(&path, &[]).await.json()["status"] == "COMPLETED").then_some(())
    })
    .await;
    let config = every_second(&target, "/json", "");
    reload(&config);
    target.arrived(2).await;
    let again: BTreeSet<String> = begun(&target).into_iter().collect();
    assert_eq!(again.len(), begun(&target).len(), "no instant twice");
}

/// Of the very next run, whose guard is there still.
#[tokio::test]
async fn a_lease_that_is_reloaded_is_the_next_runs_and_the_one_that_goes_on_keeps_its_own() {
    const USUAL: u64 = 600_000;
    const LONG: u64 = 3_600_000;
    let (target, folder) = (Target::start().await, tempfile::tempdir().unwrap());
    target.close();
    let config =
        |lease_ms: u64| every_second(&target, "/gated", &format!("lease = \"{}s\"", lease_ms / 1_000));
    let server = Server::start_in(folder.path(), &config(USUAL)).await;
    let holds = |run: &Value, lease_ms: u64| {
        let time = |name: &str| Some(Time::parse(run[name].as_str()?).unwrap().as_millis());
        let held = time("leaseUntil").zip(time("heartbeatAt")).map(|(until, since)| until - since);
        held.is_some_and(|held| (lease_ms..lease_ms + 60_000).contains(&held))
    };
    let running = async || server.get("/v1/jobs", &[]).await.json()["jobs"][0]["running"].clone();
    target.arrived(1).await;
    let first = running().await;
    assert!(holds(&first, USUAL), "{first}");
    std::fs::write(folder.path().join("semel.toml"), config(LONG)).unwrap();
    server.signal(Signal::HUP);
    // Runs that the old configuration has begun are let through; the next one stays for as long as it is looked at.
    let next = eventually("a run of the new configuration", async || {
        let run = running().await;
        match run["id"].as_str() {
            Some(_) if holds(&run, USUAL) => target.open(),
            Some(_) if holds(&run, LONG) => return Some(run),
            // It has ended while it was looked at.
            Some(_) => {}
            None => target.close(),
        }
        None
    })
    .await;
    assert!(next["fence"].as_u64() > first["fence"].as_u64(), "L2");
    target.open();
}

#[tokio::test]
async fn what_the_target_says_is_the_result_and_a_failure_is_one() {
    let target = Target::start().await;
    let url = target.url();
    let job = |name: &str, path: &str| {
        format!("[[jobs]]\ntype = \"{name}\"\nschedule = \"* * * * * *\"\ntarget = \"{url}{path}\"\n")
    };
    let server = Server::start(&(job("GOOD", "/empty") + &job("BAD", "/status/500"))).await;
    for (name, status, details) in [("GOOD", "COMPLETED", ""), ("BAD", "FAILED", "the target answered 500")] {
        let run = eventually("a run ends", async || {
            let runs = server.get(&format!("/v1/jobs/{name}/runs"), &[]).await.json();
            let runs = runs["runs"].as_array().unwrap().clone();
            runs.into_iter().find(|run| run["status"] == status)
        })
        .await;
        assert_eq!(run["results"]["details"], details);
    }
}

#[tokio::test]
async fn the_instant_that_began_a_run_is_seen_in_a_shell() {
    let target = Target::start().await;
    let server = Server::start(&every_second(&target, "/empty", "")).await;
    let run =
        eventually("a run ends", async || of_status(&history(&server).await, "COMPLETED").next().cloned())
            .await;
    let admin = server.admin_url();
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["jobs", "history", "EXPIRE_LOCKS", "--limit", "1000", "--admin-url", &admin];
    let output = crate::server::command(&arguments, folder.path()).output().await.unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let columns: Vec<_> = shown.lines().next().unwrap().split_whitespace().collect();
    let place = columns.iter().position(|column| *column == "scheduled").unwrap();
    let began = |line: &&str| line.trim_start().starts_with(run["startedAt"].as_str().unwrap());
    let line = shown.lines().find(began).unwrap_or_else(|| panic!("no {run} in\n{shown}"));
    assert_eq!(line.split_whitespace().nth(place), run["scheduledAt"].as_str(), "{shown}");
}

#[tokio::test]
async fn what_is_wrong_with_a_job_in_the_configuration_stops_the_start_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let job = "[[jobs]]\ntype = \"A\"\nschedule = \"0 0 31 2 *\"\ntime_zone = \"Mars\"\ntarget = \"x\"\nmissed = \"never\"\n\
               [[jobs]]\ntype = \"a b\"\n";
    std::fs::write(folder.path().join("semel.toml"), job).unwrap();
    let checked = crate::server::command(&["config", "check"], folder.path()).output().await.unwrap();
    assert_eq!(checked.status.code(), Some(3));
    let said = String::from_utf8(checked.stderr).unwrap() + &String::from_utf8(checked.stdout).unwrap();
    for (line, key) in [(3, "schedule"), (4, "time_zone"), (5, "target"), (6, "missed"), (8, "type")] {
        assert!(said.contains(&format!("semel.toml:{line}")) && said.contains(key), "{key} in\n{said}");
    }
    assert!(said.contains("jobs[1].schedule: is missing"), "{said}");
}

//! The runs: every world that can be reached within a scenario's bounds, none left out.

use std::time::Instant;

use semel_core::policy::OnLapse::{AtMostOnce, Resume};
use stateright::{Checker, Model};

use crate::scenario::{Cast, Role, Scenario, Sight};
use crate::steps::Ledger;

use Role::{
    Clerk, Client, Completer, Named, Operator, Patient, Planner, Probe, Reaper, Submitter, Sweeper, Warden,
    Worker,
};
use Sight::{
    Abandoned, Cancelled, Death, Fenced, GhostWrite, Lapse, LateRequest, LateSettlement, PayloadGone,
    PowerLoss, Replay, Reuse, Revival, SecondRun, StaleVersion, Takeover, TooLate,
};

/// What the quality bar asks for, over all runs of this test.
const STATES_MIN: usize = 1_000_000;

/// Asks for the larger runs, too.
const FULL: &str = "SEMEL_FULL";

fn one(role: Role) -> Cast {
    Cast::new(role, 1)
}

fn runs() -> Vec<Scenario> {
    let once = |name, cast: &[Cast]| Scenario::new(name, AtMostOnce, 1, cast);
    let resume = |name, cast: &[Cast]| Scenario::new(name, Resume, 1, cast);
    vec![
        once(
            "lost answers, a crash and a probe",
            &[one(Client).doubts(1), one(Client).crashes(1), one(Probe)],
        )
        .seeing(&[
            Lapse,
            GhostWrite,
            SecondRun,
            Cancelled,
            LateRequest,
            Fenced,
            LateSettlement,
            Abandoned,
            TooLate,
            StaleVersion,
            Replay,
        ]),
        once("a holder paused before it sends", &[one(Client), Cast::new(Client, 2), one(Probe)]).seeing(&[
            Lapse,
            SecondRun,
            Cancelled,
            LateRequest,
        ]),
        once("a named attempt asked for again", &[Cast::new(Named, 2).crashes(1), one(Client)])
            .seeing(&[Lapse, GhostWrite, Replay]),
        resume(
            "takeovers with heartbeats and skewed clocks",
            &[one(Client).beats(1).clock(9), one(Client).doubts(1).clock(11)],
        )
        .seeing(&[Takeover, Fenced, GhostWrite, LateSettlement]),
        resume("takeovers with checkpoints", &[one(Client).steps(1), one(Completer), one(Worker)])
            .seeing(&[Takeover, Fenced]),
        once("sweep and reuse", &[Cast::new(Client, 2), one(Client), Cast::new(Sweeper, 2)])
            .seeing(&[Reuse, StaleVersion]),
        Scenario::new(
            "synchronous and accepted",
            AtMostOnce,
            2,
            &[one(Client), one(Submitter), one(Worker).crashes(1), one(Probe)],
        )
        .seeing(&[Lapse, SecondRun]),
        resume("accepted after its lapse was seen", &[one(Client), one(Submitter), one(Reaper), one(Worker)])
            .seeing(&[Takeover]),
        resume(
            "revival against a late settlement",
            &[one(Submitter), Cast::new(Worker, 2), Cast::new(Operator, 2)],
        )
        .seeing(&[Death, Revival, StaleVersion, LateSettlement]),
        resume("the guard of a job", &[one(Client), one(Client), one(Warden)]).of_a_job().seeing(&[Takeover]),
        resume("runs of a job with leases of their own", &[one(Client), one(Patient).beats(1).crashes(1)])
            .of_a_job()
            .seeing(&[Takeover, Fenced, LateSettlement]),
        resume("another lease is asked for elsewhere", &[one(Client), one(Patient).beats(1)]).seeing(&[
            Takeover,
            Fenced,
            LateSettlement,
        ]),
        resume("work for later", &[one(Planner).doubts(1), one(Worker), one(Client)])
            .seeing(&[Takeover, GhostWrite, Replay]),
        resume(
            "payloads that go before their records",
            &[Cast::new(Submitter, 2), one(Worker), one(Operator), one(Clerk).doubts(1)],
        )
        .dropping_payloads()
        .seeing(&[PayloadGone, Death, GhostWrite]),
        once("power loss", &[one(Client).doubts(1), one(Client)])
            .with_power_loss()
            .seeing(&[PowerLoss, GhostWrite]),
    ]
}

/// Some minutes and gigabytes more.
fn larger_runs() -> Vec<Scenario> {
    let once = |name, cast: &[Cast]| Scenario::new(name, AtMostOnce, 1, cast);
    vec![
        Scenario::new(
            "workers and dead letters",
            Resume,
            2,
            &[one(Submitter), one(Worker).crashes(1), one(Worker), one(Operator)],
        )
        .seeing(&[Takeover, Fenced, StaleVersion]),
        once(
            "sweep, reuse and lost answers",
            &[Cast::new(Client, 2), one(Client).doubts(1), Cast::new(Sweeper, 2)],
        )
        .seeing(&[Reuse, GhostWrite]),
        Scenario::new(
            "two workers and an operator",
            Resume,
            2,
            &[one(Submitter), Cast::new(Worker, 2), one(Worker), one(Operator)],
        )
        .seeing(&[Takeover, Death, Revival]),
        Scenario::new(
            "runs of a job with leases of their own, and a warden",
            Resume,
            1,
            &[one(Client), one(Patient).beats(1), one(Warden)],
        )
        .of_a_job()
        .seeing(&[Takeover, Fenced, StaleVersion]),
        Scenario::new(
            "synchronous and accepted, lost answers",
            AtMostOnce,
            2,
            &[one(Client), one(Submitter).doubts(1), one(Worker).crashes(1), one(Probe)],
        )
        .seeing(&[Lapse, GhostWrite]),
        once("power loss and a probe", &[one(Client), one(Client), one(Probe)])
            .with_power_loss()
            .seeing(&[PowerLoss]),
    ]
}

/// Explores all of it; fails with the way to a broken invariant, if there is one. How many states there were.
fn explore(scenario: Scenario) -> usize {
    let began = Instant::now();
    let (name, sees) = (scenario.name, scenario.sees);
    let checker = Ledger::new(scenario).checker().threads(2).spawn_bfs().join();
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        let broken = path.last_state().broken;
        panic!("{name}: {property} is broken, {broken:?}, by\n{:#?}", path.into_actions());
    }
    let states = checker.unique_state_count();
    println!("{name}: {states} states, depth {}, {:.1?}", checker.max_depth(), began.elapsed());
    let unseen: Vec<&Sight> = sees.iter().filter(|sight| checker.model().seen(**sight) == 0).collect();
    assert!(unseen.is_empty(), "{name} never came by {unseen:?}");
    states
}

#[test]
fn every_world_that_can_be_reached_keeps_the_invariants() {
    let full = std::env::var_os(FULL).is_some();
    let larger = if full { larger_runs() } else { Vec::new() };
    let states: usize = runs().into_iter().chain(larger).map(explore).sum();
    println!("{states} states explored in all");
    assert!(states >= STATES_MIN, "{states} states are too few to say anything");
}

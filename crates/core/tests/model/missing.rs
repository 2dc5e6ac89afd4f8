//! Every guard is missed: without any one of them, the model finds the invariant that it is there for.

use std::sync::atomic::{AtomicUsize, Ordering};

use semel_core::policy::OnLapse::{AtMostOnce, Resume};
use stateright::{Checker, HasDiscoveries, Model};

use crate::guards::{GUARDS, Guard};
use crate::scenario::{Cast, Role, Scenario};
use crate::steps::{Ledger, property_of};

use Role::{
    Breaker, Clerk, Client, Completer, Confused, Filer, Named, Operator, Patient, Planner, Probe, Reaper,
    Submitter, Sweeper, Warden, Worker,
};

const fn cast(role: Role) -> Cast {
    Cast::new(role, 1)
}

/// How far a run without a guard is followed before the next one is tried: what is missed is missed early.
const STATES_MAX: usize = 100_000;

/// Small runs, the smallest first; each passes with all guards in place.
fn small() -> Vec<Scenario> {
    let once = |name, cast: &[Cast]| Scenario::new(name, AtMostOnce, 1, cast);
    let resume = |name, cast: &[Cast]| Scenario::new(name, Resume, 1, cast);
    vec![
        Scenario::new("breaker", AtMostOnce, 2, &[cast(Submitter), cast(Worker), cast(Breaker)]),
        once("dead letters", &[cast(Submitter), cast(Worker), cast(Operator), cast(Probe)]),
        resume("revival", &[cast(Submitter), Cast::new(Worker, 2), cast(Operator)]),
        resume("handed in again", &[Cast::new(Submitter, 2), cast(Worker)]),
        Scenario::new("taken over", Resume, 2, &[cast(Submitter), cast(Worker), cast(Worker)]),
        once("operator of driven", &[cast(Completer), cast(Operator)]),
        once("sweep", &[Cast::new(Client, 2), cast(Sweeper)]),
        once("sweep of accepted", &[cast(Client), cast(Submitter), cast(Sweeper)]),
        once("worker and probe", &[cast(Submitter), cast(Worker).beats(1), cast(Probe), cast(Worker)]),
        once("power", &[cast(Client), cast(Client)]).with_power_loss(),
        once("probe", &[cast(Client).beats(1), cast(Client), cast(Probe)]),
        once("steps", &[cast(Client).steps(2), cast(Client), cast(Probe)]),
        once("confused", &[cast(Client), cast(Confused)]),
        once("second run", &[cast(Client), Cast::new(Client, 2), cast(Probe)]),
        once("named", &[cast(Named), cast(Client)]),
        once("operator", &[cast(Client), cast(Client), cast(Operator)]),
        once("warden", &[cast(Client), cast(Submitter), cast(Warden)]),
        once("warden of a job", &[cast(Client), cast(Submitter), cast(Warden)]).of_a_job(),
        resume("wardens of a job", &[cast(Client), cast(Client), cast(Warden)]).of_a_job(),
        resume("patience with a job", &[cast(Client), cast(Patient)]).of_a_job(),
        resume("patience elsewhere", &[cast(Client), cast(Patient)]),
        resume("takes", &[cast(Submitter), cast(Worker).beats(1), cast(Worker)]),
        resume("steps of workers", &[cast(Submitter), cast(Worker).steps(1), cast(Worker)]),
        once("reaper", &[cast(Client), cast(Submitter), cast(Reaper)]),
        resume("parked", &[cast(Client), cast(Submitter), cast(Reaper)]),
        Scenario::new("submitted", AtMostOnce, 2, &[cast(Client), cast(Submitter), cast(Worker)]),
        resume("takeover", &[cast(Client).beats(1).clock(9), cast(Client)]),
        resume("takeover of steps", &[cast(Client).steps(1), cast(Client)]),
        resume("undriven", &[cast(Client), cast(Worker)]),
        resume("planned", &[cast(Client), cast(Planner), cast(Worker)]),
        resume("driven", &[cast(Completer), cast(Worker)]),
        resume("doubt", &[cast(Client).doubts(1), cast(Client)]),
        once("filed", &[cast(Client), cast(Filer), cast(Operator)]),
        resume("payloads", &[cast(Submitter), cast(Worker), cast(Clerk)]).dropping_payloads(),
        once("payloads at most once", &[cast(Submitter), cast(Worker), cast(Clerk)]).dropping_payloads(),
        once("operator of accepted", &[cast(Client), cast(Submitter), cast(Operator)]),
    ]
}

/// Whether anybody in the run comes by the guard at all.
fn concerns(scenario: &Scenario, guard: Guard) -> bool {
    use crate::guards::Of;
    let has = |roles: &[Role]| scenario.cast.iter().any(|cast| roles.contains(&cast.role));
    match guard.of {
        Of::Accept => has(&[Submitter, Planner, Filer, Confused]),
        Of::Take => has(&[Worker]),
        Of::Lapse => has(&[Reaper]),
        Of::Extend => scenario.cast.iter().any(|cast| cast.beats > 0),
        Of::Checkpoint => scenario.cast.iter().any(|cast| cast.steps > 0),
        Of::Resolve => has(&[Probe, Operator]),
        Of::Revive | Of::Discard => has(&[Operator]),
        Of::ForceRelease => has(&[Warden]),
        Of::Postpone => has(&[Breaker]),
        Of::DropPayload => has(&[Clerk]),
        Of::Any | Of::Claim | Of::Complete | Of::Release | Of::Retry | Of::MarkUnknown | Of::Around => true,
    }
}

/// Looks for the invariant in one run without the guard: how it was broken, if it was.
fn misses(scenario: Scenario, guard: Guard) -> Option<&'static str> {
    let property = property_of(guard.breaks);
    let found = HasDiscoveries::AnyOf([property].into());
    let checker = Ledger::new(scenario.without(guard)).checker().threads(2);
    let checker = checker.finish_when(found).target_state_count(STATES_MAX).spawn_bfs().join();
    checker.discovery(property).and_then(|path| path.last_state().broken).map(|broken| broken.how)
}

#[test]
fn with_every_guard_in_place_nothing_is_broken() {
    let states = AtomicUsize::new(0);
    for scenario in small() {
        let name = scenario.name;
        let checker = Ledger::new(scenario).checker().threads(2).spawn_bfs().join();
        let broken: Vec<_> =
            checker.discoveries().into_values().map(|path| path.last_state().broken).collect();
        assert!(broken.is_empty(), "{name}: {broken:?}");
        println!("{name}: {} states", checker.unique_state_count());
        states.fetch_add(checker.unique_state_count(), Ordering::Relaxed);
    }
    println!("{} states in all", states.into_inner());
}

#[test]
fn without_any_one_guard_its_invariant_is_broken() {
    let mut unmissed = Vec::new();
    for guard in GUARDS {
        let Guard { says, of, lie, breaks } = guard;
        let runs = small().into_iter().filter(|scenario| concerns(scenario, *guard));
        let found = runs.map(|run| (run.name, misses(run, *guard))).find(|(_, how)| how.is_some());
        match found {
            Some((run, how)) => println!("{breaks:?} without \"{of:?}: {says}\" [{run}]: {}", how.unwrap()),
            None => unmissed.push(format!("{breaks:?} without \"{of:?}: {says}\" ({lie:?})")),
        }
    }
    assert!(unmissed.is_empty(), "not missed by the model: {unmissed:#?}");
}

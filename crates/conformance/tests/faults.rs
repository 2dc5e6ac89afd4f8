//! The ledger over a store that fails (L1, L4, L12): every command with its answer lost, before the commit and after.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as its tests do")]

use std::sync::Arc;
use std::time::Duration;

use semel_conformance::faulty::{Fault, Faulty};
use semel_conformance::fixture::{Ask, Counting, Hand, claim_holder, claim_key, outcome};
use semel_core::command::{
    Accept, AddCheckpoint, Claimed, Command, Complete, Discard, Effect, Extend, ForceRelease, Held,
    MarkUnknown, Postpone, Release, Resolution, Resolve, Retry, Revive, Take,
};
use semel_core::id::{AttemptId, Holder, Key, Namespace, Phase};
use semel_core::ledger::{Abandoned, Change, LedgerErrorKind};
use semel_core::limits;
use semel_core::record::{Checkpoint, StateName, Why};
use semel_core::{Ledger, Record, Request, Store, Timestamp};
use semel_stores::clock::SteppedClock;
use semel_stores::memory::MemoryStore;

struct World {
    clock: SteppedClock,
    memory: Arc<MemoryStore>,
    faulty: Arc<Faulty>,
    /// Over the store that fails.
    ledger: Ledger,
    /// Over the store itself.
    hand: Hand,
}

fn world() -> World {
    let clock = SteppedClock::at(Timestamp::from_millis(1_700_000_000_000));
    let memory = Arc::new(MemoryStore::with_clock(Arc::new(clock.clone())));
    let faulty = Arc::new(Faulty::over(Arc::clone(&memory) as Arc<dyn Store>, 1));
    let ledger = Ledger::new(Arc::clone(&faulty) as Arc<dyn Store>, Arc::new(Counting::from(1 << 32)));
    let hand = Hand::on(Arc::clone(&memory) as Arc<dyn Store>);
    World { clock, memory, faulty, ledger, hand }
}

/// How a command's answer gets lost, and how often the ledger may try again before it gives up.
fn losses() -> Vec<Vec<Fault>> {
    let mut losses = Vec::new();
    for fault in [Fault::LostBefore, Fault::LostAfter, Fault::Late] {
        for times in 1..=limits::DOUBTS_MAX as usize + 1 {
            losses.push(vec![fault; times]);
        }
        losses.push(vec![fault, Fault::Refused]);
    }
    losses.push(vec![Fault::Refused]);
    losses.push(vec![Fault::Late, Fault::LostBefore, Fault::LostAfter, Fault::Late]);
    losses
}

/// A command on a record that `prepare` brings about: whatever was lost, said again it comes to what it would have
/// come to, once.
async fn survives_lost_answers<C, P, M>(prepare: P, command: M)
where
    C: Command,
    C::Answer: std::fmt::Debug,
    P: AsyncFn(&World) -> Arc<Record>,
    M: Fn(&Arc<Record>) -> C,
{
    let plain = world();
    let before = prepare(&plain).await;
    let answer = format!("{:?}", plain.hand.ledger.apply(&command(&before)).await.unwrap());
    let expected = plain.hand.stored(before.id()).await;

    for faults in losses() {
        let world = world();
        let before = prepare(&world).await;
        let command = command(&before);
        world.faulty.script(&faults);
        let first = world.ledger.apply(&command).await;
        let unmet = world.faulty.script_left();
        world.faulty.script(&[]);
        if let Err(error) = &first {
            let refused = faults == [Fault::Refused];
            let kind = if refused { LedgerErrorKind::Unavailable } else { LedgerErrorKind::InDoubt };
            assert_eq!(error.kind(), kind, "{faults:?}");
            if refused {
                assert_eq!(world.hand.stored(before.id()).await.as_ref(), Some(&before), "nothing happened");
            }
        }
        let said_again = first.is_err();
        let told = match first {
            Ok(told) => told,
            Err(_) => world.ledger.apply(&command).await.unwrap(),
        };
        assert_eq!(format!("{told:?}"), answer, "{faults:?}, {unmet} unmet, said again: {said_again}");
        assert_eq!(world.hand.stored(before.id()).await, expected, "{faults:?}");
        // What arrives when everything is over finds nothing to change (L6).
        assert_eq!(world.faulty.land().await, 0, "{faults:?}");
        assert_eq!(world.hand.stored(before.id()).await, expected, "{faults:?}");
    }
}

async fn running(world: &World) -> Arc<Record> {
    Arc::clone(world.hand.claim(&Ask::key("a")).await.record())
}

async fn taken(world: &World) -> Arc<Record> {
    let pending = world.hand.accept(&Ask::key("a")).await;
    let take = Take { id: pending.id(), token: claim_holder(&Ask::key("a"), 7).token };
    world.hand.ledger.apply(&take).await.unwrap();
    world.hand.stored(pending.id()).await.unwrap()
}

fn holder(record: &Arc<Record>) -> Holder {
    Holder { id: record.id(), token: record.token().unwrap() }
}

#[tokio::test]
async fn l12_a_claim_survives_lost_answers() {
    let ask = Ask::key("a").retention_ms(5);
    // Nothing is there; or an expired record; or a released one; or a lapsed claim that is taken over.
    let claim = |record: &Arc<Record>| {
        let _ = record;
        claim_key(&Ask::key("a").retention_ms(5), 9)
    };
    survives_lost_answers(
        async |world| {
            let done = world.hand.complete(&ask).await;
            world.clock.advance(Duration::from_millis(10));
            done
        },
        claim,
    )
    .await;
    survives_lost_answers(async |world| world.hand.in_state(&ask, StateName::Released).await, claim).await;
    let resumed = Ask::key("a").resume().lease_ms(100);
    survives_lost_answers(
        async |world| {
            let first = Arc::clone(world.hand.claim(&resumed).await.record());
            world.clock.advance(Duration::from_millis(100));
            first
        },
        |_| claim_key(&Ask::key("a").resume().lease_ms(100), 9),
    )
    .await;
}

#[tokio::test]
async fn l12_a_first_claim_and_a_first_acceptance_survive_lost_answers() {
    for faults in losses() {
        for accepts in [false, true] {
            let world = world();
            let ask = Ask::key("a");
            world.faulty.script(&faults);
            if accepts {
                let accept = Accept::try_new(ask.request()).unwrap();
                if world.ledger.apply(&accept).await.is_err() {
                    world.faulty.script(&[]);
                    world.ledger.apply(&accept).await.unwrap();
                }
            } else {
                let claim = claim_key(&ask, 9);
                let mut told = world.ledger.apply(&claim).await;
                if told.is_err() {
                    world.faulty.script(&[]);
                    told = world.ledger.apply(&claim).await;
                }
                assert!(matches!(told, Ok(Claimed::Granted(_))), "{faults:?}: {told:?}");
            }
            world.faulty.script(&[]);
            let stored = world.hand.stored(ask.id()).await.unwrap();
            assert_eq!((stored.fence().0, stored.version().sequence), (1, 0), "once");
            assert_eq!(world.faulty.land().await, 0);
            assert_eq!(world.hand.stored(ask.id()).await, Some(stored));
        }
    }
}

#[tokio::test]
async fn l12_a_holders_commands_survive_lost_answers() {
    survives_lost_answers(running, |record| Complete { holder: holder(record), outcome: outcome("done") })
        .await;
    survives_lost_answers(running, |record| Release { holder: holder(record), error: "refused".into() })
        .await;
    let (why, phase) = (Why::AnswerLost, || Phase::try_new("charge").unwrap());
    survives_lost_answers(running, |record| MarkUnknown {
        holder: holder(record),
        why,
        detail: "reset".into(),
    })
    .await;
    survives_lost_answers(running, |record| AddCheckpoint {
        holder: holder(record),
        checkpoint: Checkpoint::try_new(phase(), "done".into()).unwrap(),
    })
    .await;
    for permanent in [false, true] {
        survives_lost_answers(taken, |record| Retry {
            holder: holder(record),
            error: "503".into(),
            pause: Duration::from_secs(5),
            effect: Effect::None,
            permanent,
        })
        .await;
    }
}

#[tokio::test]
async fn l12_a_heartbeat_survives_lost_answers() {
    // Said again it renews again: the version may be another, the lease is the same.
    for faults in losses() {
        let world = world();
        let record = running(&world).await;
        world.faulty.script(&faults);
        let extend = Extend { holder: holder(&record) };
        let told = world.ledger.apply(&extend).await;
        world.faulty.script(&[]);
        let told = if told.is_err() { world.ledger.apply(&extend).await } else { told };
        let Ok(Held::Done(renewed)) = told else { panic!("{told:?}") };
        assert_eq!((renewed.fence(), renewed.times().wake), (record.fence(), record.times().wake));
        assert_eq!(world.faulty.land().await, 0, "L6");
    }
}

#[tokio::test]
async fn l12_a_workers_and_an_operators_commands_survive_lost_answers() {
    let token = claim_holder(&Ask::key("a"), 9).token;
    let (actor, reason) = (|| "op".into(), || "asked the bank".into());
    let in_state = |state| async move |world: &World| world.hand.in_state(&Ask::key("a"), state).await;
    survives_lost_answers(in_state(StateName::Pending), |record| Take { id: record.id(), token }).await;
    for state in [StateName::Unknown, StateName::Dead] {
        for resolution in [Resolution::NotExecuted, Resolution::Completed(outcome("found"))] {
            survives_lost_answers(in_state(state), |record| Resolve {
                id: record.id(),
                version: record.version(),
                resolution: resolution.clone(),
                actor: actor(),
                reason: reason(),
                correlation_id: None,
            })
            .await;
        }
    }
    for state in [StateName::Pending, StateName::Unknown, StateName::Dead] {
        survives_lost_answers(in_state(state), |record| Discard {
            id: record.id(),
            version: record.version(),
            actor: actor(),
            reason: reason(),
            correlation_id: None,
        })
        .await;
    }
    survives_lost_answers(in_state(StateName::Dead), |record| Revive {
        id: record.id(),
        version: record.version(),
        actor: actor(),
        reason: reason(),
        correlation_id: None,
    })
    .await;
    survives_lost_answers(in_state(StateName::Pending), |record| Postpone {
        id: record.id(),
        version: record.version(),
        pause: Duration::from_secs(5),
    })
    .await;
    let guard = async |world: &World| {
        Arc::clone(world.hand.claim(&Ask::key("a").namespace(Namespace::Job)).await.record())
    };
    survives_lost_answers(guard, |record| ForceRelease {
        id: record.id(),
        version: record.version(),
        actor: actor(),
        reason: reason(),
        correlation_id: None,
    })
    .await;
}

#[tokio::test]
async fn l12_an_end_that_a_worker_comes_upon_survives_lost_answers() {
    let token = claim_holder(&Ask::key("a"), 9).token;
    let lapsed = async |world: &World| {
        let record = Arc::clone(world.hand.claim(&Ask::key("a").lease_ms(100)).await.record());
        world.clock.advance(Duration::from_millis(100));
        record
    };
    let spent = async |world: &World| {
        let ask = Ask::key("a").resume().lease_ms(100).tries(1);
        let pending = world.hand.accept(&ask).await;
        world.hand.ledger.take(&pending).await.unwrap();
        world.clock.advance(Duration::from_millis(100));
        world.hand.stored(pending.id()).await.unwrap()
    };
    survives_lost_answers(lapsed, |record| Take { id: record.id(), token }).await;
    survives_lost_answers(spent, |record| Take { id: record.id(), token }).await;
    survives_lost_answers(lapsed, |_| claim_key(&Ask::key("a").lease_ms(100), 9)).await;
}

#[tokio::test]
async fn l12_a_reapers_lapse_survives_lost_answers() {
    // Whoever says it again may be told that it was seen before: a reaper has no name to know it by.
    for faults in losses() {
        let world = world();
        let record = Arc::clone(world.hand.claim(&Ask::key("a").lease_ms(100)).await.record());
        world.clock.advance(Duration::from_millis(100));
        world.faulty.script(&faults);
        let told = world.ledger.lapse(record.id()).await;
        world.faulty.script(&[]);
        if told.is_err() {
            world.ledger.lapse(record.id()).await.unwrap();
        }
        let unknown = world.hand.stored(record.id()).await.unwrap();
        assert_eq!(
            (unknown.state().name(), unknown.version()),
            (StateName::Unknown, record.version().next())
        );
        assert_eq!(world.faulty.land().await, 0, "L6");
    }
}

#[tokio::test]
async fn l12_a_failed_read_is_never_absent_and_nothing_runs() {
    let world = world();
    let ask = Ask::key("a");
    world.hand.complete(&ask).await;
    world.faulty.reads_fail(100);
    let error = world.ledger.load(ask.id()).await.unwrap_err();
    assert_eq!(error.kind(), LedgerErrorKind::Unavailable);
    world.faulty.script(&[Fault::LostBefore]);
    let error = world.ledger.claim(ask.request(), None).await.unwrap_err();
    assert_eq!(error.kind(), LedgerErrorKind::InDoubt, "a failed read does not settle a doubt");
    world.faulty.script(&[Fault::Refused]);
    let error = world.ledger.claim(Ask::key("b").request(), None).await.unwrap_err();
    assert_eq!((error.kind(), error.orphan()), (LedgerErrorKind::Unavailable, None));
}

#[tokio::test]
async fn l12_an_orphan_claim_is_given_back_when_it_is_found_also_if_it_lands_late() {
    for last in [Fault::LostAfter, Fault::Late] {
        let world = world();
        let ask = Ask::key("a");
        world.faulty.script(&[last]);
        world.faulty.reads_fail(1);
        let error = world.ledger.claim(ask.request(), None).await.unwrap_err();
        assert_eq!(error.kind(), LedgerErrorKind::InDoubt);
        let orphan = error.orphan().unwrap();
        if last == Fault::Late {
            assert_eq!(world.ledger.abandon(orphan).await.unwrap(), Abandoned::NotFound, "not there yet");
            assert_eq!(world.faulty.land().await, 1);
        }
        assert!(matches!(world.hand.ledger.claim(ask.request(), None).await.unwrap(), Claimed::Busy { .. }));
        assert_eq!(world.ledger.abandon(orphan).await.unwrap(), Abandoned::GivenBack);
        world.hand.claim(&ask).await;
        let theirs = world.hand.stored(ask.id()).await;
        assert_eq!(theirs.as_ref().unwrap().state().name(), StateName::Running);
        assert_eq!(world.ledger.abandon(orphan).await.unwrap(), Abandoned::GivenBack, "as was said before");
        assert_eq!(world.hand.stored(ask.id()).await, theirs, "L6");
    }
}

#[tokio::test]
async fn a_claim_that_lands_after_its_deadline_has_no_effect() {
    let world = world();
    let ask = Ask::key("a");
    world.faulty.script(&[Fault::Late]);
    world.faulty.reads_fail(1);
    let orphan = world.ledger.claim(ask.request(), None).await.unwrap_err().orphan().unwrap();
    world.clock.advance(limits::WRITE_WITHIN + Duration::from_millis(1));
    assert_eq!(world.faulty.land().await, 0);
    assert_eq!(world.hand.stored(ask.id()).await, None);
    assert_eq!(world.ledger.abandon(orphan).await.unwrap(), Abandoned::NotFound);
}

#[tokio::test]
async fn l12_the_outcome_cannot_be_stored_after_the_effect_so_it_stays_running_and_lapses() {
    let world = world();
    let ask = Ask::key("a").lease_ms(300);
    let Claimed::Granted(claim) = world.ledger.claim(ask.request(), None).await.unwrap() else {
        panic!("granted")
    };
    let seen = Arc::clone(claim.record());
    world.faulty.script(&[Fault::Refused]);
    let error = world.ledger.complete(claim, outcome("charged")).await.unwrap_err();
    assert_eq!((error.kind(), error.orphan()), (LedgerErrorKind::Unavailable, None));
    assert_eq!(world.hand.stored(ask.id()).await, Some(seen), "it is not released");
    assert!(matches!(world.ledger.claim(ask.request(), None).await.unwrap(), Claimed::Busy { .. }));
    world.clock.advance(Duration::from_millis(300));
    assert!(matches!(world.ledger.claim(ask.request(), None).await.unwrap(), Claimed::Unknown(_)), "L7");
}

#[tokio::test]
async fn l4_a_completion_in_doubt_is_settled_before_anyone_is_told() {
    for fault in [Fault::LostBefore, Fault::LostAfter, Fault::Late] {
        let world = world();
        let ask = Ask::key("a");
        let Claimed::Granted(claim) = world.ledger.claim(ask.request(), None).await.unwrap() else {
            panic!("granted")
        };
        world.faulty.script(&[fault]);
        let told = world.ledger.complete(claim, outcome("charged")).await.unwrap();
        let Held::Done(told) = told else { panic!("{told:?}") };
        assert_eq!(world.memory.load(ask.id()).await.unwrap().value.as_ref(), Some(&told), "it is there");
        assert_eq!(world.faulty.land().await, 0, "and what lands late changes nothing (L3)");
        assert_eq!(world.hand.stored(ask.id()).await, Some(told));
    }
}

#[tokio::test]
async fn l8_a_decision_that_its_records_expiry_overtakes_is_decided_anew() {
    let world = world();
    let ask = || Ask::key("a").retention_ms(1_000);
    let released = world.hand.in_state(&ask(), StateName::Released).await;
    world.clock.advance(Duration::from_millis(999));
    let clock = world.clock.clone();
    world.faulty.before_next_write(move || clock.advance(Duration::from_millis(1)));
    let claimed = world.ledger.apply(&claim_key(&ask(), 9)).await.unwrap();
    let Claimed::Granted(claim) = claimed else { panic!("{claimed:?}") };
    assert_eq!(claim.attempt(), 1, "a new life");
    assert!(claim.fence() > released.fence(), "L2");
}

#[tokio::test]
async fn l12_a_store_that_refuses_around_an_expiry_is_asked_once_more_and_nothing_runs() {
    let world = world();
    let ask = || Ask::key("a").retention_ms(1_000);
    let released = world.hand.in_state(&ask(), StateName::Released).await;
    world.clock.advance(Duration::from_millis(999));
    world.faulty.script(&[Fault::Refused, Fault::Refused]);
    let refused = world.ledger.apply(&claim_key(&ask(), 9)).await.unwrap_err();
    assert_eq!((refused.kind(), world.faulty.script_left()), (LedgerErrorKind::Unavailable, 0));
    assert_eq!(world.hand.stored(released.id()).await, Some(released.clone()), "nothing happened");

    world.faulty.script(&[Fault::Refused]);
    let faulty = Arc::clone(&world.faulty);
    world.faulty.before_next_write(move || faulty.reads_fail(1));
    let unread = world.ledger.apply(&claim_key(&ask(), 9)).await.unwrap_err();
    assert_eq!(unread.kind(), LedgerErrorKind::Unavailable, "no answer is never an absence");
    assert_eq!(world.hand.stored(released.id()).await, Some(released), "nothing happened");
}

#[tokio::test]
async fn a_repeated_command_says_that_it_has_written_nothing_and_a_doubtful_one_that_it_may_have() {
    let world = world();
    let request = Arc::clone(world.hand.claim(&Ask::key("other")).await.record().request());
    let attempt = || Some(AttemptId::try_new("try-1").unwrap());
    let request = Arc::new(Request::new(
        request.scope().clone(),
        Key::try_new("a").unwrap(),
        request.operation().clone(),
        *request.fingerprint(),
        *request.policy(),
    ));
    let first = world.ledger.claim_applied(Arc::clone(&request), attempt()).await.unwrap();
    assert_eq!(first.change, Some(Change { from: None }));
    let again = world.ledger.claim_applied(request, attempt()).await.unwrap();
    assert_eq!((&again.answer, again.change), (&first.answer, None), "the same claim, and nothing new");
    let Claimed::Granted(claim) = first.answer else { panic!("granted") };

    let complete = Complete { holder: claim.holder(), outcome: outcome("done") };
    world.faulty.script(&[Fault::LostAfter]);
    let first = world.ledger.apply_told(&complete).await.unwrap();
    let from = first.change.unwrap().from.unwrap();
    assert_eq!(
        from.state().name(),
        StateName::Running,
        "its answer was lost, and it was this one that wrote"
    );
    let again = world.ledger.apply_told(&complete).await.unwrap();
    assert_eq!((again.answer, again.change), (first.answer, None));
}

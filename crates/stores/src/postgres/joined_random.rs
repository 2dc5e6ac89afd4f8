//! Claims in transactions, after random histories outside of them, held against core's own `decide`: what each must answer,
//! to the last byte, and what it leaves behind when it is committed and when it is not.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use semel_conformance::chance::Chance;
use semel_conformance::fixture::{Ask, Hand, claim_holder, claim_key, outcome, token_of};
use semel_conformance::random;
use semel_core::command::{Accept, Claimed, Command, Complete, MarkUnknown, Release, Verdict};
use semel_core::id::Fence;
use semel_core::invariant::judge_step;
use semel_core::record::Why;
use semel_core::write::Write;
use semel_core::{Record, Store, Timestamp};

use super::Joined;
use super::testing::{Stepped, client, url};

/// Keys of a history: few, so that what comes meets what was there.
const KEYS: u64 = 8;

fn commands() -> u64 {
    if random::is_full() { 10_000 } else { 600 }
}

fn ask(key: u64) -> Ask {
    let ask = Ask::key(&format!("key-{key}")).lease_ms(100 + key * 40).retention_ms(150 + key * 70);
    if key.is_multiple_of(3) { ask.resume() } else { ask }
}

/// Somebody does something by another door, or begins something and does not end it.
async fn happens_outside(hand: &Hand, ask: &Ask, chance: &mut Chance) {
    if chance.happens(15) {
        drop(hand.ledger.accept(&Accept::try_new(ask.request()).unwrap()).await.unwrap());
        return;
    }
    let Claimed::Granted(claim) = hand.ledger.claim(ask.request(), None).await.unwrap() else { return };
    let holder = claim.holder();
    match chance.below(4) {
        0 => drop(hand.done(&Complete { holder, outcome: outcome("outside") }).await),
        1 => drop(hand.done(&Release { holder, error: "refused".into() }).await),
        2 => {
            let lost = MarkUnknown { holder, why: Why::AnswerLost, detail: "reset".into() };
            drop(hand.done(&lost).await);
        }
        _ => {}
    }
}

/// The record that a write makes of what was there, with the fence that the store gave out.
fn sealed(write: Write, before: Option<&Record>, now: Timestamp, fence: Fence) -> Arc<Record> {
    let expired = before.is_some_and(|record| record.is_expired(now));
    let floor = if write.stamp().raise_fence { Fence(fence.0 - 1) } else { Fence::default() };
    let (record, _) = write.seal(now, floor);
    judge_step(before, expired, &record).unwrap_or_else(|broken| panic!("{broken}"));
    Arc::new(record)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_in_a_transaction_answers_as_core_decides_whatever_came_before() {
    let Some(url) = url() else { return };
    let stepped = Stepped::new(url).await;
    let store = Arc::clone(stepped.store.as_ref().unwrap());
    let hand = Hand::on(Arc::clone(&store) as Arc<dyn Store>);
    let mut client = client(&stepped.schema.server).await;
    let (mut chance, mut seen) = (Chance::new(0x0001_7261), BTreeSet::new());
    for number in 0..commands() {
        let ask = ask(chance.below(KEYS));
        if chance.happens(40) {
            happens_outside(&hand, &ask, &mut chance).await;
        }
        let passes = Duration::from_millis(chance.below(60));
        stepped.schema.pass(passes).await;
        stepped.clock.advance(passes);

        let ask = if chance.happens(8) { ask.operation("refund") } else { ask };
        let before = store.load(ask.id()).await.unwrap();
        let (there, now) = (before.value.as_ref(), before.as_of);
        let verdict = claim_key(&ask, number).decide(there, now);
        let mut transaction = client.transaction().await.unwrap();
        let work = async |_: &mut _, _: &_| Ok::<_, Infallible>(outcome("inside"));
        let joined = store.in_transaction(&mut transaction, ask.request(), token_of(number), work).await;
        let joined = joined.unwrap();
        let is_committed = chance.happens(70);
        if is_committed {
            transaction.commit().await.unwrap();
        } else {
            transaction.rollback().await.unwrap();
        }

        let after = store.load(ask.id()).await.unwrap().value;
        let written = match verdict {
            Verdict::Stay(expected) => {
                assert_eq!(format!("{joined:?}"), format!("{expected:?}"));
                None
            }
            Verdict::Write(write) => {
                let (Joined::Ran(record) | Joined::Unknown(record)) = &joined else { panic!("{joined:?}") };
                let claimed = sealed(*write, there.map(Arc::as_ref), now, record.fence());
                let expected = if matches!(joined, Joined::Ran(_)) {
                    let complete =
                        Complete { holder: claim_holder(&ask, number), outcome: outcome("inside") };
                    let Verdict::Write(write) = complete.decide(Some(&claimed), now) else {
                        panic!("the claim was granted")
                    };
                    sealed(*write, Some(&claimed), now, record.fence())
                } else {
                    claimed
                };
                assert_eq!(*record, expected);
                Some(expected)
            }
        };
        let expected = if is_committed { written.or(before.value) } else { before.value };
        assert_eq!(after, expected, "{number}, committed: {is_committed}");
        seen.insert(format!("{joined:?}").split(['(', ' ']).next().unwrap().to_owned());
    }
    for answer in ["Busy", "Mismatch", "Ran", "Replay", "Unknown"] {
        assert!(seen.contains(answer), "{answer} never came: {seen:?}");
    }
}

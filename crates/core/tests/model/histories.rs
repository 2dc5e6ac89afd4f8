//! Histories of random commands on one key, under a clock that steps both ways, with stale tokens and versions,
//! sweeps, lost writes and repeated commands. The table judges each step; what is here looks back over all of them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use semel_core::id::{Fence, Namespace, Version};
use semel_core::outcome::Outcome;
use semel_core::policy::OnLapse;
use semel_core::record::StateName;
use semel_core::{Record, Timestamp};

use crate::judge::{self, Case};
use crate::orders::{Decision, Laws, Order, Reply, TICK, token_of};

/// One thing in a history.
#[derive(Clone, Debug)]
enum Event {
    /// An order that is carried out; how often it is said again afterwards.
    Say(Saying, u8),
    /// An order whose write is lost before it is durable.
    Lose(Saying),
    /// The clock goes on by so many ticks, or back.
    Step(i8),
    /// The sweep comes by.
    Sweep,
}

/// An order, but for the versions, which only the history knows.
#[derive(Clone, Debug)]
enum Saying {
    Plain(Order),
    Judging(fn(Version) -> Order, Age),
}

/// Which version is judged: mostly the newest.
#[derive(Clone, Debug)]
enum Age {
    Newest,
    Stale(Index),
}

fn sayings() -> impl Strategy<Value = Saying> {
    let token = || 1..4u8;
    let plain = prop_oneof![
        4 => (token(), prop::bool::weighted(0.1), any::<bool>(), prop::option::weighted(0.3, 1..3u8), any::<bool>())
            .prop_map(|(token, other, input, attempt, long)| Order::Claim { token, other, input, attempt, long }),
        2 => (prop::bool::weighted(0.1), prop::bool::weighted(0.2), any::<bool>())
            .prop_map(|(other, dead, later)| Order::Accept { other, dead, later }),
        3 => token().prop_map(|token| Order::Take { token }),
        1 => Just(Order::Lapse),
        2 => Just(Order::DropPayload),
        2 => token().prop_map(|token| Order::Extend { token }),
        2 => (token(), 0..3u8, 0..2u8)
            .prop_map(|(token, phase, data)| Order::Checkpoint { token, phase, data }),
        2 => (token(), 0..2u8).prop_map(|(token, body)| Order::Complete { token, body }),
        2 => token().prop_map(|token| Order::Release { token }),
        2 => (token(), any::<bool>(), any::<bool>())
            .prop_map(|(token, effect, permanent)| Order::Retry { token, effect, permanent }),
        2 => token().prop_map(|token| Order::MarkUnknown { token }),
    ];
    let judging = prop::sample::select(vec![
        (|version| Order::Resolve { version, executed: None }) as fn(Version) -> Order,
        |version| Order::Resolve { version, executed: Some(1) },
        |version| Order::Revive { version },
        |version| Order::Discard { version },
        |version| Order::ForceRelease { version },
        |version| Order::Postpone { version },
    ]);
    let age = prop_oneof![3 => Just(Age::Newest), 1 => any::<Index>().prop_map(Age::Stale)];
    prop_oneof![
        4 => plain.prop_map(Saying::Plain),
        1 => (judging, age).prop_map(|(order, age)| Saying::Judging(order, age)),
    ]
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        10 => (sayings(), 0..3u8).prop_map(|(saying, again)| Event::Say(saying, again)),
        1 => sayings().prop_map(Event::Lose),
        3 => (-3..5i8).prop_map(Event::Step),
        1 => Just(Event::Sweep),
    ]
}

struct History {
    laws: Laws,
    now: Timestamp,
    stored: Option<Arc<Record>>,
    floor: Fence,
    versions: Vec<Version>,
    granted: Vec<(Fence, u8)>,
    /// Orders that have taken effect in this life.
    said: HashSet<Order>,
    /// Claims of this life that nothing excuses.
    starts: u32,
    told: Option<Outcome>,
}

impl History {
    fn new(laws: Laws) -> Self {
        Self {
            laws,
            now: Timestamp::from_millis(1_000_000),
            stored: None,
            floor: Fence(0),
            versions: Vec::new(),
            granted: Vec::new(),
            said: HashSet::new(),
            starts: 0,
            told: None,
        }
    }

    fn order(&self, saying: &Saying) -> Order {
        match saying {
            Saying::Plain(order) => order.clone(),
            Saying::Judging(order, age) => {
                let newest = self.stored.as_ref().map_or_else(Version::default, |record| record.version());
                order(match age {
                    Age::Stale(index) if !self.versions.is_empty() => *index.get(&self.versions),
                    Age::Stale(_) | Age::Newest => newest,
                })
            }
        }
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Say(saying, again) => {
                let order = self.order(saying);
                let mut reply = self.say(&order);
                for _ in 0..*again {
                    reply = self.say_again(&order, &reply);
                }
            }
            // What is not durable is not seen: it is as if it had never been said, and may be said again.
            Event::Lose(saying) => {
                let order = self.order(saying);
                let lost = self.laws.decide(&order, self.stored.as_ref(), self.now);
                let again = self.laws.decide(&order, self.stored.as_ref(), self.now);
                assert_eq!(format!("{lost:?}"), format!("{again:?}"), "deciding has no memory of its own");
            }
            Event::Step(ticks) => {
                let length = TICK * u32::from(ticks.unsigned_abs());
                self.now = if *ticks >= 0 { self.now.plus(length) } else { back(self.now, length) };
            }
            Event::Sweep => {
                if let Some(record) = self.stored.take_if(|record| record.is_expired(self.now)) {
                    self.floor = self.floor.max(record.fence());
                }
            }
        }
    }

    fn say(&mut self, order: &Order) -> Reply {
        let before = self.stored.clone();
        let case = Case { order, before: before.as_deref(), decided: self.now, written: self.now };
        let reply = match self.laws.decide(order, before.as_ref(), self.now) {
            Decision::Stay(reply) => {
                judge::stay(case, &reply)
                    .unwrap_or_else(|broken| panic!("{broken}: {order:?} on {before:?}"));
                reply
            }
            Decision::Write(draft) => {
                let after = self.laws.seal(order, &draft, self.now, self.floor);
                judge::step(case, &after)
                    .unwrap_or_else(|broken| panic!("{broken}: {order:?} on {before:?} gave {after:?}"));
                self.remember(order, before.as_deref(), &after);
                self.stored = Some(Arc::clone(&after));
                self.laws.answer(order, after)
            }
        };
        self.check(order, &reply);
        reply
    }

    fn remember(&mut self, order: &Order, before: Option<&Record>, after: &Record) {
        let newest = self.versions.iter().max();
        assert!(newest.is_none_or(|newest| after.version() > *newest), "L2: {newest:?}, {after:?}");
        self.versions.push(after.version());
        if before.is_none_or(|before| before.is_expired(self.now)) {
            self.said.clear();
            self.starts = 0;
            self.told = None;
        }
        match (order, order.claimant()) {
            (_, Some(token))
                if after.token() == Some(token_of(token)) && after.state().name() == StateName::Running =>
            {
                assert!(
                    self.granted.iter().all(|(fence, _)| *fence < after.fence()),
                    "L2: a fence given twice"
                );
                self.granted.push((after.fence(), token));
                self.starts += 1;
            }
            (
                Order::Release { .. }
                | Order::Retry { effect: false, .. }
                | Order::Resolve { executed: None, .. }
                | Order::Revive { .. }
                | Order::ForceRelease { .. },
                _,
            ) => self.starts = 0,
            _ => {}
        }
        if self.laws.policy().on_lapse() == OnLapse::AtMostOnce {
            assert!(self.starts <= 1, "L7: started twice within one life, and nothing excuses it");
        }
        self.said.insert(order.clone());
    }

    /// What an answer says must be true, and stay true.
    fn check(&mut self, order: &Order, reply: &Reply) {
        let Some(record) = reply.record().filter(|record| !record.is_expired(self.now)) else { return };
        if let Reply::Done(_) | Reply::Ended(_) = reply {
            let held = order.holder().is_some_and(|token| record.token() == Some(token_of(token)));
            assert!(
                held || self.said.contains(order),
                "L6: told that it holds, and it was never said: {order:?}"
            );
        }
        if let Some(outcome) = record.outcome() {
            let told = self.told.get_or_insert_with(|| outcome.clone());
            assert_eq!(told, outcome, "L3, L10: another outcome than was told before");
        }
    }

    /// Repeats an order: the same answer, and nothing changes.
    fn say_again(&mut self, order: &Order, first: &Reply) -> Reply {
        let before = self.stored.clone();
        let again = self.say(order);
        let repeats = match (order, first) {
            // A heartbeat renews: that is what it is for.
            (Order::Extend { .. }, Reply::Done(_)) => {
                assert_eq!(again.name(), "done");
                return again;
            }
            (Order::Accept { .. }, Reply::Accepted(_)) => &["duplicate"],
            (Order::Lapse, Reply::Unknown(_) | Reply::Parked(_)) | (Order::DropPayload, Reply::Gone(_)) => {
                &["nothing"]
            }
            (_, first) => &[first.name()],
        };
        assert!(repeats.contains(&again.name()), "{order:?} was {}, and then {}", first.name(), again.name());
        assert_eq!(before, self.stored, "a repeated command changes nothing: {order:?}");
        again
    }

    /// Accepted work, driven by workers and the reaper, comes to an end by name (L9).
    fn end(&mut self) {
        let accepted =
            self.stored.as_ref().is_some_and(|record| record.accepted() && !record.is_expired(self.now));
        for token in 10..40 {
            let Some(due) = self.stored.as_ref().and_then(|record| record.due()) else { break };
            self.now = self.now.max(due);
            self.say(&Order::Lapse);
            self.say(&Order::Take { token });
            self.say(&Order::DropPayload);
        }
        let state = self.stored.as_ref().map(|record| record.state().name());
        let ended = [StateName::Completed, StateName::Dead, StateName::Unknown];
        assert!(!accepted || state.is_some_and(|state| ended.contains(&state)), "L9: it ends {state:?}");
    }
}

fn back(now: Timestamp, length: Duration) -> Timestamp {
    Timestamp::from_millis(now.as_millis() - u64::try_from(length.as_millis()).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_history_keeps_the_invariants(
        events in prop::collection::vec(events(), 1..60),
        once in any::<bool>(),
        attempts in 1..4u32,
        job in prop::bool::weighted(0.2),
        drops in any::<bool>(),
    ) {
        let on_lapse = if once { OnLapse::AtMostOnce } else { OnLapse::Resume };
        let namespace = if job { Namespace::Job } else { Namespace::Execute };
        let laws = Laws::new(on_lapse, attempts, namespace);
        let mut history = History::new(if drops { laws.dropping_payloads() } else { laws });
        for event in &events {
            history.happen(event);
        }
        history.end();
    }
}

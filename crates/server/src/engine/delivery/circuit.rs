//! Circuits: a target that fails time and again is left alone for a while, so that it can come back, and so that events
//! do not spend their tries on it.
//!
//! The dispatcher asks before it takes anything. While a circuit is *open* its lane is passed over: nothing is written and
//! no try is spent. After a pause it is *half open*: one event is let through, and what becomes of it closes the circuit or
//! opens it again, for twice as long. Each process judges by what it has met itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use semel_core::id::Lane;
use tokio::time::Instant;

use crate::config::DeliveryTarget;
use crate::limits;

/// Where a circuit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitState {
    /// Everything goes through.
    Closed,
    /// One event goes through, to see.
    HalfOpen,
    /// Nothing goes through.
    Open,
}

impl CircuitState {
    /// The name in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// All circuits that are not as they began, by the lane of their target.
#[derive(Debug, Default)]
pub(in crate::engine) struct Circuits(Mutex<HashMap<Lane, Circuit>>);

#[derive(Debug)]
struct Circuit {
    target: Arc<DeliveryTarget>,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// So many failures since the last success.
    Closed {
        failures: u32,
    },
    HalfOpen {
        pause: Duration,
    },
    Open {
        until: Instant,
        pause: Duration,
    },
}

impl Circuits {
    /// How many more tries may begin on this lane, with so many under way; and the circuit that has become half open by it.
    pub(in crate::engine) fn room(
        &self,
        lane: &Lane,
        under_way: usize,
    ) -> (usize, Option<Arc<DeliveryTarget>>) {
        let mut circuits = self.0.lock();
        let Some(circuit) = circuits.get_mut(lane) else { return (usize::MAX, None) };
        let one = usize::from(under_way == 0);
        match circuit.state {
            State::Closed { .. } => (usize::MAX, None),
            State::HalfOpen { .. } => (one, None),
            State::Open { until, .. } if Instant::now() < until => (0, None),
            State::Open { pause, .. } => {
                circuit.state = State::HalfOpen { pause };
                (one, Some(Arc::clone(&circuit.target)))
            }
        }
    }

    /// A try has ended, by which the target works or fails (`None`: it says nothing of it); where the circuit stands, if
    /// that has changed.
    pub(in crate::engine) fn heard(
        &self,
        lane: &Lane,
        target: &Arc<DeliveryTarget>,
        works: Option<bool>,
    ) -> Option<CircuitState> {
        let mut circuits = self.0.lock();
        if works? {
            let was = circuits.remove(lane)?;
            return (!matches!(was.state, State::Closed { .. })).then_some(CircuitState::Closed);
        }
        let new = || Circuit { target: Arc::clone(target), state: State::Closed { failures: 0 } };
        let circuit = circuits.entry(lane.clone()).or_insert_with(new);
        let pause = match circuit.state {
            State::Closed { failures } if failures + 1 < limits::CIRCUIT_FAILURES => {
                circuit.state = State::Closed { failures: failures + 1 };
                return None;
            }
            State::Closed { .. } => limits::CIRCUIT_FIRST,
            State::HalfOpen { pause } => (pause * 2).min(limits::CIRCUIT_CAP),
            // Begun before it opened: that is known by now.
            State::Open { .. } => return None,
        };
        circuit.state = State::Open { until: Instant::now() + pause, pause };
        Some(CircuitState::Open)
    }

    /// Closes all of them: who has changed the configuration wants to know whether that has helped.
    pub(in crate::engine) fn reset(&self) -> Vec<Arc<DeliveryTarget>> {
        let all = std::mem::take(&mut *self.0.lock());
        let open = all.into_values().filter(|circuit| !matches!(circuit.state, State::Closed { .. }));
        open.map(|circuit| circuit.target).collect()
    }
}

#[cfg(test)]
mod tests {
    use semel_webhook::Statuses;

    use super::*;

    fn target() -> Arc<DeliveryTarget> {
        Arc::new(DeliveryTarget {
            source: "s".into(),
            name: "t".into(),
            url: "http://127.0.0.1:1/".parse().unwrap(),
            signer: None,
            statuses: Statuses::default(),
            ordered: false,
        })
    }

    fn fail(circuits: &Circuits, lane: &Lane, times: u32) -> Option<CircuitState> {
        let mut last = None;
        for _ in 0..times {
            last = circuits.heard(lane, &target(), Some(false));
        }
        last
    }

    #[tokio::test(start_paused = true)]
    async fn a_circuit_opens_by_failures_in_a_row_and_lets_one_through_after_its_pause() {
        let (circuits, lane) = (Circuits::default(), Lane::try_new("l").unwrap());
        assert_eq!(fail(&circuits, &lane, limits::CIRCUIT_FAILURES - 1), None);
        assert_eq!(circuits.heard(&lane, &target(), Some(true)), None, "a success in between");
        assert_eq!(fail(&circuits, &lane, limits::CIRCUIT_FAILURES - 1), None);
        assert_eq!(circuits.heard(&lane, &target(), None), None, "says nothing of the target");
        assert_eq!(circuits.room(&lane, 0).0, usize::MAX);
        assert_eq!(fail(&circuits, &lane, 1), Some(CircuitState::Open));
        assert_eq!(circuits.room(&lane, 0), (0, None));
        tokio::time::advance(limits::CIRCUIT_FIRST).await;
        assert_eq!(
            circuits.room(&lane, 1),
            (0, Some(target())),
            "half open, and something is still under way"
        );
        assert_eq!(circuits.room(&lane, 0), (1, None));
        assert_eq!(fail(&circuits, &lane, 1), Some(CircuitState::Open), "it has not come back");
        tokio::time::advance(limits::CIRCUIT_FIRST).await;
        assert_eq!(circuits.room(&lane, 0), (0, None), "twice as long");
        tokio::time::advance(limits::CIRCUIT_FIRST).await;
        assert_eq!(circuits.room(&lane, 0), (1, Some(target())));
        assert_eq!(circuits.heard(&lane, &target(), Some(true)), Some(CircuitState::Closed));
        assert_eq!(circuits.room(&lane, 7), (usize::MAX, None));
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_has_an_end_and_failures_of_tries_begun_before_do_not_lengthen_it() {
        let (circuits, lane) = (Circuits::default(), Lane::try_new("l").unwrap());
        fail(&circuits, &lane, limits::CIRCUIT_FAILURES + 20);
        tokio::time::advance(limits::CIRCUIT_FIRST).await;
        for _ in 0..20 {
            assert_eq!(circuits.room(&lane, 0).0, 1);
            fail(&circuits, &lane, 1);
            tokio::time::advance(limits::CIRCUIT_CAP).await;
        }
        assert_eq!(circuits.reset(), [target()]);
        assert_eq!(circuits.room(&lane, 0), (usize::MAX, None));
    }
}

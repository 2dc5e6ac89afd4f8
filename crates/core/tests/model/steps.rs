//! What can happen next. What comes of it is in [`effects`](crate::effects).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use semel_core::id::Fence;
use semel_core::lease::Lease;
use semel_core::policy::OnLapse;
use semel_core::record::StateName;
use semel_core::{Invariant, Record, Timestamp};
use stateright::{Model, Property};

use crate::effects::{body_of, token_number};
use crate::guards::Guard;
use crate::orders::{LEASE, LONG, Order};
use crate::scenario::{Cast, Role, Scenario, Sight};
use crate::world::{Actor, Claim, Mind, Past, Target, Work, World};

/// One thing that happens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Time goes on.
    Tick,
    /// An actor gives an order: it reads, decides, and sends what is to be written.
    Order(usize, Order),
    /// An actor looks at the record, and makes up its mind.
    Look(usize, Order),
    /// It says what it made up its mind to.
    Say(usize),
    /// An actor no longer waits for the answer to its write.
    Doubt(usize),
    /// In doubt, it decides again.
    Again(usize),
    /// In doubt about a claim, it tells its caller so, and gives back what may be there.
    Abandon(usize),
    /// In doubt, it forgets about it.
    Forget(usize),
    /// An actor loses its memory. What it has sent is still on its way.
    Crash(usize),
    /// A write reaches the store.
    Arrive(usize),
    /// What was written is durable.
    Sync,
    /// What was not durable is gone.
    PowerLoss,
    /// A holder sends the work to the target.
    Send(usize),
    /// A request reaches the target, which does it or refuses it.
    Reach(usize, bool),
}

/// The model: a scenario, and what was seen in it.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) scenario: Scenario,
    seen: [AtomicU64; Sight::COUNT],
}

/// Properties, by the ids that have one.
const IDS: [(Invariant, &str); 11] = [
    (Invariant::L1, "L1"),
    (Invariant::L2, "L2"),
    (Invariant::L3, "L3"),
    (Invariant::L4, "L4"),
    (Invariant::L5, "L5"),
    (Invariant::L6, "L6"),
    (Invariant::L7, "L7"),
    (Invariant::L8, "L8"),
    (Invariant::L9, "L9"),
    (Invariant::L10, "L10"),
    (Invariant::L13, "L13"),
];

impl Model for Ledger {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let actor = |cast: &Cast| Actor {
            mind: Mind::Idle,
            orders: cast.orders,
            doubts: cast.doubts,
            crashes: cast.crashes,
            tokens: 0,
        };
        let is_patient = |cast: &Cast| cast.role == Role::Patient;
        let longest = if self.scenario.cast.iter().any(is_patient) { LONG } else { LEASE };
        vec![World {
            now: Timestamp::from_millis(1_000_000),
            stored: None,
            unsynced: None,
            floor: Fence(0),
            flights: Vec::new(),
            sendings: Vec::new(),
            actors: self.scenario.cast.iter().map(actor).collect(),
            target: Target::default(),
            past: Past::default(),
            broken: None,
            longest,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.broken.is_some() {
            return;
        }
        actions.push(Action::Tick);
        for at in 0..world.actors.len() {
            self.actions_of(world, at, actions);
        }
        if world.unsynced.is_some() {
            actions.push(Action::Sync);
            actions.push(Action::PowerLoss);
        } else {
            actions.extend((0..world.flights.len()).map(Action::Arrive));
        }
        for at in 0..world.sendings.len() {
            actions.push(Action::Reach(at, true));
            if world.sendings[at].fence > world.target.cancelled {
                actions.push(Action::Reach(at, false));
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        let broken = self.happen(&mut next, action).and_then(|()| self.holds(&next));
        next.broken = broken.err();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        // One property for each id; the conditions are functions and cannot capture it.
        macro_rules! unbroken {
            ($($id:ident),*) => {
                vec![$(Property::always(stringify!($id), |_, world: &World| {
                    world.broken.is_none_or(|broken| broken.id != Invariant::$id)
                })),*]
            };
        }
        let properties = unbroken!(L1, L2, L3, L4, L5, L6, L7, L8, L9, L10, L13);
        debug_assert!(properties.iter().zip(IDS).all(|(property, (_, name))| property.name == name));
        properties
    }
}

/// The property that holds this invariant.
pub(crate) fn property_of(id: Invariant) -> &'static str {
    IDS.iter().find(|(known, _)| *known == id).map(|(_, name)| *name).unwrap()
}

impl Ledger {
    pub(crate) fn new(scenario: Scenario) -> Self {
        Self { scenario, seen: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// How often it was seen.
    pub(crate) fn seen(&self, sight: Sight) -> u64 {
        self.seen[sight as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn see(&self, sight: Sight) {
        self.seen[sight as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn lacks(&self, guard: Guard) -> bool {
        self.scenario.laws.missing == Some(guard)
    }

    pub(crate) fn at_most_once(&self) -> bool {
        self.scenario.laws.policy().on_lapse() == OnLapse::AtMostOnce
    }

    // ---- What an actor may do next ----

    fn actions_of(&self, world: &World, at: usize, actions: &mut Vec<Action>) {
        let (actor, cast) = (&world.actors[at], &self.scenario.cast[at]);
        if actor.crashes > 0 && Self::may_crash(*cast, actor) {
            actions.push(Action::Crash(at));
        }
        match &actor.mind {
            Mind::Idle if actor.orders > 0 => self.beginnings(world, at, actions),
            Mind::Idle => {}
            Mind::Meaning(_) => actions.push(Action::Say(at)),
            Mind::Asking { air: true, .. } if actor.doubts > 0 => actions.push(Action::Doubt(at)),
            Mind::Asking { air: true, .. } => {}
            Mind::Asking { air: false, order, .. } => {
                actions.push(Action::Again(at));
                if order.claimant().is_some() && cast.role != Role::Named {
                    actions.push(Action::Abandon(at));
                }
                actions.push(Action::Forget(at));
            }
            Mind::Holding(claim) => self.holdings(world, at, claim, actions),
        }
    }

    /// A client that names its attempt may only ask again under the name if it has neither begun nor given it back.
    fn may_crash(cast: Cast, actor: &Actor) -> bool {
        match &actor.mind {
            Mind::Idle => false,
            Mind::Meaning(_) | Mind::Asking { claim: None, .. } => true,
            Mind::Asking { claim: Some(_), .. } => cast.role != Role::Named,
            Mind::Holding(claim) => cast.role != Role::Named || claim.work == Work::NotBegun,
        }
    }

    fn beginnings(&self, world: &World, at: usize, actions: &mut Vec<Action>) {
        let (actor, role) = (&world.actors[at], self.scenario.cast[at].role);
        let token = token_number(at, actor.tokens);
        let claim = |other, input, attempt| Order::Claim { token, other, input, attempt, long: false };
        let accept = |other, dead, later| Order::Accept { other, dead, later };
        let patient = Order::Claim { token, other: false, input: false, attempt: None, long: true };
        let stored = self.readable(world);
        match role {
            Role::Client => actions.push(Action::Order(at, claim(false, false, None))),
            Role::Patient => actions.push(Action::Order(at, patient)),
            Role::Completer => actions.push(Action::Order(at, claim(false, true, None))),
            Role::Named => actions.push(Action::Order(at, claim(false, false, Some(1)))),
            Role::Confused => {
                actions.push(Action::Order(at, claim(false, false, None)));
                actions.push(Action::Order(at, claim(true, false, None)));
                actions.push(Action::Order(at, accept(true, false, false)));
            }
            Role::Submitter => actions.push(Action::Order(at, accept(false, false, false))),
            Role::Planner => actions.push(Action::Order(at, accept(false, false, true))),
            Role::Filer => actions.push(Action::Order(at, accept(false, true, false))),
            Role::Worker => actions.push(Action::Order(at, Order::Take { token })),
            Role::Reaper => actions.push(Action::Order(at, Order::Lapse)),
            Role::Clerk => actions.push(Action::Order(at, Order::DropPayload)),
            Role::Probe | Role::Operator | Role::Warden | Role::Breaker => {
                if let Some(record) = stored.filter(|record| !record.is_expired(world.now)) {
                    Self::judgements(world, role, record, &mut |order| actions.push(Action::Look(at, order)));
                }
            }
            Role::Sweeper => {
                if let Some(record) = stored.filter(|record| record.is_expired(world.now)) {
                    // Said by the version, as every judgement; a discard that no store ever sees.
                    actions.push(Action::Look(at, Order::Discard { version: record.version() }));
                }
            }
        }
    }

    fn judgements(world: &World, role: Role, record: &Record, say: &mut dyn FnMut(Order)) {
        let version = record.version();
        match role {
            Role::Probe => {
                if matches!(record.state().name(), StateName::Unknown | StateName::Dead) {
                    let life = usize::from(world.past.life);
                    let done = world.target.effects.get(life).is_some_and(|effects| *effects > 0);
                    say(Order::Resolve { version, executed: done.then_some(body_of(record.fence())) });
                }
            }
            Role::Operator => {
                say(Order::Revive { version });
                say(Order::Discard { version });
                say(Order::Resolve { version, executed: Some(200) });
            }
            Role::Warden => say(Order::ForceRelease { version }),
            Role::Breaker => say(Order::Postpone { version }),
            _ => {}
        }
    }

    fn holdings(&self, world: &World, at: usize, claim: &Claim, actions: &mut Vec<Action>) {
        let (cast, token) = (&self.scenario.cast[at], claim.token);
        let mut order = |order| actions.push(Action::Order(at, order));
        match claim.work {
            // Given up before anything was sent.
            Work::NotBegun => order(Order::Release { token }),
            Work::Sent => {
                order(Order::MarkUnknown { token });
                // Under at most once it is not a retry's to say, and core has to refuse it.
                order(Order::Retry { token, effect: true, permanent: false });
            }
            Work::Done => order(Order::Complete { token, body: body_of(claim.fence) }),
            Work::Refused => {
                if claim.accepted {
                    order(Order::Retry { token, effect: false, permanent: false });
                    order(Order::Retry { token, effect: false, permanent: true });
                }
                order(Order::Release { token });
            }
        }
        if claim.beats < cast.beats {
            order(Order::Extend { token });
        }
        if claim.steps < cast.steps {
            order(Order::Checkpoint { token, phase: 0, data: token });
        }
        let safe = self.is_safe(at, claim, world.now) || self.lacks(Guard::HolderMindsItsLease);
        if claim.work == Work::NotBegun && safe {
            actions.push(Action::Send(at));
        }
    }

    /// Whether a holder may begin something, by its own clock.
    pub(crate) fn is_safe(&self, at: usize, claim: &Claim, now: Timestamp) -> bool {
        let rate = u64::from(self.scenario.cast[at].rate);
        let reading = |point: Timestamp| Duration::from_millis(point.as_millis() * rate / 10);
        Lease::new(claim.lease, reading(claim.sent)).is_safe(reading(now))
    }
}

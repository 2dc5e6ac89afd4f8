//! What comes of what happens: one step of the world, held against the invariants as it is taken.

use std::sync::Arc;

use semel_core::id::{Fence, Version};
use semel_core::record::{State, StateName};
use semel_core::{Invariant, Record, Timestamp};

use crate::guards::Guard;
use crate::judge::{self, Broken, Case};
use crate::orders::{Decision, Order, Reply, TICK, token_of};
use crate::scenario::{Role, Sight};
use crate::steps::{Action, Ledger};
use crate::world::{Actor, Claim, Flight, Mind, Past, Sending, Work, World};

impl Ledger {
    pub(crate) fn happen(&self, world: &mut World, action: Action) -> Result<(), Broken> {
        match action {
            Action::Tick => self.tick(world),
            Action::Order(at, order) => self.begin(world, at, order)?,
            Action::Look(at, order) => {
                if let (Role::Probe, Order::Resolve { executed: None, .. }) =
                    (self.scenario.cast[at].role, &order)
                    && !self.lacks(Guard::ProbeCancels)
                {
                    let fence = self.readable(world).map_or(Fence(0), |record| record.fence());
                    world.target.cancelled = world.target.cancelled.max(fence);
                }
                world.actors[at].orders -= 1;
                world.actors[at].mind = Mind::Meaning(order);
            }
            Action::Say(at) => {
                let mind = std::mem::replace(&mut world.actors[at].mind, Mind::Idle);
                let Mind::Meaning(order) = mind else { return Ok(()) };
                if self.scenario.cast[at].role == Role::Sweeper {
                    return self.sweep(world, &order);
                }
                world.actors[at].mind = Mind::Asking { order, sent: world.now, air: false, claim: None };
                let flights = world.flights.len();
                self.decide(world, at)?;
                // The time between looking and saying stands for the way of the write, too, if it cannot be given up.
                if world.flights.len() > flights
                    && self.scenario.cast[at].doubts == 0
                    && world.unsynced.is_none()
                {
                    self.arrive(world, flights)?;
                }
            }
            Action::Doubt(at) => {
                world.actors[at].doubts -= 1;
                for flight in
                    world.flights.iter_mut().chain(world.unsynced.iter_mut().map(|(flight, _)| flight))
                {
                    if flight.actor == Some(at) {
                        flight.actor = None;
                    }
                }
                Self::doubt(world, at);
            }
            Action::Again(at) => {
                if let Mind::Asking { sent, .. } = &mut world.actors[at].mind
                    && self.lacks(Guard::HolderCountsFromBefore)
                {
                    *sent = world.now;
                }
                self.decide(world, at)?;
            }
            Action::Abandon(at) => {
                let Mind::Asking { order, .. } = &world.actors[at].mind else { return Ok(()) };
                let token = order.claimant().unwrap();
                let order = Order::Release { token };
                world.actors[at].mind = Mind::Asking { order, sent: world.now, air: false, claim: None };
                self.decide(world, at)?;
            }
            Action::Forget(at) => world.actors[at].mind = Mind::Idle,
            Action::Crash(at) => {
                world.actors[at].crashes -= 1;
                for flight in
                    world.flights.iter_mut().chain(world.unsynced.iter_mut().map(|(flight, _)| flight))
                {
                    if flight.actor == Some(at) {
                        flight.actor = None;
                    }
                }
                world.actors[at].mind = Mind::Idle;
            }
            Action::Arrive(at) => self.arrive(world, at)?,
            Action::Sync => {
                if let Some((flight, record)) = world.unsynced.take() {
                    self.durable(world, &flight, &record, !self.lacks(Guard::StoreShowsWhatIsDurable))?;
                }
            }
            Action::PowerLoss => self.power_loss(world)?,
            Action::Send(at) => self.send(world, at)?,
            Action::Reach(at, does) => self.reach(world, at, does)?,
        }
        Ok(())
    }

    fn tick(&self, world: &mut World) {
        world.now = world.now.plus(TICK);
        if self.lacks(Guard::StoreMindsDeadlines) || self.lacks(Guard::DecisionEndsWithItsRecord) {
            return;
        }
        // Whether they arrive or not makes no difference any more.
        let (kept, late): (Vec<_>, Vec<_>) =
            world.flights.drain(..).partition(|flight| world.now <= flight.draft.deadline());
        world.flights = kept;
        for flight in late {
            self.see(Sight::TooLate);
            if let Some(at) = flight.actor {
                Self::doubt(world, at);
            }
        }
    }

    fn doubt(world: &mut World, at: usize) {
        if let Mind::Asking { air, .. } = &mut world.actors[at].mind {
            *air = false;
        }
    }

    fn begin(&self, world: &mut World, at: usize, order: Order) -> Result<(), Broken> {
        let actor = &mut world.actors[at];
        let claim = if let Mind::Holding(claim) = &mut actor.mind {
            claim.beats += u8::from(matches!(order, Order::Extend { .. }));
            claim.steps += u8::from(matches!(order, Order::Checkpoint { .. }));
            Some(*claim)
        } else {
            actor.orders -= 1;
            None
        };
        if order.claimant().is_some() {
            actor.tokens += 1;
        }
        actor.mind = Mind::Asking { order, sent: world.now, air: false, claim };
        self.decide(world, at)
    }

    /// What a read shows.
    pub(crate) fn readable<'a>(&self, world: &'a World) -> Option<&'a Arc<Record>> {
        match &world.unsynced {
            Some((_, record)) if self.lacks(Guard::StoreShowsWhatIsDurable) => Some(record),
            Some(_) | None => world.stored.as_ref(),
        }
    }

    /// Reads, decides, and sends what is to be written.
    fn decide(&self, world: &mut World, at: usize) -> Result<(), Broken> {
        let Mind::Asking { order, .. } = &world.actors[at].mind else { return Ok(()) };
        let order = order.clone();
        let seen = self.readable(world).cloned();
        match self.scenario.laws.decide(&order, seen.as_ref(), world.now) {
            Decision::Stay(reply) => {
                let case =
                    Case { order: &order, before: seen.as_deref(), decided: world.now, written: world.now };
                judge::stay(case, &reply)?;
                self.deliver(world, at, &order, &reply)
            }
            Decision::Write(mut draft) => {
                draft.send(world.now, !self.lacks(Guard::DecisionEndsWithItsRecord));
                if let Mind::Asking { air, .. } = &mut world.actors[at].mind {
                    *air = true;
                }
                world.flights.push(Flight { actor: Some(at), order, draft, decided: world.now });
                Ok(())
            }
        }
    }

    fn arrive(&self, world: &mut World, at: usize) -> Result<(), Broken> {
        let flight = world.flights.remove(at);
        let newest = world.stored.as_ref().map(|record| record.version());
        if newest != flight.draft.expected() && !self.lacks(Guard::StoreCompares) {
            // What is found is decided on at once; that it may be stale by then is a write's to find out.
            return flight.actor.map_or(Ok(()), |at| self.decide(world, at));
        }
        if world.now > flight.draft.deadline() {
            return Err(Broken {
                id: Invariant::L4,
                how: "a write took effect after it was given up for lost",
            });
        }
        let record = self.scenario.laws.seal(&flight.order, &flight.draft, world.now, world.floor);
        Self::judge_write(world, &flight, &record)?;
        if flight.actor.is_none() {
            self.see(Sight::GhostWrite);
        }
        if self.scenario.power_loss {
            if self.lacks(Guard::StoreShowsWhatIsDurable) {
                self.answer(world, &flight, &record)?;
            }
            world.unsynced = Some((flight, record));
            return Ok(());
        }
        self.durable(world, &flight, &record, true)
    }

    fn judge_write(world: &World, flight: &Flight, after: &Record) -> Result<(), Broken> {
        let before = world.stored.as_deref();
        if before.map(Record::version) != flight.draft.expected() {
            return Err(Broken {
                id: Invariant::L6,
                how: "a write took the place of a version that it did not judge",
            });
        }
        if after.version() <= world.past.newest {
            return Err(Broken { id: Invariant::L2, how: "a version that is not above all there ever were" });
        }
        let case = Case { order: &flight.order, before, decided: flight.decided, written: world.now };
        judge::step(case, after)
    }

    /// A version is durable: it is what is stored, and its writer is told.
    fn durable(
        &self,
        world: &mut World,
        flight: &Flight,
        record: &Arc<Record>,
        answer: bool,
    ) -> Result<(), Broken> {
        let before = world.stored.replace(Arc::clone(record));
        self.remember(world, flight, before.as_deref(), record)?;
        if answer { self.answer(world, flight, record) } else { Ok(()) }
    }

    fn answer(&self, world: &mut World, flight: &Flight, record: &Arc<Record>) -> Result<(), Broken> {
        let Some(at) = flight.actor else { return Ok(()) };
        let reply = self.scenario.laws.answer(&flight.order, Arc::clone(record));
        self.deliver(world, at, &flight.order, &reply)
    }

    fn power_loss(&self, world: &mut World) -> Result<(), Broken> {
        let Some((flight, _)) = world.unsynced.take() else { return Ok(()) };
        self.see(Sight::PowerLoss);
        if let Some(at) = flight.actor {
            Self::doubt(world, at);
        }
        let durable = world.stored.as_ref().map_or_else(Version::default, |record| record.version());
        let floor = Version { fence: world.floor, sequence: u32::MAX };
        if world.past.shown > durable.max(floor) {
            return Err(Broken {
                id: Invariant::L4,
                how: "somebody was shown a version that was not durable",
            });
        }
        Ok(())
    }

    fn sweep(&self, world: &mut World, judged: &Order) -> Result<(), Broken> {
        let Some(stored) = &world.stored else { return Ok(()) };
        if judged.judges() != Some(stored.version()) && !self.lacks(Guard::StoreRemovesWhatItJudged) {
            self.see(Sight::StaleVersion);
            return Ok(());
        }
        if world.unsynced.is_some() {
            // The newest version is not this one any more.
            return Ok(());
        }
        if !stored.is_expired(world.now) {
            let id = if stored.accepted() || world.past.promised { Invariant::L9 } else { Invariant::L3 };
            return Err(Broken { id, how: "a record was removed that had not expired" });
        }
        world.floor = world.floor.max(stored.fence());
        world.stored = None;
        Ok(())
    }

    fn send(&self, world: &mut World, at: usize) -> Result<(), Broken> {
        let Mind::Holding(claim) = &mut world.actors[at].mind else { return Ok(()) };
        claim.work = Work::Sent;
        let Claim { token, fence, life, .. } = *claim;
        world.sendings.push(Sending { actor: at, token, fence, life });
        world.sendings.sort_unstable();
        if self.scenario.cast[at].role == Role::Named {
            // The name says "the same attempt": whoever has begun it does not ask for it once more.
            world.actors[at].orders = 0;
        }
        if life == world.past.life {
            world.past.starts += 1;
        }
        let once = world.past.starts <= 1 || !self.at_most_once();
        let stale = world.stored.as_ref().is_none_or(|record| record.token() != Some(token_of(token)));
        if stale && fence > world.past.forced && !self.at_most_once() {
            return Err(Broken {
                id: Invariant::L1,
                how: "a holder began something after its claim was taken over",
            });
        }
        if once { Ok(()) } else { Err(Broken { id: Invariant::L7, how: "the work was started twice" }) }
    }

    fn reach(&self, world: &mut World, at: usize, does: bool) -> Result<(), Broken> {
        let Sending { actor, token, fence, life } = world.sendings.remove(at);
        let cancelled = fence <= world.target.cancelled;
        if cancelled {
            self.see(Sight::Cancelled);
        }
        let does = does && !cancelled;
        if let Mind::Holding(claim) = &mut world.actors[actor].mind
            && claim.token == token
            && claim.fence == fence
            && claim.work == Work::Sent
        {
            claim.work = if does { Work::Done } else { Work::Refused };
        } else {
            self.see(Sight::LateRequest);
        }
        if !does {
            return Ok(());
        }
        let life = usize::from(life);
        if world.target.effects.len() <= life {
            world.target.effects.resize(life + 1, 0);
        }
        world.target.effects[life] = (world.target.effects[life] + 1).min(2);
        if self.at_most_once() && world.target.effects[life] > 1 {
            return Err(Broken { id: Invariant::L7, how: "the work took effect twice" });
        }
        Ok(())
    }

    /// Tells an actor what came of its order.
    fn deliver(&self, world: &mut World, at: usize, order: &Order, reply: &Reply) -> Result<(), Broken> {
        Self::told(world, reply)?;
        let Mind::Asking { sent, claim, .. } = &world.actors[at].mind else { return Ok(()) };
        let (sent, claim) = (*sent, *claim);
        let mind = match (order, reply) {
            (Order::Claim { .. } | Order::Take { .. }, Reply::Granted { record, token }) => {
                if record.tainted() {
                    self.see(Sight::Takeover);
                }
                Mind::Holding(Claim {
                    token: token.as_bytes()[0],
                    fence: record.fence(),
                    life: world.past.life,
                    sent,
                    lease: record.request().policy().lease(),
                    tainted: record.tainted(),
                    accepted: record.accepted(),
                    work: Work::NotBegun,
                    steps: 0,
                    beats: 0,
                })
            }
            (Order::Extend { .. }, Reply::Done(_)) => {
                claim.map_or(Mind::Idle, |claim| Mind::Holding(Claim { sent: claim.sent.max(sent), ..claim }))
            }
            (Order::Checkpoint { .. }, Reply::Done(_) | Reply::Illegal(_)) => {
                claim.map_or(Mind::Idle, Mind::Holding)
            }
            // The attempt is over, or was refused its end: then it lapses.
            _ => Mind::Idle,
        };
        match reply {
            Reply::Fenced(_) => self.see(Sight::Fenced),
            Reply::Replay(_) => self.see(Sight::Replay),
            Reply::Mismatch(_) => self.see(Sight::Mismatch),
            Reply::Conflict(_) => self.see(Sight::StaleVersion),
            Reply::Gone(_) => self.see(Sight::PayloadGone),
            Reply::Done(_) if claim.is_none() && matches!(order, Order::Release { .. }) => {
                self.see(Sight::Abandoned);
            }
            _ => {}
        }
        world.actors[at].mind = mind;
        Ok(())
    }

    /// What somebody was shown must stay true (L3, L4, L9, L10).
    fn told(world: &mut World, reply: &Reply) -> Result<(), Broken> {
        let Some(record) = reply.record() else { return Ok(()) };
        world.past.shown = world.past.shown.max(record.version());
        if record.is_expired(world.now) {
            return Ok(());
        }
        if let (Reply::Accepted(_) | Reply::Duplicate(_), true) = (reply, record.accepted()) {
            world.past.promised = true;
        }
        if let Some(outcome) = outcome_of(record) {
            if world.past.told.is_some_and(|told| told != outcome) {
                return Err(Broken {
                    id: Invariant::L10,
                    how: "two outcomes were told for one life of a key",
                });
            }
            world.past.told = Some(outcome);
        }
        Ok(())
    }

    /// What a durable version means for what is promised and allowed.
    fn remember(
        &self,
        world: &mut World,
        flight: &Flight,
        before: Option<&Record>,
        after: &Arc<Record>,
    ) -> Result<(), Broken> {
        let past = &mut world.past;
        past.newest = after.version();
        let begins = before.is_none_or(|before| before.is_expired(flight.decided));
        if begins {
            if past.life > 0 && before.is_none() {
                self.see(Sight::Reuse);
            }
            let (newest, shown, life, forced) = (past.newest, past.shown, past.life + 1, past.forced);
            *past = Past { newest, shown, life, forced, ..Past::default() };
        }
        if matches!(after.state(), State::Running { .. })
            && flight.order.claimant().is_some()
            && past.starts > 0
        {
            self.see(Sight::SecondRun);
        }
        match flight.order {
            Order::Release { .. } | Order::Retry { effect: false, .. } | Order::Revive { .. } => {
                past.starts = 0;
            }
            Order::Resolve { executed: None, .. } => {
                past.starts = 0;
                self.see(Sight::SecondRun);
            }
            Order::ForceRelease { .. } => {
                past.starts = 0;
                past.forced = after.fence();
            }
            _ => {}
        }
        match (after.state().name(), &flight.order) {
            (StateName::Dead, _) => self.see(Sight::Death),
            (_, Order::Revive { .. }) => self.see(Sight::Revival),
            (StateName::Unknown, Order::MarkUnknown { .. }) => {}
            (StateName::Unknown, _) => self.see(Sight::Lapse),
            (StateName::Completed, Order::Complete { .. })
                if before.is_some_and(|before| {
                    before.is_lapsed(world.now)
                        || before.token().is_some() && before.state().name() != StateName::Running
                }) =>
            {
                self.see(Sight::LateSettlement);
            }
            _ => {}
        }
        if let (Some(told), Some(outcome)) = (past.told, outcome_of(after))
            && told != outcome
        {
            return Err(Broken { id: Invariant::L3, how: "an outcome that somebody was told has changed" });
        }
        if after.accepted() { self.drain(after, world.now) } else { Ok(()) }
    }

    /// Whether accepted work comes to an end from here, with workers that all die, and with one that does not (L9).
    fn drain(&self, record: &Arc<Record>, now: Timestamp) -> Result<(), Broken> {
        for dies in [true, false] {
            let (mut record, mut now) = (Arc::clone(record), now);
            let mut steps = 0;
            while matches!(record.state().name(), StateName::Pending | StateName::Running) {
                steps += 1;
                let Some(due) = record.due().filter(|due| *due < Timestamp::MAX && steps < 12) else {
                    return Err(Broken {
                        id: Invariant::L9,
                        how: "accepted work that no worker is ever shown again",
                    });
                };
                now = now.max(due);
                record = self.driven(&record, &Order::Take { token: 250 }, now);
                if !dies && record.token() == Some(token_of(250)) {
                    record = self.driven(&record, &Order::Complete { token: 250, body: 250 }, now);
                }
                if record.due().is_none() && record.state().name() == StateName::Running {
                    return Err(Broken {
                        id: Invariant::L9,
                        how: "accepted work that runs without being watched",
                    });
                }
            }
        }
        Ok(())
    }

    fn driven(&self, record: &Arc<Record>, order: &Order, now: Timestamp) -> Arc<Record> {
        match self.scenario.laws.decide(order, Some(record), now) {
            Decision::Stay(_) => Arc::clone(record),
            Decision::Write(draft) => self.scenario.laws.seal(order, &draft, now, Fence(0)),
        }
    }

    /// What must hold of a world, whatever led to it.
    pub(crate) fn holds(&self, world: &World) -> Result<(), Broken> {
        let safe = |(at, actor): (usize, &Actor)| match &actor.mind {
            Mind::Holding(claim) => {
                (self.is_safe(at, claim, world.now) && claim.fence > world.past.forced).then_some(claim.token)
            }
            _ => None,
        };
        let mut holders = world.actors.iter().enumerate().filter_map(safe);
        let first = holders.next();
        if holders.any(|token| Some(token) != first) {
            return Err(Broken { id: Invariant::L1, how: "two holders, and each may rely on its lease" });
        }
        if world.past.promised && world.stored.is_none() && world.past.told.is_none() {
            return Err(Broken {
                id: Invariant::L9,
                how: "what was accepted is gone, and nobody was told its end",
            });
        }
        Ok(())
    }
}

/// The token of an actor's next claim.
pub(crate) fn token_number(at: usize, tokens: u8) -> u8 {
    u8::try_from(at).unwrap() * 16 + tokens + 1
}

/// What an attempt gives: every attempt something else, so that outcomes can be told apart.
pub(crate) fn body_of(fence: Fence) -> u8 {
    u8::try_from(fence.0).unwrap()
}

fn outcome_of(record: &Record) -> Option<u64> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    record.outcome().map(|outcome| {
        let mut hasher = DefaultHasher::new();
        outcome.hash(&mut hasher);
        hasher.finish()
    })
}

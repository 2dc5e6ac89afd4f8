//! What `ledger.md` says of every command in every state, written down a second time and independently of core.
//!
//! [`expect`] is the table of commands: what may come of an order on a record, and which invariant is broken when
//! something else does. [`step`] holds what core did against it, field by field, and against core's own
//! [`judge_step`]. The model and the histories of commands use the same judge, so both name the same ids.

use std::fmt;
use std::time::Duration;

use semel_core::id::Namespace;
use semel_core::invariant::judge_step;
use semel_core::outcome::{Body, Class};
use semel_core::policy::OnLapse;
use semel_core::record::{State, StateName};
use semel_core::{Invariant, Record, Timestamp};

use crate::orders::{LEASE, Order, PAUSE, RETENTION, Reply, leased, outcome, token_of};

/// A broken invariant, and how it was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Broken {
    /// Which.
    pub(crate) id: Invariant,
    /// How.
    pub(crate) how: &'static str,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({})", self.id, self.how)
    }
}

fn hold(holds: bool, id: Invariant, how: &'static str) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { id, how }) }
}

/// What may come of an order.
#[derive(Clone, Debug)]
enum Expected {
    /// Nothing changes, and the answer is one of these.
    Stays(&'static [&'static str]),
    /// The record becomes this.
    Becomes(Next),
}

/// Which token answers for the record afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// The claimant's.
    Claimant,
    /// The same as before.
    Same,
    /// None.
    Spent,
}

#[derive(Clone, Debug)]
struct Next {
    state: StateName,
    proof: Proof,
    /// When it wakes; `None` for never.
    wake: Option<Timestamp>,
    accepted: bool,
    tainted: bool,
    attempt: u32,
    uncounted: u32,
    /// How long its claim holds without a heartbeat.
    lease: Duration,
}

impl Next {
    fn into(self) -> Expected {
        Expected::Becomes(self)
    }

    /// With all the tries of the schedule ahead. No attempt is forgotten.
    fn anew(self) -> Self {
        Self { uncounted: self.attempt, ..self }
    }

    fn proof(mut self, proof: Proof) -> Self {
        self.proof = proof;
        self
    }

    fn wake(mut self, wake: Timestamp) -> Self {
        self.wake = Some(wake);
        self
    }
}

/// What the order was decided on, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case<'a> {
    /// The order.
    pub(crate) order: &'a Order,
    /// What was stored.
    pub(crate) before: Option<&'a Record>,
    /// The store's time when it was decided.
    pub(crate) decided: Timestamp,
    /// The store's time inside the write; the same where nothing was written.
    pub(crate) written: Timestamp,
}

/// Holds an answer that wrote nothing against the table.
pub(crate) fn stay(case: Case<'_>, reply: &Reply) -> Result<(), Broken> {
    let (expected, id) = expect(case);
    match expected {
        Expected::Stays(names) => hold(names.contains(&reply.name()), id, "another answer than the table's"),
        Expected::Becomes(_) => hold(false, id, "nothing was written, and the table says what is"),
    }?;
    if let Reply::Granted { record, token } = reply {
        let own = record.token() == Some(*token) && matches!(record.state(), State::Running { .. });
        hold(own, Invariant::L1, "a claim was answered that its token does not hold")?;
    }
    Ok(())
}

/// Holds what was written against the table.
pub(crate) fn step(case: Case<'_>, after: &Record) -> Result<(), Broken> {
    let expired = case.before.is_some_and(|before| before.is_expired(case.written));
    let (expected, id) = expect(case);
    let next = match expected {
        Expected::Stays(_) => return hold(false, id, "something was written, and the table says nothing is"),
        Expected::Becomes(next) => next,
    };
    hold(after.state().name() == next.state, id, "another state than the table's")?;
    fences(case, &next, after)?;
    judge_step(case.before, expired, after).map_err(|id| Broken { id, how: "core's own judge says so" })?;
    hold(
        Record::from_parts(after.parts().clone()).is_ok(),
        Invariant::L13,
        "the parts contradict each other",
    )?;
    fields(case, &next, after)
}

fn fences(case: Case<'_>, next: &Next, after: &Record) -> Result<(), Broken> {
    let fence = case.before.map_or(0, |before| before.fence().0);
    let live = case.before.filter(|before| !before.is_expired(case.decided));
    let rises = next.proof == Proof::Claimant || live.is_none();
    if rises {
        hold(after.fence().0 > fence, Invariant::L2, "a claim whose fence did not rise")
    } else {
        hold(after.fence().0 == fence, Invariant::L2, "a fence that rose without a claim")
    }
}

fn fields(case: Case<'_>, next: &Next, after: &Record) -> Result<(), Broken> {
    let live = case.before.filter(|before| !before.is_expired(case.decided));
    let old = live.and_then(Record::token);
    match next.proof {
        Proof::Claimant => {
            let claimant = case.order.claimant().map(token_of);
            hold(after.token() == claimant, Invariant::L1, "a claim whose token is not the claimant's")?;
        }
        Proof::Same => hold(after.token() == old, Invariant::L1, "another token without a claim")?,
        Proof::Spent => hold(after.token().is_none(), Invariant::L6, "a spent token still answers")?,
    }
    let watched = matches!(case.order, Order::Accept { .. }) || next.state == StateName::Pending;
    let id = match next.state {
        StateName::Completed => Invariant::L3,
        _ if watched => Invariant::L9,
        _ => Invariant::L1,
    };
    hold(after.times().wake == next.wake, id, "a lease or due time that is not the table's")?;
    hold(
        after.accepted() == next.accepted,
        Invariant::L9,
        "accepted work that is not marked so, or otherwise",
    )?;
    hold(after.tainted() == next.tainted, Invariant::L7, "a possible effect was forgotten, or invented")?;
    let counted = (after.attempt(), after.parts().uncounted) == (next.attempt, next.uncounted);
    hold(counted, Invariant::L9, "tries are not counted, so they never end, or end before the schedule's")?;
    let rises = live.is_none_or(|live| after.attempt() >= live.attempt());
    hold(rises, Invariant::L9, "a later attempt has the number of an earlier one")?;
    let dropped = *case.order == Order::DropPayload;
    promises(live, next.lease, after)?;
    let drivable = after.is_drivable() != dropped || !after.accepted();
    hold(drivable, Invariant::L9, "accepted work that no worker can drive")?;
    let rests = matches!(next.state, StateName::Completed | StateName::Released);
    let expires = rests.then(|| case.written.plus(RETENTION));
    // What goes before its record changes nothing of when the record goes.
    let expires = if dropped { live.and_then(|live| live.times().expires) } else { expires };
    hold(after.times().expires == expires, Invariant::L8, "a retention that does not count from the end")?;
    match (case.order, after.state()) {
        (
            Order::Complete { body, .. } | Order::Resolve { executed: Some(body), .. },
            State::Completed { outcome: kept },
        ) => hold(*kept == outcome(*body), Invariant::L10, "another outcome than what was said"),
        (Order::Discard { .. }, State::Completed { outcome }) => {
            let named = outcome.class == Class::Discarded && outcome.body == Body::Gone;
            hold(named, Invariant::L9, "a discarded record that does not say so")
        }
        _ => Ok(()),
    }
}

/// What the record was promised: its lease is the table's, and nothing else ever changes.
fn promises(live: Option<&Record>, lease: Duration, after: &Record) -> Result<(), Broken> {
    let policy = after.request().policy();
    hold(policy.lease() == lease, Invariant::L1, "the record's lease is not the table's")?;
    let kept = live.is_none_or(|live| leased(live.request().policy(), lease) == *policy);
    hold(kept, Invariant::L3, "another promise than the record was begun with")
}

/// The table: what may come of the order, and the invariant that is broken by anything else.
fn expect(case: Case<'_>) -> (Expected, Invariant) {
    let live = case.before.filter(|before| !before.is_expired(case.decided));
    let Some(live) = live else { return (absent(case), Invariant::L8) };
    if case.order.mismatches(live) {
        return (Expected::Stays(&["mismatch"]), Invariant::L5);
    }
    if case.order.holder().is_some_and(|token| live.token() != Some(token_of(token))) {
        // `done` is for who repeats what ended its claim; that it was said is the histories' to judge.
        return (Expected::Stays(&["fenced", "done"]), Invariant::L6);
    }
    if case.order.judges().is_some_and(|version| live.version() != version) {
        return (Expected::Stays(&["conflict", "done"]), Invariant::L6);
    }
    if *case.order == Order::DropPayload {
        return drop_payload(case, live);
    }
    if let State::Completed { outcome: kept } = live.state() {
        return (completed(case.order, |body| *kept == outcome(body)), Invariant::L3);
    }
    match *case.order {
        Order::Claim { token, attempt, .. } => claim(case, live, token, attempt),
        Order::Accept { dead, .. } => accept(case, live, dead),
        Order::Take { token } => take(case, live, token),
        Order::Lapse => lapse(case, live),
        Order::Extend { .. } => extend(case, live),
        Order::Checkpoint { phase, data, .. } => checkpoint(live, phase, data),
        Order::Complete { .. } => (done(case, live).into(), Invariant::L9),
        Order::Release { .. } => release(case, live),
        Order::Retry { effect, permanent, .. } => retry(case, live, effect, permanent),
        Order::MarkUnknown { .. } => mark_unknown(live),
        Order::Resolve { executed, .. } => resolve(case, live, executed.is_some()),
        Order::Revive { .. } => revive(case, live),
        Order::Discard { .. } => discard(case, live),
        Order::ForceRelease { .. } => force_release(live),
        Order::Postpone { .. } => postpone(case, live),
        Order::DropPayload => unreachable!("judged before"),
    }
}

fn absent(case: Case<'_>) -> Expected {
    let begins = |state, proof, wake, accepted, attempt| {
        let lease = case.order.lease();
        Next { state, proof, wake: Some(wake), accepted, tainted: false, attempt, uncounted: 0, lease }.into()
    };
    match case.order {
        Order::Claim { .. } => {
            begins(StateName::Running, Proof::Claimant, case.written.plus(case.order.lease()), false, 1)
        }
        Order::Accept { dead: false, later, .. } => {
            let due = if *later { case.written.plus(PAUSE) } else { case.written };
            begins(StateName::Pending, Proof::Spent, due, true, 0)
        }
        Order::Accept { dead: true, .. } => Next {
            state: StateName::Dead,
            proof: Proof::Spent,
            wake: None,
            accepted: true,
            tainted: false,
            attempt: 0,
            uncounted: 0,
            lease: LEASE,
        }
        .into(),
        Order::Take { .. } => Expected::Stays(&["not due"]),
        Order::Lapse | Order::DropPayload => Expected::Stays(&["nothing"]),
        order if order.holder().is_some() => Expected::Stays(&["fenced"]),
        _ => Expected::Stays(&["not found"]),
    }
}

/// Final: whoever comes is told so, and nothing changes.
fn completed(order: &Order, is_what_is_kept: impl Fn(u8) -> bool) -> Expected {
    Expected::Stays(match *order {
        Order::Claim { .. } => &["replay"],
        Order::Accept { .. } => &["duplicate"],
        Order::Take { .. } => &["not due"],
        Order::Lapse | Order::DropPayload => &["nothing"],
        Order::Complete { body, .. } if is_what_is_kept(body) => &["done"],
        Order::Complete { .. } | Order::Extend { .. } | Order::Checkpoint { .. } => &["fenced"],
        Order::Release { .. } | Order::Retry { .. } | Order::MarkUnknown { .. } => &["fenced"],
        Order::Resolve { .. }
        | Order::Revive { .. }
        | Order::Discard { .. }
        | Order::ForceRelease { .. }
        | Order::Postpone { .. } => &["illegal"],
    })
}

/// The record in another state, with nothing else changed.
fn same(live: &Record, state: StateName) -> Next {
    Next {
        state,
        proof: Proof::Same,
        wake: None,
        accepted: live.accepted(),
        tainted: live.tainted(),
        attempt: live.attempt(),
        uncounted: live.parts().uncounted,
        lease: live.request().policy().lease(),
    }
}

/// Come to its end, with whatever time its payload has.
fn done(case: Case<'_>, live: &Record) -> Next {
    let kept = live.request().policy().payload_retention().filter(|_| live.is_drivable());
    Next { wake: kept.map(|kept| case.written.plus(kept)), ..same(live, StateName::Completed) }
}

fn drop_payload(case: Case<'_>, live: &Record) -> (Expected, Invariant) {
    match live.state() {
        State::Completed { .. } if live.times().wake.is_some_and(|wake| wake <= case.decided) => {
            (same(live, StateName::Completed).into(), Invariant::L3)
        }
        State::Completed { .. } => (Expected::Stays(&["nothing"]), Invariant::L3),
        // Somebody may have to drive it yet.
        _ => (Expected::Stays(&["nothing"]), Invariant::L9),
    }
}

fn grant(case: Case<'_>, live: &Record, tainted: bool) -> Expected {
    let tainted = live.tainted() || tainted;
    let attempt = live.attempt() + 1;
    let same = same(live, StateName::Running);
    // A run of a job has the lease that its own claim asks for.
    let is_job = live.request().scope().namespace == Namespace::Job;
    let lease = match case.order {
        Order::Claim { .. } if is_job => case.order.lease(),
        _ => same.lease,
    };
    let until = case.written.plus(lease);
    Next { tainted, attempt, lease, ..same }.proof(Proof::Claimant).wake(until).into()
}

fn at_most_once(live: &Record) -> bool {
    live.request().policy().on_lapse() == OnLapse::AtMostOnce
}

fn claim(case: Case<'_>, live: &Record, token: u8, attempt: Option<u8>) -> (Expected, Invariant) {
    match live.state() {
        State::Running { attempt_id } if !live.is_lapsed(case.decided) => {
            let named =
                attempt.is_some_and(|n| attempt_id.as_ref().is_some_and(|id| id.as_str() == n.to_string()));
            let own = named || live.token() == Some(token_of(token));
            (Expected::Stays(if own { &["granted"] } else { &["busy"] }), Invariant::L1)
        }
        State::Running { .. } if at_most_once(live) => (same(live, StateName::Unknown).into(), Invariant::L7),
        State::Running { .. } => (grant(case, live, true), Invariant::L1),
        State::Released { .. } => (grant(case, live, false), Invariant::L1),
        State::Pending { .. } => (Expected::Stays(&["busy"]), Invariant::L5),
        State::Unknown { .. } => (Expected::Stays(&["unknown"]), Invariant::L7),
        State::Dead { .. } => (Expected::Stays(&["dead"]), Invariant::L5),
        State::Completed { .. } => unreachable!("judged before"),
    }
}

fn accept(case: Case<'_>, live: &Record, dead: bool) -> (Expected, Invariant) {
    let taken_in = |state| Next { accepted: true, ..same(live, state) };
    match live.state() {
        // What is only filed takes nothing in.
        State::Running { .. } | State::Released { .. } if dead => {
            (Expected::Stays(&["duplicate"]), Invariant::L5)
        }
        // What is there is not put off by whoever takes it in for later. A lapse that was seen is due at once: somebody
        // must drive it now.
        State::Running { .. } if !live.accepted() => {
            let wake = live.times().wake.unwrap_or(case.written);
            (taken_in(StateName::Running).wake(wake).into(), Invariant::L9)
        }
        State::Released { .. } => {
            (taken_in(StateName::Pending).anew().wake(case.written).into(), Invariant::L9)
        }
        State::Running { .. } | State::Pending { .. } | State::Dead { .. } => {
            (Expected::Stays(&["duplicate"]), Invariant::L5)
        }
        State::Unknown { .. } => (Expected::Stays(&["duplicate"]), Invariant::L7),
        State::Completed { .. } => unreachable!("judged before"),
    }
}

fn take(case: Case<'_>, live: &Record, token: u8) -> (Expected, Invariant) {
    let spent = live.tries() >= live.request().policy().retry().max_attempts();
    let one_more =
        |tainted| if spent { same(live, StateName::Dead).into() } else { grant(case, live, tainted) };
    let not_due = Expected::Stays(&["not due"]);
    match live.state() {
        State::Pending { .. } if live.times().wake.is_some_and(|wake| wake <= case.decided) => {
            (one_more(false), Invariant::L9)
        }
        State::Running { .. } if !live.is_lapsed(case.decided) => {
            let own = live.token() == Some(token_of(token));
            (Expected::Stays(if own { &["granted"] } else { &["not due"] }), Invariant::L1)
        }
        State::Running { .. } if at_most_once(live) => (same(live, StateName::Unknown).into(), Invariant::L7),
        State::Running { .. } if live.is_drivable() => (one_more(true), Invariant::L9),
        // `ended` is for who came upon the end and asks again.
        State::Unknown { .. } => (Expected::Stays(&["not due", "ended"]), Invariant::L7),
        State::Dead { .. } => (Expected::Stays(&["not due", "ended"]), Invariant::L5),
        State::Pending { .. } | State::Running { .. } | State::Released { .. } => (not_due, Invariant::L5),
        State::Completed { .. } => unreachable!("judged before"),
    }
}

fn lapse(case: Case<'_>, live: &Record) -> (Expected, Invariant) {
    let nothing = Expected::Stays(&["nothing"]);
    if !matches!(live.state(), State::Running { .. }) {
        return (nothing, Invariant::L5);
    }
    if !live.is_lapsed(case.decided) {
        return (nothing, Invariant::L1);
    }
    if at_most_once(live) {
        return (same(live, StateName::Unknown).into(), Invariant::L7);
    }
    if live.is_drivable() || live.times().wake.is_none() {
        return (nothing, Invariant::L9);
    }
    (same(live, StateName::Running).into(), Invariant::L9)
}

fn extend(case: Case<'_>, live: &Record) -> (Expected, Invariant) {
    match live.state() {
        State::Running { .. } | State::Unknown { .. } => {
            let lease = live.request().policy().lease();
            (same(live, StateName::Running).wake(case.written.plus(lease)).into(), Invariant::L1)
        }
        _ => (Expected::Stays(&["fenced"]), Invariant::L6),
    }
}

fn checkpoint(live: &Record, phase: u8, data: u8) -> (Expected, Invariant) {
    let State::Running { .. } = live.state() else { return (Expected::Stays(&["fenced"]), Invariant::L6) };
    let known = live.checkpoints().iter().find(|known| known.phase().as_str() == phase.to_string());
    match known {
        Some(known) if known.data()[..] == [data] => (Expected::Stays(&["done"]), Invariant::L5),
        Some(_) => (Expected::Stays(&["illegal"]), Invariant::L5),
        None => {
            let next = Next { wake: live.times().wake, ..same(live, StateName::Running) };
            (next.into(), Invariant::L6)
        }
    }
}

/// Given back: to rest, or into the queue if somebody was promised an end.
fn given_back(case: Case<'_>, live: &Record) -> Next {
    if live.accepted() {
        same(live, StateName::Pending).wake(case.written)
    } else {
        same(live, StateName::Released)
    }
}

fn release(case: Case<'_>, live: &Record) -> (Expected, Invariant) {
    match live.state() {
        State::Running { .. } | State::Unknown { .. } => {
            (given_back(case, live).proof(Proof::Spent).into(), Invariant::L9)
        }
        _ => (Expected::Stays(&["fenced"]), Invariant::L6),
    }
}

fn retry(case: Case<'_>, live: &Record, effect: bool, permanent: bool) -> (Expected, Invariant) {
    let State::Running { .. } = live.state() else {
        return (Expected::Stays(&["fenced", "done"]), Invariant::L6);
    };
    if !live.accepted() || !live.is_drivable() {
        return (Expected::Stays(&["illegal"]), Invariant::L9);
    }
    if at_most_once(live) && effect {
        return (Expected::Stays(&["illegal"]), Invariant::L7);
    }
    let tainted = live.tainted() || effect;
    let spent = permanent || live.tries() >= live.request().policy().retry().max_attempts();
    if spent {
        (Next { tainted, ..same(live, StateName::Dead) }.into(), Invariant::L9)
    } else {
        let pending = Next { tainted, ..same(live, StateName::Pending) };
        (pending.proof(Proof::Spent).wake(case.written).into(), Invariant::L9)
    }
}

fn mark_unknown(live: &Record) -> (Expected, Invariant) {
    match live.state() {
        State::Running { .. } => (same(live, StateName::Unknown).into(), Invariant::L7),
        State::Unknown { .. } => (Expected::Stays(&["done"]), Invariant::L5),
        _ => (Expected::Stays(&["fenced"]), Invariant::L6),
    }
}

fn resolve(case: Case<'_>, live: &Record, executed: bool) -> (Expected, Invariant) {
    match live.state() {
        State::Unknown { .. } | State::Dead { .. } if executed => (done(case, live).into(), Invariant::L9),
        State::Unknown { .. } | State::Dead { .. } => {
            let anew = Next { tainted: false, ..given_back(case, live) }.anew();
            (anew.into(), Invariant::L9)
        }
        State::Running { .. } => (Expected::Stays(&["illegal"]), Invariant::L1),
        _ => (Expected::Stays(&["illegal", "done"]), Invariant::L5),
    }
}

fn revive(case: Case<'_>, live: &Record) -> (Expected, Invariant) {
    match live.state() {
        State::Dead { .. } if live.is_drivable() => {
            let anew = Next { accepted: true, ..same(live, StateName::Pending) }.anew();
            (anew.proof(Proof::Spent).wake(case.written).into(), Invariant::L9)
        }
        State::Dead { .. } => (Expected::Stays(&["illegal"]), Invariant::L9),
        State::Unknown { .. } => (Expected::Stays(&["illegal"]), Invariant::L7),
        State::Running { .. } => (Expected::Stays(&["illegal"]), Invariant::L1),
        _ => (Expected::Stays(&["illegal", "done"]), Invariant::L5),
    }
}

fn discard(case: Case<'_>, live: &Record) -> (Expected, Invariant) {
    match live.state() {
        State::Pending { .. } | State::Dead { .. } | State::Unknown { .. } => {
            (done(case, live).proof(Proof::Spent).into(), Invariant::L9)
        }
        State::Running { .. } => (Expected::Stays(&["illegal"]), Invariant::L1),
        _ => (Expected::Stays(&["illegal", "done"]), Invariant::L5),
    }
}

fn force_release(live: &Record) -> (Expected, Invariant) {
    match live.state() {
        State::Running { .. } if live.accepted() => (Expected::Stays(&["illegal"]), Invariant::L9),
        State::Running { .. } if live.request().scope().namespace == Namespace::Job => {
            (same(live, StateName::Released).proof(Proof::Spent).into(), Invariant::L5)
        }
        State::Running { .. } => (Expected::Stays(&["illegal"]), Invariant::L7),
        State::Unknown { .. } => (Expected::Stays(&["illegal"]), Invariant::L7),
        _ => (Expected::Stays(&["illegal", "done"]), Invariant::L5),
    }
}

fn postpone(case: Case<'_>, live: &Record) -> (Expected, Invariant) {
    match live.state() {
        State::Pending { .. } => {
            (same(live, StateName::Pending).wake(case.written.plus(PAUSE)).into(), Invariant::L9)
        }
        State::Running { .. } => (Expected::Stays(&["illegal"]), Invariant::L1),
        _ => (Expected::Stays(&["illegal"]), Invariant::L5),
    }
}

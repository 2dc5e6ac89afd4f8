//! The world of the model: one key in a store, its clients, workers, operators, the target that the work acts on,
//! and everything that is on its way between them.
//!
//! Time stands still but for [`World::now`], which goes in ticks and never ends: a state is told apart by how far its
//! deadlines are from now, and by nothing that is over. So the space is finite although time is not cut off.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use semel_core::id::{Fence, Version};
use semel_core::record::Parts;
use semel_core::{Record, Timestamp};

use crate::judge::Broken;
use crate::orders::{Draft, Order};

/// What an actor is about.
#[derive(Clone, Debug)]
pub(crate) enum Mind {
    /// Nothing, or it has crashed and come back without memory.
    Idle,
    /// It has made up its mind about a version that it saw, and has not said so yet.
    Meaning(Order),
    /// It has given an order. `air` says whether it waits for a write of its own; else it is in doubt.
    Asking { order: Order, sent: Timestamp, air: bool, claim: Option<Claim> },
    /// It holds a claim.
    Holding(Claim),
}

/// What a holder knows of its claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) token: u8,
    pub(crate) fence: Fence,
    pub(crate) life: u8,
    /// Just before the last claim or heartbeat that was acknowledged, by the store's clock; the holder's own runs
    /// at its own rate.
    pub(crate) sent: Timestamp,
    /// How long it holds from then on.
    pub(crate) lease: Duration,
    pub(crate) tainted: bool,
    pub(crate) accepted: bool,
    pub(crate) work: Work,
    pub(crate) steps: u8,
    pub(crate) beats: u8,
}

/// How far the work of a claim is, as its holder knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// Nothing has left the holder.
    NotBegun,
    /// A request is on its way, or its answer is.
    Sent,
    /// The target has done it.
    Done,
    /// The target has refused it, without effect.
    Refused,
}

/// Somebody who gives orders, with what is left of its bounds.
#[derive(Clone, Debug)]
pub(crate) struct Actor {
    pub(crate) mind: Mind,
    pub(crate) orders: u8,
    pub(crate) doubts: u8,
    pub(crate) crashes: u8,
    pub(crate) tokens: u8,
}

/// A write on its way to the store.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    /// Who waits for it; nobody, if it was given up.
    pub(crate) actor: Option<usize>,
    pub(crate) order: Order,
    pub(crate) draft: Box<Draft>,
    pub(crate) decided: Timestamp,
}

/// A request on its way to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Sending {
    pub(crate) actor: usize,
    pub(crate) token: u8,
    pub(crate) fence: Fence,
    pub(crate) life: u8,
}

/// The target of the work.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Target {
    /// It refuses fences up to this one.
    pub(crate) cancelled: Fence,
    /// Effects, by the life of the key that they belong to.
    pub(crate) effects: Vec<u8>,
}

/// What has happened, as far as an invariant looks back.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Past {
    /// The newest version there ever was (L2).
    pub(crate) newest: Version,
    /// The newest version that anybody was shown (L4).
    pub(crate) shown: Version,
    /// Lives of the key so far.
    pub(crate) life: u8,
    /// Starts in this life that nothing excuses (L7).
    pub(crate) starts: u8,
    /// The outcome that somebody was told in this life (L3, L10).
    pub(crate) told: Option<u64>,
    /// Somebody was told that the work is accepted in this life (L9).
    pub(crate) promised: bool,
    /// Fences up to this one were taken from their holder by force: what it then does is not the ledger's doing.
    pub(crate) forced: Fence,
}

/// Everything.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) stored: Option<Arc<Record>>,
    /// Written, and not yet durable.
    pub(crate) unsynced: Option<(Flight, Arc<Record>)>,
    pub(crate) floor: Fence,
    pub(crate) flights: Vec<Flight>,
    pub(crate) sendings: Vec<Sending>,
    pub(crate) actors: Vec<Actor>,
    pub(crate) target: Target,
    pub(crate) past: Past,
    pub(crate) broken: Option<Broken>,
    /// The longest lease that anybody asks for here.
    pub(crate) longest: Duration,
}

/// How far `point` lies ahead; what is over is over.
fn ahead(point: Timestamp, now: Timestamp) -> u64 {
    point.as_millis().saturating_sub(now.as_millis())
}

/// How long ago `point` was, up to where no lease can still hold.
fn ago(point: Timestamp, now: Timestamp, longest: Duration) -> u128 {
    now.since(point).min(longest * 3).as_millis()
}

fn hash_parts<H: Hasher>(parts: &Parts, now: Timestamp, hasher: &mut H) {
    parts.version.hash(hasher);
    parts.times.wake.map(|wake| ahead(wake, now)).hash(hasher);
    parts.times.expires.map(|expires| ahead(expires, now)).hash(hasher);
    (parts.attempt, parts.uncounted).hash(hasher);
    parts.generation.hash(hasher);
    parts.request.policy().lease().hash(hasher);
    (parts.accepted, parts.tainted, parts.request.input().is_some()).hash(hasher);
    parts.token.hash(hasher);
    parts.last.hash(hasher);
    parts.checkpoints.hash(hasher);
    parts.state.hash(hasher);
}

fn hash_record<H: Hasher>(record: Option<&Arc<Record>>, now: Timestamp, hasher: &mut H) {
    record.is_some().hash(hasher);
    if let Some(record) = record {
        hash_parts(record.parts(), now, hasher);
    }
}

impl Flight {
    fn hash_at<H: Hasher>(&self, now: Timestamp, hasher: &mut H) {
        (self.actor, &self.order).hash(hasher);
        hash_record(self.draft.judged.as_ref(), now, hasher);
        ahead(self.draft.deadline().plus(crate::orders::TICK), now).hash(hasher);
        // Whether the record had lapsed or expired when it was looked at decides what is written.
        let judged = self.draft.judged.as_ref();
        judged.map(|record| (record.is_lapsed(self.decided), record.is_expired(self.decided))).hash(hasher);
    }
}

impl Claim {
    fn hash_at<H: Hasher>(&self, now: Timestamp, longest: Duration, hasher: &mut H) {
        (self.token, self.fence, self.life, ago(self.sent, now, longest), self.lease).hash(hasher);
        (self.tainted, self.accepted, self.work, self.steps, self.beats).hash(hasher);
    }
}

impl Actor {
    fn hash_at<H: Hasher>(&self, now: Timestamp, longest: Duration, hasher: &mut H) {
        (self.orders, self.doubts, self.crashes, self.tokens).hash(hasher);
        std::mem::discriminant(&self.mind).hash(hasher);
        match &self.mind {
            Mind::Idle => {}
            Mind::Meaning(order) => order.hash(hasher),
            Mind::Asking { order, sent, air, claim } => {
                (order, ago(*sent, now, longest), air).hash(hasher);
                claim.is_some().hash(hasher);
                if let Some(claim) = claim {
                    claim.hash_at(now, longest, hasher);
                }
            }
            Mind::Holding(claim) => claim.hash_at(now, longest, hasher),
        }
    }
}

/// By what can still matter: two worlds that hash alike behave alike.
impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hash_record(self.stored.as_ref(), self.now, hasher);
        self.unsynced.is_some().hash(hasher);
        if let Some((flight, record)) = &self.unsynced {
            flight.hash_at(self.now, hasher);
            hash_record(Some(record), self.now, hasher);
        }
        self.floor.hash(hasher);
        // In which order things went on their way does not matter, only what is on its way.
        let mut flights: Vec<u64> =
            self.flights.iter().map(|flight| digest(|to| flight.hash_at(self.now, to))).collect();
        flights.sort_unstable();
        flights.hash(hasher);
        self.sendings.hash(hasher);
        self.actors.len().hash(hasher);
        for actor in &self.actors {
            actor.hash_at(self.now, self.longest, hasher);
        }
        (&self.target, &self.past, self.broken).hash(hasher);
    }
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        digest(|to| self.hash(to)) == digest(|to| other.hash(to))
    }
}

fn digest(hash: impl FnOnce(&mut DefaultHasher)) -> u64 {
    let mut hasher = DefaultHasher::new();
    hash(&mut hasher);
    hasher.finish()
}

//! The orders beside the map: what is due, by lane, and the oldest pending record.
//!
//! What is at rest is not kept in memory, but for its place; if it is due once more, so is when.
//!
//! Most claims are completed long before anybody asks what is due, so a new one is only noted here, and put in order when somebody
//! asks and it is still there. A claim that comes and goes costs one push.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use semel_core::id::Lane;
use semel_core::record::StateName;
use semel_core::{Record, RecordId, Timestamp};

use crate::embedded::listing::{Term, terms_of};
use crate::embedded::search::Stand;
use crate::embedded::shard::IdMap;

/// What the orders know of a record.
#[derive(Clone, PartialEq, Eq)]
struct Seat {
    due: Option<(Option<Lane>, Timestamp)>,
    pending_since: Option<Timestamp>,
    stand: Stand,
    cell: u32,
    terms: Vec<Term>,
}

impl Seat {
    fn of(record: &Record, cell: u32) -> Self {
        let lane = record.due_lane().cloned();
        let is_pending = record.state().name() == StateName::Pending;
        Self {
            due: record.due().map(|due| (lane, due)),
            pending_since: is_pending.then(|| record.times().created),
            stand: (record.times().created, record.id()),
            cell,
            terms: terms_of(record).collect(),
        }
    }
}

/// Orders over unsettled records, and over settled ones that are due once more.
#[derive(Default)]
pub(crate) struct Orders {
    /// Records that changed and may be out of place.
    noted: Vec<RecordId>,
    seats: IdMap<Seat>,
    lanes: BTreeMap<Option<Lane>, BTreeSet<(Timestamp, RecordId)>>,
    pending: BTreeSet<(Timestamp, RecordId)>,
    /// Settled records that are due once more, in no lane. One that was swept may still be here.
    waits: BTreeSet<(Timestamp, RecordId)>,
    /// What is searched for, in the order of pages.
    rows: BTreeSet<(Term, u32, Stand)>,
}

/// Notes that are kept before those of records that are gone are thrown out.
const NOTES: usize = 4096;

impl Orders {
    /// Notes that a record became, or changed while being, unsettled.
    pub(crate) fn note(&mut self, id: RecordId) {
        self.noted.push(id);
    }

    /// Forgets a record that came to rest or is gone.
    pub(crate) fn forget(&mut self, id: RecordId) {
        if !self.seats.is_empty() {
            self.place(id, None);
        }
    }

    /// A settled record is due once more.
    pub(crate) fn waits(&mut self, due: Timestamp, id: RecordId) {
        self.waits.insert((due, id));
    }

    /// It is so no longer.
    pub(crate) fn waits_no_more(&mut self, due: Timestamp, id: RecordId) {
        self.waits.remove(&(due, id));
    }

    /// Settled records that are due, the longest due first.
    pub(crate) fn waiting(&self, now: Timestamp, limit: usize) -> Vec<(Timestamp, RecordId)> {
        self.waits.iter().take_while(|(due, _)| *due <= now).take(limit).copied().collect()
    }

    /// Whether notes should be put in order, to bound their number.
    pub(crate) fn is_crowded(&self) -> bool {
        self.noted.len() > NOTES.max(2 * self.seats.len())
    }

    /// Puts everything in its place. `find` gives the unsettled record of an id,
    /// and its cell.
    pub(crate) fn settle(&mut self, mut find: impl FnMut(RecordId) -> Option<(Arc<Record>, u32)>) {
        for id in std::mem::take(&mut self.noted) {
            let seat = find(id).map(|(record, cell)| Seat::of(&record, cell));
            self.place(id, seat);
        }
    }

    fn place(&mut self, id: RecordId, seat: Option<Seat>) {
        let old = match &seat {
            Some(seat) => self.seats.insert(id, seat.clone()),
            None => self.seats.remove(&id),
        };
        if old == seat {
            return;
        }
        if let Some(old) = old {
            if let Some((lane, due)) = old.due
                && let Some(order) = self.lanes.get_mut(&lane)
            {
                order.remove(&(due, id));
                if order.is_empty() {
                    self.lanes.remove(&lane);
                }
            }
            if let Some(since) = old.pending_since {
                self.pending.remove(&(since, id));
            }
            for term in old.terms {
                self.rows.remove(&(term, old.cell, old.stand));
            }
        }
        if let Some(seat) = seat {
            if let Some((lane, due)) = seat.due {
                self.lanes.entry(lane).or_default().insert((due, id));
            }
            if let Some(since) = seat.pending_since {
                self.pending.insert((since, id));
            }
            for term in seat.terms {
                self.rows.insert((term, seat.cell, seat.stand));
            }
        }
    }

    /// Ids of a lane that are due, the longest due first.
    pub(crate) fn due(&self, lane: Option<&Lane>, now: Timestamp, limit: usize) -> Vec<RecordId> {
        let order = self.lanes.get(&lane.cloned()).into_iter().flatten();
        order.take_while(|(due, _)| *due <= now).take(limit).map(|(_, id)| *id).collect()
    }

    /// Lanes with something due, the longest due first.
    pub(crate) fn lanes(&self, now: Timestamp) -> Vec<Option<Lane>> {
        let firsts = self.lanes.iter().filter_map(|(lane, order)| order.first().map(|(due, _)| (*due, lane)));
        let waiting = self.waits.first().map(|(due, _)| (*due, &None));
        let mut due: Vec<_> = firsts.chain(waiting).filter(|(due, _)| *due <= now).collect();
        due.sort();
        let mut lanes: Vec<_> = due.into_iter().map(|(_, lane)| lane.clone()).collect();
        // What waits in no lane may be at rest or not; the longest due says where it comes.
        if let Some(first) = lanes.iter().position(Option::is_none)
            && let Some(second) = lanes.iter().rposition(Option::is_none).filter(|second| *second > first)
        {
            lanes.remove(second);
        }
        lanes
    }

    /// When something becomes due next.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        let firsts = self.lanes.values().filter_map(|order| order.first()).chain(self.waits.first());
        firsts.map(|(due, _)| *due).min()
    }

    /// Records of a term and cell that stand before a place in a listing, the nearest first.
    pub(crate) fn before(&self, term: Term, cell: u32, before: Stand) -> impl Iterator<Item = Stand> + '_ {
        let first = (Timestamp::ZERO, RecordId::from_bytes([0; 16]));
        let range = self.rows.range((term, cell, first)..(term, cell, before));
        range.rev().map(|(_, _, stand)| *stand)
    }

    /// The earliest creation of a pending record.
    pub(crate) fn oldest_pending(&self) -> Option<Timestamp> {
        self.pending.first().map(|(since, _)| *since)
    }
}

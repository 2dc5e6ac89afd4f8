//! The orders beside the map: what is due, by lane, what pages look for, and the oldest pending record.
//!
//! Of what is settled only the place is kept in memory; if it is due once more, so is when. Of what waits, for a worker or for
//! somebody to look at it, it is what lists hold, and not the record: it may wait for days, and with it many more.
//!
//! Most claims are completed long before anybody asks what is due, so a new one is only noted here, and put in order when somebody
//! asks and it is still there. A claim that comes and goes costs one push. What waits is put in order while its bytes
//! are still at hand.

use std::collections::btree_map::Entry as Place;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use semel_core::id::Lane;
use semel_core::record::StateName;
use semel_core::{Record, RecordId, Timestamp};

use crate::embedded::listing::{ALL, Term, is_in, terms_of};
use crate::embedded::search::Stand;
use crate::embedded::shard::IdMap;

/// What the orders know of a record.
#[derive(PartialEq, Eq)]
pub(crate) struct Seat {
    due: Option<(Option<Lane>, Timestamp)>,
    stand: Stand,
    cell: u32,
    terms: Vec<Term>,
}

impl Seat {
    pub(crate) fn of(record: &Record, cell: u32) -> Self {
        let lane = record.due_lane().cloned();
        Self {
            due: record.due().map(|due| (lane, due)),
            stand: (record.times().created, record.id()),
            cell,
            terms: terms_of(record).collect(),
        }
    }
}

/// Orders over unsettled records, and over settled ones that are due once more.
#[derive(Default)]
pub(crate) struct Orders {
    /// Held records that changed and may be out of place.
    noted: Vec<RecordId>,
    /// Where held records stand that have a place.
    seats: IdMap<Seat>,
    /// Of held records that have a place, and of all that wait.
    lists: Lists,
    /// Settled records that are due once more, in no lane. One that was swept may still be here.
    waits: BTreeSet<(Timestamp, RecordId)>,
}

/// Where what has a seat stands.
#[derive(Default)]
struct Lists {
    lanes: BTreeMap<Option<Lane>, BTreeSet<(Timestamp, RecordId)>>,
    /// What is searched for, and under it the order of pages.
    rows: BTreeMap<(Term, u32), Stands>,
}

/// Records that are found by one thing. Of most things, such as a key, there is one.
enum Stands {
    One(Stand),
    Many(BTreeSet<Stand>),
}

impl Lists {
    fn enter(&mut self, id: RecordId, seat: &Seat) {
        if let Some((lane, due)) = &seat.due {
            match self.lanes.get_mut(lane) {
                Some(order) => drop(order.insert((*due, id))),
                None => drop(self.lanes.insert(lane.clone(), [(*due, id)].into())),
            }
        }
        for term in &seat.terms {
            match self.rows.entry((*term, seat.cell)) {
                Place::Vacant(place) => drop(place.insert(Stands::One(seat.stand))),
                Place::Occupied(place) => place.into_mut().insert(seat.stand),
            }
        }
    }

    fn is_not_due(&mut self, lane: Option<&Lane>, due: Timestamp, id: RecordId) {
        let lane = lane.cloned();
        if let Some(order) = self.lanes.get_mut(&lane) {
            order.remove(&(due, id));
            if order.is_empty() {
                self.lanes.remove(&lane);
            }
        }
    }

    fn leave(&mut self, id: RecordId, seat: &Seat) {
        if let Some((lane, due)) = &seat.due {
            self.is_not_due(lane.as_ref(), *due, id);
        }
        for term in &seat.terms {
            if let Place::Occupied(mut place) = self.rows.entry((*term, seat.cell))
                && place.get_mut().remove(seat.stand)
            {
                place.remove();
            }
        }
    }
}

impl Stands {
    fn insert(&mut self, stand: Stand) {
        match self {
            Self::One(first) if *first == stand => {}
            Self::One(first) => *self = Self::Many([*first, stand].into()),
            Self::Many(stands) => drop(stands.insert(stand)),
        }
    }

    /// Removes it, and says whether nothing is left.
    fn remove(&mut self, stand: Stand) -> bool {
        match self {
            Self::One(first) => *first == stand,
            Self::Many(stands) => {
                stands.remove(&stand);
                stands.is_empty()
            }
        }
    }

    fn first(&self) -> Option<Stand> {
        match self {
            Self::One(stand) => Some(*stand),
            Self::Many(stands) => stands.first().copied(),
        }
    }

    /// Those before a place, the nearest first.
    fn before(&self, before: Stand) -> impl Iterator<Item = Stand> + '_ {
        let (one, many) = match self {
            Self::One(stand) => (Some(*stand).filter(|stand| *stand < before), None),
            Self::Many(stands) => (None, Some(stands.range(..before).rev().copied())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

/// Notes that are kept before those of records that are gone are thrown out.
const NOTES: usize = 4096;

impl Orders {
    /// Notes that somebody holds a record, or has changed what they hold.
    pub(crate) fn note(&mut self, id: RecordId) {
        self.noted.push(id);
    }

    /// Forgets where a record stood while it was held.
    pub(crate) fn forget(&mut self, id: RecordId) {
        if !self.seats.is_empty()
            && let Some(old) = self.seats.remove(&id)
        {
            self.lists.leave(id, &old);
        }
    }

    /// Gives a record that waits its place.
    pub(crate) fn wait(&mut self, id: RecordId, seat: &Seat) {
        self.lists.enter(id, seat);
    }

    /// A record waits no more.
    pub(crate) fn leave(&mut self, id: RecordId, seat: &Seat) {
        self.lists.leave(id, seat);
    }

    /// Nobody can work on what cannot be read: it stays where pages find it, and is due no more.
    pub(crate) fn pass_over(&mut self, lane: Option<&Lane>, due: Timestamp, id: RecordId) {
        self.waits.remove(&(due, id));
        self.lists.is_not_due(lane, due, id);
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

    /// Puts everything in its place. `find` gives the record of an id and its cell while somebody holds it; what nobody
    /// holds any more has a place already, or has left.
    pub(crate) fn settle(&mut self, mut find: impl FnMut(RecordId) -> Option<(Arc<Record>, u32)>) {
        for id in std::mem::take(&mut self.noted) {
            if let Some((record, cell)) = find(id) {
                self.hold(id, Seat::of(&record, cell));
            }
        }
    }

    fn hold(&mut self, id: RecordId, seat: Seat) {
        match self.seats.entry(id) {
            Entry::Vacant(place) => self.lists.enter(id, place.insert(seat)),
            Entry::Occupied(place) if *place.get() == seat => {}
            Entry::Occupied(mut place) => {
                self.lists.leave(id, &place.insert(seat));
                self.lists.enter(id, place.get());
            }
        }
    }

    /// What is due in a lane, the longest due first.
    pub(crate) fn due(
        &self,
        lane: Option<&Lane>,
        now: Timestamp,
        limit: usize,
    ) -> Vec<(Timestamp, RecordId)> {
        let order = self.lists.lanes.get(&lane.cloned()).into_iter().flatten();
        order.take_while(|(due, _)| *due <= now).take(limit).copied().collect()
    }

    /// Lanes with something due, the longest due first.
    pub(crate) fn lanes(&self, now: Timestamp) -> Vec<Option<Lane>> {
        let firsts =
            self.lists.lanes.iter().filter_map(|(lane, order)| order.first().map(|(due, _)| (*due, lane)));
        let waiting = self.waits.first().map(|(due, _)| (*due, &None));
        let mut due: Vec<_> = firsts.chain(waiting).filter(|(due, _)| *due <= now).collect();
        due.sort();
        let mut lanes: Vec<_> = due.into_iter().map(|(_, lane)| lane.clone()).collect();
        // What waits in no lane may be settled or not; the longest due says where it comes.
        if let Some(first) = lanes.iter().position(Option::is_none)
            && let Some(second) = lanes.iter().rposition(Option::is_none).filter(|second| *second > first)
        {
            lanes.remove(second);
        }
        lanes
    }

    /// When something becomes due next.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        let firsts = self.lists.lanes.values().filter_map(|order| order.first()).chain(self.waits.first());
        firsts.map(|(due, _)| *due).min()
    }

    /// Records of a term and cell that stand before a place in a listing, the nearest first.
    pub(crate) fn before(&self, term: Term, cell: u32, before: Stand) -> impl Iterator<Item = Stand> + '_ {
        let stands = self.lists.rows.get(&(term, cell));
        stands.into_iter().flat_map(move |stands| stands.before(before))
    }

    /// The earliest creation of a pending record.
    pub(crate) fn oldest_pending(&self) -> Option<Timestamp> {
        let all = self.lists.rows.range((ALL, 0)..=(ALL, u32::MAX));
        let pending = all.filter(|((_, cell), _)| is_in(*cell, StateName::Pending));
        pending.filter_map(|(_, stands)| stands.first()).map(|(created, _)| created).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::disk::sim::Chance;
    use crate::embedded::listing::cell_of;

    fn id(n: u8) -> RecordId {
        RecordId::from_bytes([n; 16])
    }

    /// The lists, against sets that are filled anew from what is held and what waits.
    #[test]
    fn whoever_comes_and_goes_the_lists_hold_what_is_held_or_waits_and_nothing_else() {
        let mut chance = Chance::new(7);
        let mut orders = Orders::default();
        let mut waiting = IdMap::<Seat>::default();
        for _ in 0..20_000 {
            let who = chance.below(12) as u8;
            let created = Timestamp::from_millis(chance.below(4) as u64);
            let lane = [None, Lane::try_new("a").ok(), Lane::try_new("b").ok()][chance.below(3)].clone();
            let state = [StateName::Pending, StateName::Dead][chance.below(2)];
            let seat = Seat {
                due: (chance.below(3) > 0).then(|| (lane, Timestamp::from_millis(chance.below(5) as u64))),
                stand: (created, id(who)),
                cell: cell_of(chance.below(2), state),
                // One that all have, one of some, and one that may be its own.
                terms: vec![ALL, 1 + chance.below(2) as u32, 100 + u32::from(who)],
            };
            let goes_on_being_held = chance.below(4) == 0;
            if !goes_on_being_held {
                orders.forget(id(who));
            }
            if let Some(before) = waiting.remove(&id(who)) {
                orders.leave(id(who), &before);
            }
            match chance.below(4) {
                _ if goes_on_being_held => orders.hold(id(who), seat),
                0 => orders.hold(id(who), seat),
                1 | 2 => {
                    orders.wait(id(who), &seat);
                    waiting.insert(id(who), seat);
                }
                _ => {}
            }
            let seats: Vec<_> = orders.seats.iter().chain(&waiting).collect();
            let mut dues: Vec<_> =
                seats.iter().filter_map(|(id, seat)| Some((&seat.due.as_ref()?.0, **id))).collect();
            let lanes = &orders.lists.lanes;
            let mut listed: Vec<_> =
                lanes.iter().flat_map(|(lane, order)| order.iter().map(move |(_, id)| (lane, *id))).collect();
            dues.sort();
            listed.sort();
            assert_eq!(listed, dues);
            assert!(lanes.values().all(|order| !order.is_empty()));
            let pending = seats.iter().filter(|(_, seat)| is_in(seat.cell, StateName::Pending));
            assert_eq!(orders.oldest_pending(), pending.map(|(_, seat)| seat.stand.0).min());
            let last = (Timestamp::from_millis(9), id(0));
            let cells =
                [0, 1].map(|group| [StateName::Pending, StateName::Dead].map(|state| cell_of(group, state)));
            for (term, cell) in
                (0..112).flat_map(|term| cells.as_flattened().iter().map(move |cell| (term, *cell)))
            {
                let here = seats.iter().filter(|(_, seat)| seat.cell == cell && seat.terms.contains(&term));
                let mut stands: Vec<_> = here.map(|(_, seat)| seat.stand).collect();
                stands.sort();
                stands.reverse();
                assert_eq!(orders.before(term, cell, last).collect::<Vec<_>>(), stands);
                let Some(before) = stands.first() else {
                    assert!(!orders.lists.rows.contains_key(&(term, cell)));
                    continue;
                };
                assert_eq!(orders.before(term, cell, *before).collect::<Vec<_>>(), stands[1..]);
            }
        }
    }
}

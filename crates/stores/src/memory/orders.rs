//! The orders beside the map: what is due, what has expired, what there is of each kind, and where to find it. Every
//! one is maintained with the write that changes it, so that no question scans the records.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::hash::{BuildHasher, Hash};

use semel_core::id::{Lane, Namespace, Operation, RecordId};
use semel_core::query::{Count, Cursor, Query};
use semel_core::record::StateName;
use semel_core::{Record, Timestamp};

type Times = BTreeSet<(Timestamp, RecordId)>;

const STATES: usize = StateName::ALL.len();
const KINDS: usize = Namespace::ALL.len() * STATES;

/// All orders of a store.
#[derive(Default)]
pub(super) struct Orders {
    due: Times,
    due_without_lane: Times,
    due_by_lane: HashMap<Lane, Times>,
    expires: Times,
    created: BTreeSet<Cursor>,
    pending: BTreeSet<Cursor>,
    by_kind: HashMap<Operation, [BTreeSet<Cursor>; KINDS]>,
    /// Keys and tags, by a hash: what collides is left out by [`Query::matches`].
    by_name: BTreeSet<(u64, Cursor)>,
    hasher: RandomState,
}

impl Orders {
    /// A record has become another version, begun or gone. Whether something may be due earlier than it was.
    pub(super) fn change(&mut self, old: Option<&Record>, new: Option<&Record>, now: Timestamp) -> bool {
        self.change_places(old, new);
        change(&mut self.expires, old.and_then(expires), new.and_then(expires));
        self.change_due(old, new, now)
    }

    fn change_due(&mut self, old: Option<&Record>, new: Option<&Record>, now: Timestamp) -> bool {
        if let Some((entry, lane)) = old.and_then(due) {
            self.due.remove(&entry);
            match lane {
                None => drop(self.due_without_lane.remove(&entry)),
                Some(lane) => {
                    let emptied = self.due_by_lane.get_mut(lane).is_some_and(|order| {
                        order.remove(&entry);
                        order.is_empty()
                    });
                    if emptied {
                        self.due_by_lane.remove(lane);
                    }
                }
            }
        }
        let Some((entry, lane)) = new.and_then(due) else { return false };
        self.due.insert(entry);
        let order = match lane {
            None => &mut self.due_without_lane,
            Some(lane) => self.due_by_lane.entry(lane.clone()).or_default(),
        };
        order.insert(entry);
        // First in its lane, or due at once: a lane that nobody empties must not hide what comes into another.
        entry.0 <= now || order.first() == Some(&entry)
    }

    fn change_places(&mut self, old: Option<&Record>, new: Option<&Record>) {
        let place = |record: &Record| Cursor { created: record.times().created, id: record.id() };
        if old.map(place) != new.map(place) {
            if let Some(old) = old {
                self.created.remove(&place(old));
                for name in self.names(old) {
                    self.by_name.remove(&(name, place(old)));
                }
            }
            if let Some(new) = new {
                self.created.insert(place(new));
                let names = self.names(new);
                self.by_name.extend(names.into_iter().map(|name| (name, place(new))));
            }
        } else if old.map(kind) == new.map(kind) {
            return;
        }
        if let Some(old) = old {
            self.leave(old, place(old));
        }
        if let Some(new) = new {
            let operation = new.request().operation();
            if !self.by_kind.contains_key(operation) {
                self.by_kind.insert(operation.clone(), std::array::from_fn(|_| BTreeSet::new()));
            }
            if let Some(kinds) = self.by_kind.get_mut(operation) {
                kinds[kind(new)].insert(place(new));
            }
            if new.state().name() == StateName::Pending {
                self.pending.insert(place(new));
            }
        }
    }

    fn leave(&mut self, old: &Record, place: Cursor) {
        self.pending.remove(&place);
        let operation = old.request().operation();
        let emptied = self.by_kind.get_mut(operation).is_some_and(|kinds| {
            kinds[kind(old)].remove(&place);
            kinds.iter().all(BTreeSet::is_empty)
        });
        if emptied {
            self.by_kind.remove(operation);
        }
    }

    fn names(&self, record: &Record) -> Vec<u64> {
        let request = record.request();
        let tags = request.tags().iter().map(|tag| self.hash(tag));
        tags.chain([self.hash(request.key())]).collect()
    }

    fn hash(&self, name: &impl Hash) -> u64 {
        self.hasher.hash_one(name)
    }

    /// What is due in a lane at `now`, the longest due first.
    pub(super) fn due(&self, lane: Option<&Lane>, now: Timestamp) -> impl Iterator<Item = RecordId> {
        let order = match lane {
            None => Some(&self.due_without_lane),
            Some(lane) => self.due_by_lane.get(lane),
        };
        let due = order.into_iter().flatten().take_while(move |(due, _)| *due <= now);
        due.map(|(_, id)| *id)
    }

    /// Lanes that have something due at `now`, the longest due first.
    pub(super) fn lanes(&self, now: Timestamp) -> Vec<Option<Lane>> {
        let named = self.due_by_lane.iter().map(|(lane, order)| (order.first(), Some(lane)));
        let mut lanes: Vec<_> = named
            .chain([(self.due_without_lane.first(), None)])
            .filter_map(|(first, lane)| first.filter(|(due, _)| *due <= now).map(|(due, _)| (*due, lane)))
            .collect();
        lanes.sort();
        lanes.into_iter().map(|(_, lane)| lane.cloned()).collect()
    }

    /// When something is due next.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| *due)
    }

    /// What has expired by `now`.
    pub(super) fn expired(&self, now: Timestamp, limit: usize) -> Vec<RecordId> {
        let expired = self.expires.iter().take_while(|(expires, _)| *expires <= now);
        expired.take(limit).map(|(_, id)| *id).collect()
    }

    /// The earliest creation of a pending record.
    pub(super) fn oldest_pending(&self) -> Option<Timestamp> {
        self.pending.first().map(|place| place.created)
    }

    /// How many there are of each kind.
    pub(super) fn counts(&self) -> Vec<Count> {
        let mut counts = Vec::new();
        for (operation, kinds) in &self.by_kind {
            for (namespace, states) in Namespace::ALL.into_iter().zip(kinds.chunks(STATES)) {
                for (state, places) in StateName::ALL.into_iter().zip(states) {
                    let records = places.len() as u64;
                    if records > 0 {
                        counts.push(Count { namespace, operation: operation.clone(), state, records });
                    }
                }
            }
        }
        counts.sort();
        counts
    }

    /// Places where records may be that match, newest first, below `cursor`; none that matches is missing. Taken
    /// from the order that holds the fewest of the others.
    pub(super) fn candidates<'a>(
        &'a self,
        query: &Query,
        cursor: Option<Cursor>,
    ) -> Box<dyn Iterator<Item = Cursor> + 'a> {
        const FIRST: RecordId = RecordId::from_bytes([0; 16]);
        let below =
            [cursor, query.until.map(|created| Cursor { created, id: FIRST })].into_iter().flatten().min();
        let below = below.unwrap_or(Cursor { created: Timestamp::MAX, id: RecordId::from_bytes([0xff; 16]) });
        let from = Cursor { created: query.from.unwrap_or(Timestamp::ZERO), id: FIRST };
        if from >= below {
            return Box::new(std::iter::empty());
        }
        let name =
            query.key.as_ref().map(|key| self.hash(key)).or(query.tag.as_ref().map(|tag| self.hash(tag)));
        if let Some(name) = name {
            let named = self.by_name.range((name, from)..(name, below));
            return Box::new(named.rev().map(|(_, place)| *place));
        }
        if query.namespace.is_none() && query.states.is_empty() && query.operation.is_none() {
            return Box::new(self.created.range(from..below).rev().copied());
        }
        let mut kinds: Vec<_> =
            self.kinds(query).map(|places| places.range(from..below).rev().copied()).collect();
        let first = kinds.iter_mut().enumerate().filter_map(|(at, places)| Some((places.next()?, at)));
        let mut newest: BinaryHeap<_> = first.collect();
        Box::new(std::iter::from_fn(move || {
            let (place, at) = newest.pop()?;
            newest.extend(kinds[at].next().map(|next| (next, at)));
            Some(place)
        }))
    }

    fn kinds<'a>(&'a self, query: &Query) -> impl Iterator<Item = &'a BTreeSet<Cursor>> {
        let (namespace, states) = (query.namespace, query.states.clone());
        let operations: Vec<_> = match &query.operation {
            Some(operation) => self.by_kind.get(operation).into_iter().collect(),
            None => self.by_kind.values().collect(),
        };
        operations.into_iter().flat_map(move |kinds| {
            let states = states.clone();
            kinds.iter().enumerate().filter_map(move |(at, places)| {
                let (of, state) = (Namespace::ALL[at / STATES], StateName::ALL[at % STATES]);
                let asked = namespace.is_none_or(|namespace| namespace == of)
                    && (states.is_empty() || states.contains(&state));
                (asked && !places.is_empty()).then_some(places)
            })
        })
    }
}

fn change(order: &mut Times, old: Option<(Timestamp, RecordId)>, new: Option<(Timestamp, RecordId)>) {
    if old == new {
        return;
    }
    if let Some(old) = old {
        order.remove(&old);
    }
    order.extend(new);
}

fn expires(record: &Record) -> Option<(Timestamp, RecordId)> {
    record.times().expires.map(|expires| (expires, record.id()))
}

fn due(record: &Record) -> Option<((Timestamp, RecordId), Option<&Lane>)> {
    record.due().map(|due| ((due, record.id()), record.due_lane()))
}

/// The index of a record's namespace and state.
fn kind(record: &Record) -> usize {
    let namespace = record.request().scope().namespace;
    let state = record.state().name();
    let at = |found: Option<usize>| found.unwrap_or_default();
    at(Namespace::ALL.iter().position(|it| *it == namespace)) * STATES
        + at(StateName::ALL.iter().position(|it| *it == state))
}

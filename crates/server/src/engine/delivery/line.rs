//! Who waits for whom: events that this process has put off since an earlier one of their value was not done.
//!
//! What stands here only makes things quick. A record that waits has its time in the store, and comes up by itself if
//! whoever was before it ended at another node.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher as _, RandomState};

use parking_lot::Mutex;
use semel_core::Operation;
use semel_core::id::TagValue;
use semel_core::query::Cursor;

use crate::limits;

/// What is delivered one at a time: a target's events of one value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::engine) struct Order {
    pub(super) operation: Operation,
    pub(super) value: TagValue,
}

/// All lines of this process.
#[derive(Debug)]
pub(in crate::engine) struct Lines(Mutex<Waiting>);

#[derive(Debug)]
struct Waiting {
    lines: HashMap<Order, BTreeSet<Cursor>>,
    number: usize,
    /// How often something has ended, by a part of the hash of its order.
    ended: [u64; 256],
    hasher: RandomState,
}

impl Default for Lines {
    fn default() -> Self {
        let hasher = RandomState::new();
        Self(Mutex::new(Waiting { lines: HashMap::new(), number: 0, ended: [0; 256], hasher }))
    }
}

/// When somebody began to look whether it is a record's turn.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Looked(u64);

impl Waiting {
    fn ended(&mut self, order: &Order) -> &mut u64 {
        let slot = self.hasher.hash_one(order) % 256;
        &mut self.ended[usize::try_from(slot).unwrap_or_default()]
    }
}

impl Lines {
    /// Before it is looked whose turn it is.
    pub(super) fn look(&self, order: &Order) -> Looked {
        Looked(*self.0.lock().ended(order))
    }

    /// A record waits; how many wait with it, or `None` if something has ended since it was looked, and it may be the turn
    /// of whoever is first.
    pub(super) fn wait(&self, order: &Order, place: Cursor, looked: Looked) -> Option<usize> {
        let mut waiting = self.0.lock();
        if waiting.number >= limits::WAITING_KNOWN_MAX {
            waiting.lines.clear();
            waiting.number = 0;
        }
        let line = waiting.lines.entry(order.clone()).or_default();
        let (is_new, length) = (line.insert(place), line.len());
        waiting.number += usize::from(is_new);
        (*waiting.ended(order) == looked.0).then_some(length)
    }

    /// A record's turn has come, however it was found: it waits no more.
    pub(super) fn leave(&self, order: &Order, place: Cursor) {
        let mut waiting = self.0.lock();
        let Some(line) = waiting.lines.get_mut(order) else { return };
        let was_there = line.remove(&place);
        if line.is_empty() {
            waiting.lines.remove(order);
        }
        waiting.number -= usize::from(was_there);
    }

    /// Something of this order has ended: who has waited for it here, the first of all.
    pub(super) fn ended(&self, order: &Order) -> Option<Cursor> {
        let mut waiting = self.0.lock();
        *waiting.ended(order) += 1;
        waiting.first(order)
    }

    /// The first who waits, and waits no more.
    pub(super) fn first(&self, order: &Order) -> Option<Cursor> {
        self.0.lock().first(order)
    }
}

impl Waiting {
    fn first(&mut self, order: &Order) -> Option<Cursor> {
        let line = self.lines.get_mut(order)?;
        let first = line.pop_first();
        if line.is_empty() {
            self.lines.remove(order);
        }
        self.number -= usize::from(first.is_some());
        first
    }
}

#[cfg(test)]
mod tests {
    use semel_core::{RecordId, Timestamp};

    use super::*;

    fn order(value: &str) -> Order {
        Order { operation: Operation::try_new("o").unwrap(), value: TagValue::try_new(value).unwrap() }
    }

    fn place(created: u64) -> Cursor {
        Cursor { created: Timestamp::from_millis(created), id: RecordId::from_bytes([7; 16]) }
    }

    #[test]
    fn the_first_in_time_is_the_first_in_line_and_whoever_looked_too_early_is_told() {
        let (lines, a, b) = (Lines::default(), order("a"), order("b"));
        let looked = lines.look(&a);
        assert_eq!(lines.wait(&a, place(3), looked), Some(1));
        assert_eq!(lines.wait(&a, place(2), looked), Some(2));
        assert_eq!(lines.wait(&a, place(2), looked), Some(2), "it waits already");
        assert_eq!(lines.wait(&b, place(1), lines.look(&b)), Some(1));
        assert_eq!(lines.ended(&a), Some(place(2)));
        assert_eq!(lines.wait(&a, place(4), looked), None, "something has ended meanwhile");
        assert_eq!(lines.ended(&a), Some(place(3)));
        assert_eq!(lines.first(&a), Some(place(4)));
        assert_eq!(lines.ended(&a), None);
        assert_eq!(lines.ended(&b), Some(place(1)));
        assert_eq!(lines.wait(&b, place(5), lines.look(&b)), Some(1));
        lines.leave(&b, place(6));
        lines.leave(&b, place(5));
        assert_eq!(lines.ended(&b), None, "its turn had come already");
    }

    #[test]
    fn what_is_known_of_lines_has_an_end() {
        let lines = Lines::default();
        for number in 0..limits::WAITING_KNOWN_MAX as u64 {
            let order = order(&(number % 100).to_string());
            lines.wait(&order, place(number), lines.look(&order));
        }
        let a = order("a");
        assert_eq!(lines.wait(&a, place(1), lines.look(&a)), Some(1));
        assert_eq!(lines.ended(&order("7")), None, "forgotten here, and not in the store");
        assert_eq!(lines.ended(&a), Some(place(1)));
    }
}

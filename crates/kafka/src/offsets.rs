//! What may be committed: of each partition the part, without a gap, of what was delivered that is done.
//!
//! Pure book-keeping, apart from any driver. Offsets have gaps of their own (compaction, transactions), so "without a
//! gap" is said of the order of delivery. What is delivered belongs to an *assignment*: when a partition is revoked its
//! page is closed, and whatever ends later says nothing any more, even if the partition comes back meanwhile. So an old
//! offset is never committed after a reassignment.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
}

impl Place {
    /// This partition of this topic.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

/// Which delivery this was: of which assignment, and in which order within the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    assignment: u64,
    sequence: u64,
}

/// The partitions that are assigned, and what was delivered of each.
#[derive(Debug, Default)]
pub struct Offsets {
    pages: BTreeMap<Place, Page>,
    /// Counts assignments, so that no two of a partition are one.
    assignments: u64,
}

/// One partition under one assignment.
#[derive(Debug)]
struct Page {
    assignment: u64,
    /// What was delivered and is not known to be done with everything before it, in order of delivery.
    open: VecDeque<Entry>,
    /// The number of the next delivery.
    next: u64,
    /// One above the last offset of the completed prefix.
    done: Option<i64>,
    /// What of that was handed out to be committed.
    committed: Option<i64>,
    /// How many of the open ones are not done.
    running: usize,
}

#[derive(Debug)]
struct Entry {
    sequence: u64,
    offset: i64,
    is_done: bool,
}

impl Offsets {
    /// Nothing is assigned.
    pub fn new() -> Self {
        Self::default()
    }

    /// The partition is assigned anew, whatever it was before.
    pub fn assign(&mut self, place: Place) {
        self.assignments += 1;
        let page = Page {
            assignment: self.assignments,
            open: VecDeque::new(),
            next: 0,
            done: None,
            committed: None,
            running: 0,
        };
        self.pages.insert(place, page);
    }

    /// The partition is not assigned any more: nothing of it is committed from now on.
    pub fn revoke(&mut self, place: &Place) {
        self.pages.remove(place);
    }

    /// The partitions that are assigned.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.pages.keys()
    }

    /// Whether it is assigned.
    pub fn is_assigned(&self, place: &Place) -> bool {
        self.pages.contains_key(place)
    }

    /// A message was delivered. `None` if its partition is not assigned: it is somebody else's.
    ///
    /// A partition that begins anew further back (its log was cut off, its offset reset) takes back what was delivered
    /// from there on: that is delivered once more, and only the last delivery of each counts.
    pub fn deliver(&mut self, place: &Place, offset: i64) -> Option<Ticket> {
        let page = self.pages.get_mut(place)?;
        while page.open.back().is_some_and(|last| last.offset >= offset) {
            if let Some(last) = page.open.pop_back() {
                page.running -= usize::from(!last.is_done);
            }
        }
        // What was done from there on says nothing of what comes now: it is committed once that is done.
        page.done = page.done.filter(|done| *done <= offset);
        let sequence = page.next;
        page.next += 1;
        page.open.push_back(Entry { sequence, offset, is_done: false });
        page.running += 1;
        Some(Ticket { assignment: page.assignment, sequence })
    }

    /// What was delivered is done: handled, found to be a duplicate, or put aside for good. `false` if that says nothing
    /// any more.
    pub fn complete(&mut self, place: &Place, ticket: Ticket) -> bool {
        let Some(page) = self.pages.get_mut(place).filter(|page| page.assignment == ticket.assignment) else {
            return false;
        };
        let Ok(index) = page.open.binary_search_by_key(&ticket.sequence, |entry| entry.sequence) else {
            return false;
        };
        let entry = &mut page.open[index];
        if entry.is_done {
            return false;
        }
        entry.is_done = true;
        page.running -= 1;
        while let Some(first) = page.open.front().filter(|first| first.is_done) {
            page.done = page.done.max(Some(first.offset.saturating_add(1)));
            page.open.pop_front();
        }
        true
    }

    /// Deliveries of a partition that are not done.
    pub fn running(&self, place: &Place) -> usize {
        self.pages.get(place).map_or(0, |page| page.running)
    }

    /// Deliveries that are held for a partition: those that are not done, and what is done behind one of them.
    pub fn held(&self, place: &Place) -> usize {
        self.pages.get(place).map_or(0, |page| page.open.len())
    }

    /// One above the last offset of the completed prefix, if anything is done.
    pub fn done(&self, place: &Place) -> Option<i64> {
        self.pages.get(place).and_then(|page| page.done)
    }

    /// What is to be committed of a partition: the offset at which its next consumer begins. `None` if nothing was added
    /// since it was asked last. It only rises within an assignment.
    pub fn take(&mut self, place: &Place) -> Option<i64> {
        let page = self.pages.get_mut(place)?;
        let next = page.done.filter(|done| page.committed.is_none_or(|committed| committed < *done))?;
        page.committed = Some(next);
        Some(next)
    }

    /// The same of all partitions.
    pub fn take_all(&mut self) -> Vec<(Place, i64)> {
        let places: Vec<Place> = self.pages.keys().cloned().collect();
        places
            .into_iter()
            .filter_map(|place| {
                let offset = self.take(&place)?;
                Some((place, offset))
            })
            .collect()
    }

    /// A commit of these failed: they are handed out again, if they are still anybody's here.
    pub fn not_committed(&mut self, place: &Place, offset: i64) {
        if let Some(page) = self.pages.get_mut(place).filter(|page| page.committed == Some(offset)) {
            page.committed = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place::new("orders", 0)
    }

    fn assigned() -> Offsets {
        let mut offsets = Offsets::new();
        offsets.assign(place());
        offsets
    }

    fn deliver(offsets: &mut Offsets, offset: i64) -> Ticket {
        offsets.deliver(&place(), offset).unwrap()
    }

    #[test]
    fn non_contiguous_commits_would_skip_a_failed_message() {
        let mut offsets = assigned();
        let tickets: Vec<_> = [10, 11, 15, 16].map(|offset| deliver(&mut offsets, offset)).into();
        assert!(offsets.complete(&place(), tickets[1]));
        assert!(offsets.complete(&place(), tickets[2]));
        assert_eq!(offsets.take(&place()), None, "10 is not done");
        assert!(offsets.complete(&place(), tickets[0]));
        assert_eq!(offsets.take(&place()), Some(16), "one above 15: the gap is the broker's own");
        assert_eq!((offsets.take(&place()), offsets.running(&place())), (None, 1));
        assert!(offsets.complete(&place(), tickets[3]));
        assert_eq!(offsets.take_all(), [(place(), 17)]);
    }

    #[test]
    fn an_old_offset_is_never_committed_after_reassignment() {
        let mut offsets = assigned();
        let old = deliver(&mut offsets, 10);
        offsets.revoke(&place());
        assert!(!offsets.complete(&place(), old), "it is somebody else's");
        offsets.assign(place());
        assert!(!offsets.complete(&place(), old), "the partition came back, its old deliveries did not");
        assert_eq!(offsets.take(&place()), None);
        let new = deliver(&mut offsets, 90);
        assert!(!offsets.complete(&place(), old));
        assert!(offsets.complete(&place(), new));
        assert_eq!(offsets.take(&place()), Some(91));
    }

    #[test]
    fn a_partition_that_begins_anew_further_back_waits_for_what_it_delivers_again() {
        let mut offsets = assigned();
        let tickets: Vec<_> = [10, 11, 12].map(|offset| deliver(&mut offsets, offset)).into();
        let again = deliver(&mut offsets, 11);
        assert!(!offsets.complete(&place(), tickets[1]) && !offsets.complete(&place(), tickets[2]));
        assert!(offsets.complete(&place(), again));
        assert_eq!(offsets.take(&place()), None, "10 is still at work");
        assert!(offsets.complete(&place(), tickets[0]));
        assert_eq!(offsets.take(&place()), Some(12), "and 12 is to come again");
    }

    #[test]
    fn a_commit_that_failed_is_asked_for_again_and_what_is_not_assigned_is_nobodys() {
        let mut offsets = assigned();
        assert_eq!(offsets.deliver(&Place::new("orders", 1), 5), None);
        let ticket = deliver(&mut offsets, 5);
        assert!(offsets.complete(&place(), ticket) && !offsets.complete(&place(), ticket), "once");
        assert_eq!(offsets.take(&place()), Some(6));
        offsets.not_committed(&place(), 6);
        assert_eq!(offsets.take(&place()), Some(6));
        let ticket = deliver(&mut offsets, 6);
        assert!(offsets.complete(&place(), ticket));
        assert_eq!(offsets.take(&place()), Some(7));
        offsets.not_committed(&place(), 6);
        assert_eq!(offsets.take(&place()), None, "a later commit has covered it");
    }
}

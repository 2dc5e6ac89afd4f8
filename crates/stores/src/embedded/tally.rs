//! How many records there are by namespace, operation and state: kept up to date, never counted.

use std::collections::HashMap;

use semel_core::Record;
use semel_core::id::{Namespace, Operation};
use semel_core::query::Count;
use semel_core::record::StateName;

/// Where a record is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) group: u32,
    pub(crate) state: StateName,
}

/// Counts of records. Operations are names from the configuration, so there are few.
#[derive(Default)]
pub(crate) struct Tally {
    groups: HashMap<(Namespace, Operation), usize>,
    counts: Vec<[u64; StateName::ALL.len()]>,
    /// The group of the record before: neighbours in a batch often share it.
    last: Option<(Namespace, Operation, usize)>,
}

impl Tally {
    /// The number of a group.
    pub(crate) fn group(&mut self, namespace: Namespace, operation: &Operation) -> usize {
        if let Some((last_namespace, last_operation, group)) = &self.last
            && *last_namespace == namespace
            && last_operation == operation
        {
            return *group;
        }
        let next = self.counts.len();
        let group = *self.groups.entry((namespace, operation.clone())).or_insert(next);
        if group == next {
            self.counts.push([0; StateName::ALL.len()]);
        }
        self.last = Some((namespace, operation.clone(), group));
        group
    }

    /// The cell that counts a record.
    pub(crate) fn cell(&mut self, record: &Record) -> Cell {
        let request = record.request();
        let group = self.group(request.scope().namespace, request.operation());
        Cell { group: group as u32, state: record.state().name() }
    }

    pub(crate) fn add_many(&mut self, group: usize, state: StateName, records: u64) {
        self.counts[group][state as usize] += records;
    }

    pub(crate) fn add(&mut self, cell: Cell) {
        self.counts[cell.group as usize][cell.state as usize] += 1;
    }

    pub(crate) fn subtract(&mut self, cell: Cell) {
        self.subtract_from(cell.group as usize, cell.state);
    }

    pub(crate) fn subtract_from(&mut self, group: usize, state: StateName) {
        let count = &mut self.counts[group][state as usize];
        *count = count.saturating_sub(1);
    }

    /// How many records are neither completed nor released.
    pub(crate) fn unsettled(&self) -> u64 {
        let is_settled = |state| matches!(state, StateName::Completed | StateName::Released);
        let states = || StateName::ALL.into_iter().filter(|state| !is_settled(*state));
        self.counts.iter().flat_map(|counts| states().map(|state| counts[state as usize])).sum()
    }

    /// All groups: number, namespace, operation.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (usize, Namespace, &Operation)> + '_ {
        self.groups.iter().map(|((namespace, operation), group)| (*group, *namespace, operation))
    }

    /// The counts that are not zero, in order.
    pub(crate) fn counts(&self) -> Vec<Count> {
        let mut counts = Vec::new();
        for ((namespace, operation), group) in &self.groups {
            for (state, records) in StateName::ALL.into_iter().zip(self.counts[*group]) {
                if records > 0 {
                    counts.push(Count {
                        namespace: *namespace,
                        operation: operation.clone(),
                        state,
                        records,
                    });
                }
            }
        }
        counts.sort();
        counts
    }
}

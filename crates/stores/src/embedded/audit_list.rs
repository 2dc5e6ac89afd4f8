//! What a segment holds of the audit log: lines in the order of their numbers, and rows by what entries are searched
//! for. As with records: in memory while the segment is written to, then in its sidecar.
//!
//! An entry's cell is who did what: operation, actor and action. So whatever mix of those is asked for, with one of
//! record, request, key and tag or none, is a merge of a few sorted runs.

use std::io;
use std::sync::LazyLock;

use semel_core::Timestamp;
use semel_core::audit::Action;
use semel_core::id::{Operation, RecordId};
use semel_core::query::AuditQuery;
use semel_core::record::Text;

use crate::codec::{AuditGlance, Corrupt};
use crate::embedded::groups::GroupNumbers;
use crate::embedded::index::Place;
use crate::embedded::listing::{ALL, Term, TermKind, key_term, rank, tag_term};

/// An entry: its number, when it was stamped, and where it lies. Numbers and times rise together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AuditLine {
    pub(crate) sequence: u64,
    pub(crate) at: Timestamp,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

impl AuditLine {
    pub(crate) fn place(&self, segment: u32) -> Place {
        Place::new(segment, self.offset, self.len as usize)
    }
}

/// A line of the list that is searched: within a term and a cell by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AuditRow {
    pub(crate) term: Term,
    pub(crate) cell: u32,
    /// Which line.
    pub(crate) line: u32,
}

/// Whose entries a cell holds.
pub(crate) type AuditGroup = (Option<Operation>, Text);

const ACTION_BITS: u32 = 5;
const _: () = assert!(Action::ALL.len() <= 1 << ACTION_BITS, "an action fits its bits of a cell");

fn cell_of(group: usize, action: Action) -> u32 {
    (group as u32) << ACTION_BITS | action as u32
}

/// Whether a cell's entries are asked for.
pub(crate) fn is_asked_for(query: &AuditQuery, groups: &[AuditGroup], cell: u32) -> bool {
    let Some((operation, actor)) = groups.get((cell >> ACTION_BITS) as usize) else { return false };
    query.action.is_none_or(|action| action as u32 == cell & ((1 << ACTION_BITS) - 1))
        && (query.operation.is_none() || *operation == query.operation)
        && query.actor.as_deref().is_none_or(|wanted| actor.as_str() == wanted)
}

/// What a query is looked up by: the narrowest thing that it says. `None` where it says nothing but when.
pub(crate) fn term_of(query: &AuditQuery) -> Option<Term> {
    if let Some(record) = query.record {
        return Some(record_term(record));
    }
    if let Some(correlation_id) = &query.correlation_id {
        return Some(correlation_term(correlation_id));
    }
    if let Some(key) = &query.key {
        return Some(key_term(key.as_str()));
    }
    if let Some(tag) = &query.tag {
        return Some(tag_term(tag.name.as_str(), tag.value.as_str()));
    }
    let says_who = query.operation.is_some() || query.actor.is_some() || query.action.is_some();
    says_who.then_some(ALL)
}

fn record_term(record: RecordId) -> Term {
    static RECORD: LazyLock<TermKind> = LazyLock::new(|| TermKind::new(b"record"));
    RECORD.of("", record.hex().as_str())
}

fn correlation_term(id: &str) -> Term {
    static CORRELATION: LazyLock<TermKind> = LazyLock::new(|| TermKind::new(b"correlation"));
    CORRELATION.of("", id)
}

fn terms_of(entry: &AuditGlance<'_>) -> impl Iterator<Item = Term> {
    let record = entry.record.map(record_term);
    let correlation = entry.correlation_id.map(correlation_term);
    let tags = entry.tags.iter().map(|(name, value)| tag_term(name, value));
    [Some(ALL), record, correlation, entry.key.map(key_term)].into_iter().flatten().chain(tags)
}

/// The lists of a segment, wherever they are.
pub(crate) trait AuditLists {
    /// How many lines there are, and the one at a place in the order of numbers.
    fn lines(&self) -> u32;
    fn line(&self, at: u32) -> io::Result<AuditLine>;
    /// How many rows there are, and the one at a place in the order of (term, cell, number), with its line.
    fn finders(&self) -> u32;
    fn finder(&self, at: u32) -> io::Result<(Term, u32)>;
    fn line_of_row(&self, at: u32) -> io::Result<AuditLine>;
    fn groups(&self) -> &[AuditGroup];
}

/// The first place from `low` on, below `high`, that is not before what is looked for.
fn partition(
    mut low: u32,
    mut high: u32,
    mut is_before: impl FnMut(u32) -> io::Result<bool>,
) -> io::Result<u32> {
    while low < high {
        let middle = low + (high - low) / 2;
        if is_before(middle)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// The number of the first line that was not stamped before `at`.
pub(crate) fn first_at(lists: &dyn AuditLists, at: Timestamp) -> io::Result<Option<u64>> {
    let first = partition(0, lists.lines(), |line| Ok(lists.line(line)?.at < at))?;
    if first < lists.lines() { Ok(Some(lists.line(first)?.sequence)) } else { Ok(None) }
}

/// The cells that hold entries under a term, by leaps from one to the next.
pub(crate) fn cells_under(lists: &dyn AuditLists, term: Term) -> io::Result<Vec<u32>> {
    let mut cells = Vec::new();
    let mut at = partition(0, lists.finders(), |row| Ok(lists.finder(row)?.0 < term))?;
    while at < lists.finders() {
        let (found, cell) = lists.finder(at)?;
        if found != term {
            break;
        }
        cells.push(cell);
        at = partition(at, lists.finders(), |row| Ok(lists.finder(row)? <= (term, cell)))?;
    }
    Ok(cells)
}

/// The last few lines below a number, the newest last: of a term and cell, or of all.
pub(crate) fn lines_before(
    lists: &dyn AuditLists,
    of: Option<(Term, u32)>,
    before: u64,
    count: usize,
) -> io::Result<Vec<AuditLine>> {
    let mut at = match of {
        None => partition(0, lists.lines(), |line| Ok(lists.line(line)?.sequence < before))?,
        Some(of) => partition(0, lists.finders(), |row| {
            let found = lists.finder(row)?;
            Ok(found < of || (found == of && lists.line_of_row(row)?.sequence < before))
        })?,
    };
    let mut lines = Vec::new();
    while at > 0 && lines.len() < count {
        at -= 1;
        match of {
            None => lines.push(lists.line(at)?),
            Some(of) if lists.finder(at)? == of => lines.push(lists.line_of_row(at)?),
            Some(_) => break,
        }
    }
    lines.reverse();
    Ok(lines)
}

/// The lists in memory.
#[derive(Debug, Default)]
pub(crate) struct AuditList {
    /// In the order of the log: what a merge has carried stands behind younger entries.
    pub(crate) lines: Vec<AuditLine>,
    pub(crate) rows: Vec<AuditRow>,
    pub(crate) groups: Vec<AuditGroup>,
    group_numbers: GroupNumbers,
    last_group: Option<usize>,
    /// Lines in the order of their numbers.
    order: Vec<u32>,
    sorted_rows: usize,
}

impl AuditList {
    pub(crate) fn add(&mut self, line: AuditLine, entry: &AuditGlance<'_>) -> Result<(), Corrupt> {
        let (cell, at) = (cell_of(self.group(entry)?, entry.action), self.lines.len() as u32);
        self.rows.extend(terms_of(entry).map(|term| AuditRow { term, cell, line: at }));
        self.lines.push(line);
        Ok(())
    }

    fn group(&mut self, entry: &AuditGlance<'_>) -> Result<usize, Corrupt> {
        // Neighbours are often of one group.
        if let Some(last) = self.last_group
            && self.groups[last].0.as_ref().map(Operation::as_str) == entry.operation
            && self.groups[last].1.as_str() == entry.actor
        {
            return Ok(last);
        }
        let groups = &mut self.groups;
        let names = [entry.operation.unwrap_or_default(), entry.actor];
        let number = self.group_numbers.of(u8::from(entry.operation.is_some()), names, || {
            let operation = entry.operation.map(Operation::try_new).transpose();
            let operation = operation.map_err(|_| Corrupt("no name of an operation"))?;
            groups.push((operation, Text::new(entry.actor)));
            Ok(groups.len() - 1)
        })?;
        self.last_group = Some(number);
        Ok(number)
    }

    /// Sorts what has come since the last time; what was there before is one run already.
    pub(crate) fn sort(&mut self) {
        let lines = &self.lines;
        if self.order.len() < lines.len() {
            self.order.extend(self.order.len() as u32..lines.len() as u32);
            self.order.sort_by_key(|at| lines[*at as usize].sequence);
        }
        if self.sorted_rows < self.rows.len() {
            self.rows.sort_by_key(|row| (row.term, row.cell, lines[row.line as usize].sequence));
            self.sorted_rows = self.rows.len();
        }
    }

    /// Puts lines and rows in the order of a sidecar.
    pub(crate) fn finish(&mut self) {
        // Only what a merge has carried stands behind younger entries.
        if !self.lines.is_sorted_by_key(|line| line.sequence) {
            let mut order: Vec<_> = self.lines.iter().map(|line| line.sequence).zip(0_u32..).collect();
            order.sort_unstable();
            let mut moved = vec![0; self.lines.len()];
            for (to, (_, from)) in (0..).zip(&order) {
                moved[*from as usize] = to;
            }
            self.lines = order.iter().map(|(_, at)| self.lines[*at as usize]).collect();
            self.rows.iter_mut().for_each(|row| row.line = moved[row.line as usize]);
        }
        self.order = (0..self.lines.len() as u32).collect();
        // By number is by place now.
        self.rows.sort_unstable_by_key(|row| rank(row.term, row.cell, row.line));
        self.sorted_rows = self.rows.len();
    }
}

impl AuditLists for AuditList {
    fn lines(&self) -> u32 {
        self.order.len() as u32
    }

    fn line(&self, at: u32) -> io::Result<AuditLine> {
        Ok(self.lines[self.order[at as usize] as usize])
    }

    fn finders(&self) -> u32 {
        self.sorted_rows as u32
    }

    fn finder(&self, at: u32) -> io::Result<(Term, u32)> {
        let row = self.rows[at as usize];
        Ok((row.term, row.cell))
    }

    fn line_of_row(&self, at: u32) -> io::Result<AuditLine> {
        Ok(self.lines[self.rows[at as usize].line as usize])
    }

    fn groups(&self) -> &[AuditGroup] {
        &self.groups
    }
}

//! What a batch's statement is given: a row for each command, and what many have in common once.

use tokio_postgres::types::ToSql;

use super::batch::{Answers, Batches, Ended, Replacement, ask};
use super::error::Kind;
use super::rows::{Draft, Id, literal, millis, version_numbers};
use super::store::Shared;

pub(super) async fn insert_rows(
    shared: &Shared,
    batches: &Batches,
    drafts: &[&Draft],
) -> Result<Answers, Ended> {
    let own = Own::of(shared, drafts);
    let kinds = Kinds::of(drafts);
    let after = unless_none(drafts, |draft| Some(draft.after).filter(|after| *after > 0));
    let keys: Vec<_> = drafts.iter().map(|draft| draft.key).collect();
    // An array of arrays would have to be a rectangle.
    let names = unless_none(drafts, |draft| (!draft.names.is_empty()).then(|| literal(&draft.names)));
    let statement = if names.is_some() { &shared.sql.insert_many_tagged } else { &shared.sql.insert_many };
    let values: [&(dyn ToSql + Sync); 15] = [
        &own.ids,
        &after,
        &keys,
        &names,
        &own.heads,
        &own.inputs,
        &own.locks,
        &kinds.of,
        &kinds.namespaces,
        &kinds.operations,
        &kinds.lanes,
        &kinds.states,
        &kinds.wakes,
        &kinds.rests,
        &kinds.deadlines,
    ];
    ask(shared, batches, ("insert", Kind::Write), statement, &values).await
}

pub(super) async fn replace_rows(
    shared: &Shared,
    batches: &Batches,
    replacements: &[&Replacement],
) -> Result<Answers, Ended> {
    let drafts: Vec<_> = replacements.iter().map(|one| &one.draft).collect();
    let own = Own::of(shared, &drafts);
    let kinds = Kinds::of(&drafts);
    let (fences, sequences): (Vec<_>, Vec<_>) =
        replacements.iter().map(|one| version_numbers(one.expected)).unzip();
    let values: [&(dyn ToSql + Sync); 15] = [
        &own.ids,
        &fences,
        &sequences,
        &own.heads,
        &own.inputs,
        &own.locks,
        &kinds.of,
        &kinds.raise,
        &kinds.operations,
        &kinds.lanes,
        &kinds.states,
        &kinds.keep_wake,
        &kinds.wakes,
        &kinds.rests,
        &kinds.deadlines,
    ];
    ask(shared, batches, ("replace", Kind::Write), &shared.sql.replace_many, &values).await
}

/// A column, if anybody has something in it.
fn unless_none<'a, T>(drafts: &[&'a Draft], of: impl Fn(&'a Draft) -> Option<T>) -> Option<Vec<Option<T>>> {
    let column: Vec<_> = drafts.iter().map(|draft| of(draft)).collect();
    column.iter().any(Option::is_some).then_some(column)
}

/// What every write brings along, by column.
struct Own<'a> {
    ids: Vec<Id>,
    heads: Vec<&'a [u8]>,
    inputs: Option<Vec<Option<&'a [u8]>>>,
    locks: Vec<i64>,
}

impl<'a> Own<'a> {
    fn of(shared: &Shared, drafts: &[&'a Draft]) -> Self {
        Self {
            ids: drafts.iter().map(|draft| draft.id).collect(),
            heads: drafts.iter().map(|draft| draft.head.as_slice()).collect(),
            inputs: unless_none(drafts, |draft| draft.input.as_deref()),
            locks: drafts.iter().map(|draft| shared.sql.lock_of(draft.id.0)).collect(),
        }
    }
}

/// What writes have in common, by column, and of which kind each is, from one on.
#[derive(Default)]
struct Kinds<'a> {
    of: Vec<i16>,
    namespaces: Vec<i16>,
    operations: Vec<&'a str>,
    lanes: Vec<&'a str>,
    states: Vec<i16>,
    raise: Vec<bool>,
    keep_wake: Vec<bool>,
    wakes: Vec<Option<i64>>,
    rests: Vec<Option<i64>>,
    deadlines: Vec<i64>,
}

impl<'a> Kinds<'a> {
    fn of(drafts: &[&'a Draft]) -> Self {
        let mut kinds = Self::default();
        for draft in drafts {
            // There are a few in a batch: an operation or two, in as many milliseconds as it was gathered in.
            let at = (0..kinds.states.len()).rev().find(|at| kinds.is(*at, draft));
            let at = at.unwrap_or_else(|| kinds.add(draft));
            kinds.of.push(i16::try_from(at + 1).unwrap_or(i16::MAX));
        }
        kinds
    }

    fn is(&self, at: usize, draft: &Draft) -> bool {
        self.deadlines[at] == millis(draft.deadline)
            && self.namespaces[at] == draft.namespace
            && self.states[at] == draft.state
            && self.raise[at] == draft.raise
            && self.keep_wake[at] == draft.keep_wake
            && self.wakes[at] == draft.wake
            && self.rests[at] == draft.rests
            && self.operations[at] == draft.operation.as_str()
            && self.lanes[at] == draft.lane
    }

    fn add(&mut self, draft: &'a Draft) -> usize {
        self.namespaces.push(draft.namespace);
        self.operations.push(draft.operation.as_str());
        self.lanes.push(&draft.lane);
        self.states.push(draft.state);
        self.raise.push(draft.raise);
        self.keep_wake.push(draft.keep_wake);
        self.wakes.push(draft.wake);
        self.rests.push(draft.rests);
        self.deadlines.push(millis(draft.deadline));
        self.states.len() - 1
    }
}

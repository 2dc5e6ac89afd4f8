//! Search and audit: pages by a place that does not move, each from the narrowest order there is, merged over the shards.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;
use redis::Value;
use semel_core::audit::Entry;
use semel_core::query::{AuditCursor, AuditQuery, Cursor, Page, Query, Summary};
use semel_core::store::AsOf;
use semel_core::{Record, RecordId, StoreError, Timestamp};

use super::database::{bytes, items, text};
use super::error::Kind;
use super::keys::Shard;
use super::record::{audit_arguments, corrupt, operation_of_cell, time, unreadable};
use super::script::Script;
use super::store::Shared;
use crate::codec::{Corrupt, decode_audit};
use crate::limits;
use crate::remote::draft::{
    AuditDraft, EVERYTHING, actor_hash, key_hash, namespace_number, narrowest, operation_hash, state_number,
    tag_hash,
};
use crate::remote::pages::{self, Run, newest};

/// Bits of an audit entry's number below its time: its place within the millisecond, and its shard.
const BELOW_TIME: u32 = 21;
/// Of these, those of the shard.
const OF_SHARD: u32 = 8;
const _: () = assert!(limits::REDIS_SHARDS_MAX <= 1 << OF_SHARD);

fn place(cursor: Cursor) -> [u8; 24] {
    let mut place = [0; 24];
    place[..8].copy_from_slice(&cursor.created.as_millis().to_be_bytes());
    place[8..].copy_from_slice(cursor.id.as_bytes());
    place
}

/// Reads a time and an id, as they are in every order.
pub(super) fn place_of(bytes: &[u8]) -> Option<Cursor> {
    let (time, id) = bytes.split_first_chunk::<8>()?;
    let created = Timestamp::from_millis(u64::from_be_bytes(*time));
    Some(Cursor { created, id: RecordId::from_bytes(id.try_into().ok()?) })
}

impl Shared {
    pub(super) async fn search(
        &self,
        query: &Query,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<Summary, Cursor>, StoreError> {
        let read = |below, window| self.records(query, below, window);
        pages::page(limit, cursor.unwrap_or_else(newest), read, Some).await
    }

    /// The next places, with what is shown of those that match.
    async fn records(
        &self,
        query: &Query,
        below: Cursor,
        window: usize,
    ) -> Result<Run<Cursor, Summary>, StoreError> {
        let mut run = self.places(query, below, window).await?;
        for places in run.items.chunks_mut(limits::REDIS_LOADS_AT_ONCE) {
            let loaded = try_join_all(places.iter().map(|(place, _)| self.load(place.id))).await?;
            for ((place, shown), AsOf { as_of, value }) in places.iter_mut().zip(loaded) {
                // Another life of the key has another place.
                let is_shown = |record: &Arc<Record>| {
                    record.times().created == place.created
                        && !record.is_expired(as_of)
                        && query.matches(record)
                };
                *shown = value.filter(is_shown).map(|record| Summary::of(&record));
            }
        }
        Ok(run)
    }

    /// The next places of the narrowest order, over all shards.
    async fn places(
        &self,
        query: &Query,
        below: Cursor,
        window: usize,
    ) -> Result<Run<Cursor, Summary>, StoreError> {
        let until = query.until.map(|until| Cursor { created: until, id: RecordId::from_bytes([0; 16]) });
        let below = place(until.map_or(below, |until| until.min(below)));
        let from = query.from.map_or(0, Timestamp::as_millis).to_be_bytes();
        let kinds = query.namespace.is_some() || !query.states.is_empty() || query.operation.is_some();
        let term = if let Some(key) = &query.key {
            Some(key_hash(key))
        } else if let Some(tag) = &query.tag {
            Some(tag_hash(tag))
        } else {
            (!kinds).then_some(EVERYTHING)
        };
        let term = term.map(i64::to_be_bytes);
        let small = |number: i16| u8::try_from(number).unwrap_or(u8::MAX);
        let namespace: Vec<_> = query.namespace.map(|of| small(namespace_number(of))).into_iter().collect();
        let states: Vec<_> = query.states.iter().map(|state| small(state_number(*state))).collect();
        let operation = query.operation.as_ref().map_or("", |operation| operation.as_str());
        let count = window.to_string();
        let arguments: [&[u8]; 7] = [
            &below,
            &from,
            count.as_bytes(),
            term.as_ref().map_or(&[], |term| &term[..]),
            &namespace,
            &states,
            operation.as_bytes(),
        ];
        let asked = self.of_every_shard("search", &self.scripts.search, &arguments, |shard| {
            vec![&shard.own, &shard.names, &shard.counts]
        });
        let mut run = Run { items: Vec::new(), full: false, read: 0 };
        for answer in asked.await? {
            let [_, found @ ..] = items(&answer) else { return Err(unreadable("search")) };
            run.read += found.len() as u64;
            run.full |= found.len() >= window;
            for place in found {
                let place = bytes(place).and_then(place_of).ok_or_else(|| unreadable("search"))?;
                run.items.push((place, None));
            }
        }
        run.items.sort_unstable_by_key(|(place, _)| std::cmp::Reverse(*place));
        run.full |= run.items.len() > window;
        run.items.truncate(window);
        Ok(run)
    }

    pub(super) async fn audit(
        &self,
        query: &AuditQuery,
        cursor: Option<AuditCursor>,
        limit: usize,
    ) -> Result<Page<Entry, AuditCursor>, StoreError> {
        let number = |at: Timestamp| at.as_millis().min(u64::MAX >> BELOW_TIME) << BELOW_TIME;
        let until = query.until.map_or(u64::MAX, number);
        let below = cursor.map_or(u64::MAX, |cursor| cursor.0).min(until);
        let read = |below, window| self.entries(query, below, window);
        pages::page(limit, below, read, |number| Some(AuditCursor(number))).await
    }

    async fn entries(
        &self,
        query: &AuditQuery,
        below: u64,
        window: usize,
    ) -> Result<Run<u64, Entry>, StoreError> {
        let from = number_bytes(query.from.map_or(0, Timestamp::as_millis), 0);
        let operation = query.operation.as_ref().map(operation_hash);
        let operation = operation.map_or_else(Vec::new, |operation| operation_of_cell(Some(operation)));
        let actor = query.actor.as_deref().map(actor_hash).map(i64::to_be_bytes);
        let action = query.action.map_or("", semel_core::audit::Action::as_str);
        let term = narrowest(query);
        let all = term == EVERYTHING && operation.is_empty() && actor.is_none() && action.is_empty();
        let (term, count) = (term.to_be_bytes(), window.to_string());
        let mut run = Run { items: Vec::new(), full: false, read: 0 };
        let below: Vec<_> = self.shards.iter().map(|shard| below_of(below, shard.number)).collect();
        let arguments: Vec<[&[u8]; 7]> = below
            .iter()
            .map(|below| -> [&[u8]; 7] {
                [
                    below,
                    &from,
                    count.as_bytes(),
                    if all { &[] } else { &term },
                    &operation,
                    actor.as_ref().map_or(&[], |actor| &actor[..]),
                    action.as_bytes(),
                ]
            })
            .collect();
        let keys: Vec<_> = self
            .shards
            .iter()
            .map(|shard| [&shard.own, &shard.audit_terms, &shard.audit, &shard.audit_cells])
            .collect();
        let asked = self.shards.iter().zip(keys.iter().zip(&arguments));
        let asked: Vec<_> = asked
            .map(|(shard, (keys, arguments))| {
                self.call("audit", shard, &self.scripts.audit, keys, arguments, Kind::Read)
            })
            .collect();
        let answers = try_join_all(asked).await?;
        for (shard, answer) in self.shards.iter().zip(answers) {
            let found = numbered(&answer)?;
            run.full |= found.1.len() >= window;
            run.read += found.0;
            for (number, entry) in found.1 {
                let at = Timestamp::from_millis(number >> 16);
                let (_, entry) = decode_audit(entry).map_err(corrupt)?;
                let entry = entry.at(at);
                let shown = query.matches(&entry).then_some(entry);
                run.items.push((cursor_of(number, shard.number), shown));
            }
        }
        run.items.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
        run.full |= run.items.len() > window;
        run.items.truncate(window);
        Ok(run)
    }

    pub(super) async fn append_audit(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        if entries.is_empty() {
            return self.open("append_audit");
        }
        let drafts: Vec<_> = entries.iter().map(|entry| audit_arguments(&AuditDraft::of(entry))).collect();
        let happened: Vec<_> = entries.iter().map(|entry| entry.at.as_millis().to_string()).collect();
        let mut arguments: Vec<&[u8]> = Vec::with_capacity(5 * drafts.len());
        for (draft, happened) in drafts.iter().zip(&happened) {
            arguments.extend(draft.iter().map(Vec::as_slice));
            arguments.push(happened.as_bytes());
        }
        // They are of no record's shard, and in order.
        let shard = &self.shards[0];
        let keys = [&shard.own, &shard.audit_terms, &shard.audit, &shard.audit_cells];
        let script = &self.scripts.append_audit;
        self.call("append_audit", shard, script, &keys, &arguments, Kind::Write).await.map(drop)
    }

    pub(super) async fn forget_audit(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let before = before.as_millis().min(u64::MAX >> 16).to_string();
        let mut forgotten = 0;
        for shard in &*self.shards {
            let step = (limit - forgotten).min(limits::REDIS_FORGET_STEP);
            if step == 0 {
                break;
            }
            let arguments: [&[u8]; 2] = [before.as_bytes(), &step.to_string().into_bytes()];
            let keys = [&shard.own, &shard.audit_terms, &shard.audit];
            let script = &self.scripts.forget_audit;
            match self.call("forget_audit", shard, script, &keys, &arguments, Kind::Write).await? {
                Value::Int(count) => forgotten += usize::try_from(count).unwrap_or(0),
                _ => return Err(unreadable("forget_audit")),
            }
        }
        Ok(forgotten)
    }
}

/// A number as the scripts have it: the time and the place within it.
fn number_bytes(at: u64, sequence: u64) -> [u8; 8] {
    ((at.min(u64::MAX >> 16) << 16) | sequence).to_be_bytes()
}

/// A number with its shard, in one order over all of them.
fn cursor_of(number: u64, shard: usize) -> u64 {
    let (at, sequence) = (number >> 16, number & 0xffff);
    (at << BELOW_TIME) | (sequence << OF_SHARD) | shard as u64
}

/// What of a shard is below a place of that order.
fn below_of(cursor: u64, shard: usize) -> [u8; 8] {
    let (at, sequence) = (cursor >> BELOW_TIME, (cursor >> OF_SHARD) & 0x1fff);
    // Of the same number, the shard that comes before is below, too.
    let included = u64::from((shard as u64) < (cursor & 0xff));
    number_bytes(at, sequence + included)
}

/// How many entries were read, and those that are shown.
type Numbered = (u64, Vec<(u64, Bytes)>);

fn numbered(answer: &Value) -> Result<Numbered, StoreError> {
    let [read, found @ ..] = items(answer) else { return Err(unreadable("audit")) };
    let Value::Int(read) = read else {
        let lost = text(read).is_some_and(|said| said == "corrupt");
        return Err(if lost {
            corrupt(Corrupt("a listed entry that is not there"))
        } else {
            unreadable("audit")
        });
    };
    let pairs = found.chunks(2).map(|pair| {
        let [number, entry] = pair else { return None };
        let number = u64::from_be_bytes(bytes(number)?.try_into().ok()?);
        Some((number, Bytes::copy_from_slice(bytes(entry)?)))
    });
    let pairs: Option<Vec<_>> = pairs.collect();
    Ok((read.unsigned_abs(), pairs.ok_or_else(|| unreadable("audit"))?))
}

/// Which of a shard's keys a script is given.
pub(super) type Keys = fn(&Shard) -> Vec<&String>;

impl Shared {
    /// One script in every shard, with the same arguments.
    pub(super) async fn of_every_shard(
        &self,
        during: &'static str,
        script: &Script,
        arguments: &[&[u8]],
        keys: Keys,
    ) -> Result<Vec<Value>, StoreError> {
        let keys: Vec<_> = self.shards.iter().map(keys).collect();
        let asked = self.shards.iter().zip(&keys);
        let asked: Vec<_> = asked
            .map(|(shard, keys)| self.call(during, shard, script, keys, arguments, Kind::Read))
            .collect();
        try_join_all(asked).await
    }

    /// The same for scripts that begin with the time: the latest of the shards'.
    pub(super) async fn timed(
        &self,
        during: &'static str,
        script: &Script,
        arguments: &[&[u8]],
        keys: Keys,
    ) -> Result<(Timestamp, Vec<Value>), StoreError> {
        let (mut as_of, mut all) = (Timestamp::ZERO, Vec::new());
        for answer in self.of_every_shard(during, script, arguments, keys).await? {
            let Value::Array(mut answer) = answer else { return Err(unreadable(during)) };
            as_of = as_of.max(time(answer.first())?);
            all.extend(answer.drain(1..));
        }
        Ok((self.told(as_of), all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_several_shards_are_in_one_order() {
        let number = |at: u64, sequence: u64| (at << 16) | sequence;
        let (early, late) = (cursor_of(number(5, 8191), 200), cursor_of(number(6, 0), 0));
        assert!(early < late && cursor_of(number(6, 0), 1) > late && cursor_of(number(6, 1), 0) > late);
        let place = cursor_of(number(6, 3), 4);
        let below = |shard| u64::from_be_bytes(below_of(place, shard));
        assert_eq!([below(3), below(4), below(5)], [number(6, 4), number(6, 3), number(6, 3)]);
    }
}

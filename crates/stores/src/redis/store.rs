//! The contract of stores over Redis.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use redis::{Value, cmd};
use semel_core::audit::Entry;
use semel_core::error::StoreErrorKind;
use semel_core::id::{Lane, Operation, RecordId, Version};
use semel_core::query::{AuditCursor, AuditQuery, Count, Cursor, Page, Query, Summary};
use semel_core::store::{Answer, AsOf, Inserted, Replaced, Store};
use semel_core::write::Write;
use semel_core::{Record, StoreError, Timestamp};
use tokio::task::JoinHandle;

use super::database::{Call, Database, bytes, items, text};
use super::error::Kind;
use super::fences::Fences;
use super::find::place_of;
use super::keys::{Shard, channel, shard_of};
use super::listen::{Listener, NODE};
use super::open::{examine, shards};
use super::options::Options;
use super::record::{Draft, Swapped, record, swapped, time, unreadable, version_bytes};
use super::script::{Script, Scripts};
use crate::clock::Clock;
use crate::limits;
use crate::remote::calls::{self, Lanes, Remote, calls_of_shared};
use crate::remote::draft::{lane_name, namespace_of, state_of};
use crate::remote::kept::Stamps;
use crate::remote::open::OpenError;
use crate::remote::time::Time;
use crate::remote::wake::Waiters;

/// Records in Redis.
pub struct RedisStore {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
    warnings: Vec<String>,
}

/// What calls and background tasks share.
pub(super) struct Shared {
    pub(super) scripts: Scripts,
    pub(super) shards: Box<[Shard]>,
    time: Time,
    fences: Fences,
    database: Arc<Database>,
    waiters: Arc<Waiters>,
    look: Duration,
    /// Where changes are told, or nothing.
    channel: String,
    node: [u8; NODE],
    closed: AtomicBool,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").finish_non_exhaustive()
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl RedisStore {
    /// Connects, looks at what the servers are, and lays the prefix out if nobody has.
    ///
    /// # Errors
    /// A server cannot be reached, is too old, would throw records away, takes no writes, or holds something that this
    /// program must not touch.
    pub async fn open(options: &Options) -> Result<Self, OpenError> {
        let database = Arc::new(Database::new(options)?);
        let warnings = examine(&database, options).await?;
        let shards = shards(&database, options).await?;
        let poll = if options.notify { limits::REDIS_POLL_LISTENING } else { limits::REDIS_POLL };
        let shared = Arc::new(Shared {
            scripts: Scripts::new(options.stepped),
            shards: (0..shards).map(|number| Shard::new(&options.prefix, number)).collect(),
            time: Time::new(Arc::clone(&options.clock)),
            fences: Fences::default(),
            database,
            waiters: Arc::new(Waiters::new(false)),
            look: options.poll.unwrap_or(poll),
            channel: if options.notify { channel(&options.prefix) } else { String::new() },
            node: node_of_this_store(),
            closed: AtomicBool::new(false),
        });
        shared.database.teach(&shared.scripts.frequent()).await;
        shared.ready().await.map_err(|error| OpenError::because("Redis takes no writes", error))?;
        let mut tasks = Vec::new();
        if options.notify {
            let listener = Listener {
                waiters: Arc::clone(&shared.waiters),
                database: Arc::clone(&shared.database),
                channel: shared.channel.clone(),
                node: shared.node,
            };
            // Before anybody can wait, so that nothing has to be looked for that was missed.
            let session = listener.subscribe().await;
            tasks.push(tokio::spawn(listener.hear(session)));
        }
        Ok(Self { shared, tasks, warnings })
    }

    /// What operators should know of the servers as they are set up: what is lost when.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// Bytes that no other store has, as far as it matters: who has the same misses a hint.
fn node_of_this_store() -> [u8; NODE] {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish().to_be_bytes()
}

impl Shared {
    pub(super) fn open(&self, during: &'static str) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::not_applied(during, false, "the store is closed"));
        }
        Ok(())
    }

    pub(super) fn told(&self, as_of: Timestamp) -> Timestamp {
        self.fences.told(as_of, self.time.clock());
        self.time.told(as_of)
    }

    fn shard(&self, id: RecordId) -> &Shard {
        &self.shards[shard_of(id, self.shards.len())]
    }

    pub(super) async fn call(
        &self,
        during: &'static str,
        shard: &Shard,
        script: &Script,
        keys: &[&String],
        arguments: &[&[u8]],
        kind: Kind,
    ) -> Result<Value, StoreError> {
        self.open(during)?;
        let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
        let call = Call { slot: shard.slot, script, keys: &keys, arguments };
        let mut again = if kind == Kind::Read { limits::REDIS_READS_AGAIN } else { 0 };
        loop {
            match self.database.call(&call).await {
                // What changes nothing may be said twice.
                Err(failure) if failure.is_lost_connection() && again > 0 => again -= 1,
                answer => return answer.map_err(|failure| failure.into_error(kind, during)),
            }
        }
    }

    /// The swap: `expected` is empty where nothing may be.
    async fn write(
        &self,
        during: &'static str,
        draft: &Draft,
        expected: &[u8],
    ) -> Result<(Timestamp, Swapped), StoreError> {
        let shard = self.shard(draft.id);
        let record_key = shard.record(draft.id);
        let mut keys = vec![&shard.own, &record_key, &shard.due, &shard.names, &shard.expires, &shard.counts];
        let flag = |on: bool| if on { &b"1"[..] } else { b"0" };
        let deadline = draft.deadline.as_millis().to_string();
        let (after, floor) = (draft.after.to_string(), self.fences.floor(self.time.clock()).to_string());
        let mut arguments: Vec<&[u8]> = vec![
            expected,
            deadline.as_bytes(),
            after.as_bytes(),
            floor.as_bytes(),
            flag(draft.raise),
            flag(draft.begins),
            draft.wake.as_bytes(),
            draft.rests.as_bytes(),
            draft.lane.as_bytes(),
            &draft.kind,
            &draft.terms,
            &draft.head,
            &draft.input,
            draft.id.as_bytes(),
            flag(self.database.wait.is_some()),
            self.channel.as_bytes(),
            &self.node,
        ];
        if let Some(audit) = &draft.audit {
            keys.extend([&shard.audit_terms, &shard.audit, &shard.audit_cells]);
            arguments.extend(audit.iter().map(Vec::as_slice));
        }
        let answer = self.call(during, shard, &self.scripts.write, &keys, &arguments, Kind::Write).await?;
        let (now, swapped) = swapped(&answer)?;
        if matches!(swapped, Swapped::Late) {
            self.told(now);
            return Err(StoreError::not_applied(during, true, "the write came after its deadline"));
        }
        Ok((now, swapped))
    }

    fn written(&self, draft: &Draft, now: Timestamp, stamps: Stamps) -> Result<Arc<Record>, StoreError> {
        self.told(now);
        let record = draft.stamped(stamps)?;
        self.fences.seen(record.fence());
        self.waiters.changed(record.id());
        self.waiters.written(&record, now);
        Ok(record)
    }

    /// What is there, and when that held: a record's times are never after it.
    fn shown<T>(&self, now: Timestamp, record: Option<&Arc<Record>>, value: T) -> AsOf<T> {
        let written = record.map_or(Timestamp::ZERO, |record| record.times().written);
        if let Some(record) = record {
            self.fences.seen(record.fence());
        }
        AsOf { as_of: self.told(now.max(written)), value }
    }

    async fn insert(&self, write: Write) -> Result<AsOf<Inserted>, StoreError> {
        const DURING: &str = "insert";
        let draft = Draft::of(write).map_err(|why| StoreError::not_applied(DURING, false, why))?;
        match self.write(DURING, &draft, &[]).await? {
            (now, Swapped::Done(stamps)) => {
                let record = self.written(&draft, now, stamps)?;
                Ok(AsOf { as_of: now, value: Inserted::Inserted(record) })
            }
            (now, Swapped::Conflict(Some(there))) => {
                Ok(self.shown(now, Some(&there), Inserted::Occupied(Arc::clone(&there))))
            }
            (_, Swapped::Late | Swapped::Conflict(None)) => Err(unreadable(DURING)),
        }
    }

    async fn replace(&self, write: Write, expected: Version) -> Result<AsOf<Replaced>, StoreError> {
        const DURING: &str = "replace";
        let draft = Draft::of(write).map_err(|why| StoreError::not_applied(DURING, false, why))?;
        match self.write(DURING, &draft, &version_bytes(expected)).await? {
            (now, Swapped::Done(stamps)) => {
                let record = self.written(&draft, now, stamps)?;
                Ok(AsOf { as_of: now, value: Replaced::Replaced(record) })
            }
            (now, Swapped::Conflict(there)) => {
                Ok(self.shown(now, there.as_ref(), Replaced::Conflict(there.clone())))
            }
            (_, Swapped::Late) => Err(unreadable(DURING)),
        }
    }

    pub(super) async fn load(&self, id: RecordId) -> Result<AsOf<Option<Arc<Record>>>, StoreError> {
        let shard = self.shard(id);
        let waits = self.database.wait.is_some();
        let script = if waits { &self.scripts.load_waiting } else { &self.scripts.load };
        let flag: &[u8] = if waits { b"1" } else { b"0" };
        let answer =
            self.call("load", shard, script, &[&shard.own, &shard.record(id)], &[flag], Kind::Read).await?;
        let [now, fields @ ..] = items(&answer) else { return Err(unreadable("load")) };
        let there = record(fields)?;
        Ok(self.shown(time(Some(now))?, there.as_ref(), there.clone()))
    }

    /// Removes the version that is expected; without one, whatever has expired.
    async fn take_away(
        &self,
        during: &'static str,
        id: RecordId,
        expected: &[u8],
    ) -> Result<bool, StoreError> {
        let shard = self.shard(id);
        let record_key = shard.record(id);
        let keys = [&shard.own, &record_key, &shard.due, &shard.names, &shard.expires, &shard.counts];
        let arguments = [expected, id.as_bytes(), self.channel.as_bytes(), &self.node];
        let answer = self.call(during, shard, &self.scripts.remove, &keys, &arguments, Kind::Write).await?;
        let (now, swapped) = swapped(&answer)?;
        self.told(now);
        let removed = matches!(swapped, Swapped::Done(_));
        if removed {
            self.waiters.changed(id);
        }
        Ok(removed)
    }

    async fn remove(&self, id: RecordId, expected: Version) -> Result<bool, StoreError> {
        self.take_away("remove", id, &version_bytes(expected)).await
    }

    /// Whether it was removed; `None` if it cannot be read.
    async fn remove_expired(&self, id: RecordId) -> Result<Option<bool>, StoreError> {
        match self.take_away("sweep", id, &[]).await {
            Err(error) if error.kind() == StoreErrorKind::Corrupt => Ok(None),
            removed => removed.map(Some),
        }
    }

    /// The lanes, each with its earliest; and the time.
    async fn lanes(&self, during: &'static str) -> Result<AsOf<Lanes>, StoreError> {
        let (as_of, answers) =
            self.timed(during, &self.scripts.lanes, &[], |shard| vec![&shard.own, &shard.due]).await?;
        let mut lanes = Lanes::new();
        for pair in answers.chunks(2) {
            let [lane, wake] = pair else { return Err(unreadable(during)) };
            let wake = bytes(wake).and_then(|wake| wake.try_into().ok()).map(i64::from_be_bytes);
            let (Some(lane), Some(wake)) = (text(lane), wake) else { return Err(unreadable(during)) };
            match lanes.iter_mut().find(|(known, _)| *known == lane) {
                Some((_, earliest)) => *earliest = wake.min(*earliest),
                None => lanes.push((lane, wake)),
            }
        }
        lanes.sort_by(|one, other| (one.1, &one.0).cmp(&(other.1, &other.0)));
        Ok(AsOf { as_of, value: lanes })
    }

    async fn take_due(&self, lane: Option<Lane>, limit: usize) -> Result<AsOf<Vec<Arc<Record>>>, StoreError> {
        let limit = limit.min(semel_core::limits::TAKE_MAX);
        let count = limit.to_string();
        let arguments = [lane_name(lane.as_ref()).as_bytes(), count.as_bytes()];
        let (as_of, found) = self
            .timed("take_due", &self.scripts.take_due, &arguments, |shard| vec![&shard.own, &shard.due])
            .await?;
        let places: Option<Vec<Cursor>> = found.iter().map(|place| bytes(place).and_then(place_of)).collect();
        let mut places = places.ok_or_else(|| unreadable("take_due"))?;
        places.sort_unstable();
        places.truncate(limit);
        let mut due = Vec::with_capacity(places.len());
        for places in places.chunks(limits::REDIS_LOADS_AT_ONCE) {
            let loads: Vec<_> = places.iter().map(|place| self.load(place.id)).collect();
            for (place, found) in places.iter().zip(try_join_all(loads).await?) {
                // Somebody may have been quicker; then it is in another place, or in none.
                due.extend(found.value.filter(|record| record.due() == Some(place.created)));
            }
        }
        Ok(AsOf { as_of, value: due })
    }

    async fn sweep(&self, limit: usize) -> Result<usize, StoreError> {
        let mut swept = 0;
        for shard in &*self.shards {
            // Past those that stay: they cannot be read, or somebody was quicker.
            let mut stay = 0;
            while swept < limit {
                let step = (limit - swept).min(limits::REDIS_SWEEP_STEP);
                let (from, count) = (stay.to_string(), step.to_string());
                let keys = [&shard.own, &shard.expires];
                let arguments = [from.as_bytes(), count.as_bytes()];
                let found =
                    self.call("sweep", shard, &self.scripts.expired, &keys, &arguments, Kind::Read).await?;
                let id = |id: &Value| Some(RecordId::from_bytes(bytes(id)?.try_into().ok()?));
                let ids: Option<Vec<_>> = items(&found).iter().map(id).collect();
                let ids = ids.ok_or_else(|| unreadable("sweep"))?;
                let asked = ids.len();
                let mut removed = Vec::with_capacity(asked);
                for ids in ids.chunks(limits::REDIS_LOADS_AT_ONCE) {
                    let removals: Vec<_> = ids.iter().map(|id| self.remove_expired(*id)).collect();
                    removed.extend(try_join_all(removals).await?);
                }
                swept += removed.iter().filter(|removed| **removed == Some(true)).count();
                stay += removed.iter().filter(|removed| **removed != Some(true)).count();
                if asked < step {
                    break;
                }
            }
        }
        Ok(swept)
    }

    async fn counts(&self) -> Result<Vec<Count>, StoreError> {
        let wrong = || StoreError::corrupt("counts", "a kind of record that there is not");
        self.open("counts")?;
        let mut counts = Vec::<Count>::new();
        for shard in &*self.shards {
            let asked = self.database.command(shard.slot, cmd("HGETALL").arg(&shard.counts)).await;
            let Value::Map(kinds) = asked.map_err(|failure| failure.into_error(Kind::Read, "counts"))? else {
                return Err(unreadable("counts"));
            };
            for (kind, records) in kinds {
                let kind = bytes(&kind).and_then(|kind| kind.get(8..)).ok_or_else(wrong)?;
                let [namespace, state, operation @ ..] = kind else { return Err(wrong()) };
                let operation = std::str::from_utf8(operation).map_err(|_| wrong())?;
                let records = text(&records).and_then(|records| records.parse().ok()).ok_or_else(wrong)?;
                let count = Count {
                    namespace: namespace_of((*namespace).into()).ok_or_else(wrong)?,
                    operation: Operation::try_new(operation).map_err(|error| wrong().with_source(error))?,
                    state: state_of((*state).into()).ok_or_else(wrong)?,
                    records,
                };
                let same = |known: &&mut Count| {
                    (known.namespace, known.state) == (count.namespace, count.state)
                        && known.operation == count.operation
                };
                match counts.iter_mut().find(same) {
                    Some(known) => known.records += count.records,
                    None => counts.push(count),
                }
            }
        }
        counts.sort();
        Ok(counts)
    }

    async fn oldest_pending(&self) -> Result<AsOf<Option<Timestamp>>, StoreError> {
        let (as_of, oldest) = self
            .timed("oldest_pending", &self.scripts.oldest_pending, &[], |shard| {
                vec![&shard.own, &shard.names, &shard.counts]
            })
            .await?;
        let read = |created: &Value| Some(u64::from_be_bytes(bytes(created)?.try_into().ok()?));
        let oldest: Option<Vec<_>> = oldest.iter().map(read).collect();
        let oldest = oldest.ok_or_else(|| unreadable("oldest_pending"))?.into_iter().min();
        Ok(AsOf { as_of, value: oldest.map(Timestamp::from_millis) })
    }

    async fn write_something(&self, shard: &Shard) -> Result<Value, StoreError> {
        self.call("ready", shard, &self.scripts.ready, &[&shard.own], &[], Kind::Write).await
    }

    /// Every server that has a shard takes a write.
    async fn ready(&self) -> Result<(), StoreError> {
        let asked: Vec<_> = self.shards.iter().map(|shard| self.write_something(shard)).collect();
        let answers = try_join_all(asked).await?;
        for answer in &answers {
            self.told(time(Some(answer))?);
        }
        Ok(())
    }
}

impl Remote for Arc<Shared> {
    fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    fn clock(&self) -> &dyn Clock {
        self.time.clock()
    }

    fn now(&self) -> Timestamp {
        self.time.now()
    }

    fn look_every(&self) -> Duration {
        self.look
    }

    fn find(
        &self,
        id: RecordId,
    ) -> impl Future<Output = Result<AsOf<Option<Arc<Record>>>, StoreError>> + Send {
        self.load(id)
    }

    fn lanes(&self, during: &'static str) -> impl Future<Output = Result<AsOf<Lanes>, StoreError>> + Send {
        Shared::lanes(self, during)
    }
}

impl Store for RedisStore {
    fn name(&self) -> &'static str {
        "redis"
    }

    calls_of_shared!();

    /// Never: replicas follow behind, and whichever is promoted may lack the last writes.
    fn survives_failover(&self) -> bool {
        false
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            self.shared.closed.store(true, Ordering::Release);
            self.tasks.iter().for_each(JoinHandle::abort);
            self.shared.database.close().await;
            Ok(())
        })
    }
}

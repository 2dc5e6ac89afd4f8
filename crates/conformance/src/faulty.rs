//! A store that fails: before and after the effect, late, or without ever saying. The same seed fails the same way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use semel_core::audit::Entry;
use semel_core::id::{Lane, RecordId, Version};
use semel_core::query::{AuditCursor, AuditQuery, Count, Cursor, Page, Query, Summary};
use semel_core::store::{Answer, AsOf, Inserted, Replaced, Store};
use semel_core::write::Write;
use semel_core::{Record, StoreError, Timestamp};

use crate::chance::Chance;

/// What goes wrong with one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It does not happen, and the store says so.
    Refused,
    /// It does not happen, and nobody is told.
    LostBefore,
    /// It happens, and nobody is told.
    LostAfter,
    /// Nobody is told, and it happens later: when [`Faulty::land`] is called, or by chance.
    Late,
    /// It finds stored bytes that cannot be read. Never by chance: it is no fault that passes.
    Corrupt,
}

impl Fault {
    /// All that goes wrong by chance.
    pub const ALL: [Self; 4] = [Self::Refused, Self::LostBefore, Self::LostAfter, Self::Late];
}

/// How often what goes wrong, in parts of a hundred.
#[derive(Clone, Copy, Debug, Default)]
pub struct Odds {
    /// Writes, with a fault of any kind.
    pub writes: u64,
    /// Reads that fail.
    pub reads: u64,
    /// Calls that take a while, so that others overtake them.
    pub delays: u64,
}

/// A store that fails.
pub struct Faulty {
    inner: Arc<dyn Store>,
    fate: Mutex<Fate>,
}

struct Fate {
    chance: Chance,
    odds: Odds,
    script: VecDeque<Fault>,
    reads_fail: u32,
    late: Vec<(Write, Option<Version>)>,
    before_write: Option<Box<dyn FnOnce() + Send>>,
}

impl std::fmt::Debug for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faulty").field("inner", &self.inner.name()).finish_non_exhaustive()
    }
}

fn in_doubt(during: &'static str) -> StoreError {
    StoreError::in_doubt(during, "the answer was lost")
}

impl Faulty {
    /// Over this store, without faults until it is told.
    pub fn over(inner: Arc<dyn Store>, seed: u64) -> Self {
        let fate = Fate {
            chance: Chance::new(seed),
            odds: Odds::default(),
            script: VecDeque::new(),
            reads_fail: 0,
            late: Vec::new(),
            before_write: None,
        };
        Self { inner, fate: Mutex::new(fate) }
    }

    /// From now on by these odds, after the script.
    pub fn odds(&self, odds: Odds) {
        self.fate.lock().odds = odds;
    }

    /// The next writes fail like this, one after the other.
    pub fn script(&self, faults: &[Fault]) {
        self.fate.lock().script = faults.iter().copied().collect();
    }

    /// How many faults of the script have not been met.
    pub fn script_left(&self) -> usize {
        self.fate.lock().script.len()
    }

    /// The next so many reads fail.
    pub fn reads_fail(&self, number: u32) {
        self.fate.lock().reads_fail = number;
    }

    /// Lets something happen between the decision of the next write and its arrival.
    pub fn before_next_write(&self, happens: impl FnOnce() + Send + 'static) {
        self.fate.lock().before_write = Some(Box::new(happens));
    }

    /// Lets the writes that are still on their way arrive; how many had an effect.
    pub async fn land(&self) -> usize {
        let late = std::mem::take(&mut self.fate.lock().late);
        let mut landed = 0;
        for (write, expected) in late {
            landed += usize::from(self.arrives(write, expected).await);
        }
        landed
    }

    async fn arrives(&self, write: Write, expected: Option<Version>) -> bool {
        match expected {
            None => matches!(self.inner.insert(write).await, Ok(AsOf { value: Inserted::Inserted(_), .. })),
            Some(expected) => matches!(
                self.inner.replace(write, expected).await,
                Ok(AsOf { value: Replaced::Replaced(_), .. })
            ),
        }
    }

    /// A while for others, and perhaps the arrival of something late.
    async fn passes(&self) {
        let (turns, late) = {
            let mut fate = self.fate.lock();
            let delays = fate.odds.delays;
            let turns = if fate.chance.happens(delays) { fate.chance.below(8) } else { 0 };
            let lands = fate.odds.writes > 0 && !fate.late.is_empty() && fate.chance.happens(25);
            let late = lands.then(|| {
                let number = fate.late.len() as u64;
                let at = usize::try_from(fate.chance.below(number)).unwrap_or_default();
                fate.late.swap_remove(at)
            });
            (turns, late)
        };
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        if let Some((write, expected)) = late {
            self.arrives(write, expected).await;
        }
    }

    fn fault(&self) -> Fault {
        let mut fate = self.fate.lock();
        if let Some(fault) = fate.script.pop_front() {
            return fault;
        }
        let odds = fate.odds.writes;
        if fate.chance.happens(odds) {
            let which = usize::try_from(fate.chance.below(Fault::ALL.len() as u64)).unwrap_or_default();
            return Fault::ALL[which];
        }
        Fault::None
    }

    async fn read(&self, during: &'static str) -> Result<(), StoreError> {
        self.passes().await;
        let mut fate = self.fate.lock();
        let odds = fate.odds.reads;
        if fate.reads_fail > 0 {
            fate.reads_fail -= 1;
        } else if !fate.chance.happens(odds) {
            return Ok(());
        }
        Err(StoreError::not_applied(during, true, "the connection was reset"))
    }

    /// What becomes of a write, if anything is said about it.
    async fn write(
        &self,
        during: &'static str,
        write: Write,
        expected: Option<Version>,
    ) -> Result<(Write, bool), StoreError> {
        self.passes().await;
        let happens = self.fate.lock().before_write.take();
        if let Some(happens) = happens {
            happens();
        }
        match self.fault() {
            Fault::None => Ok((write, true)),
            Fault::LostAfter => Ok((write, false)),
            Fault::Refused => Err(StoreError::not_applied(during, true, "no connection")),
            Fault::LostBefore => Err(in_doubt(during)),
            Fault::Corrupt => Err(StoreError::corrupt(during, "a checksum does not hold")),
            Fault::Late => {
                self.fate.lock().late.push((write, expected));
                Err(in_doubt(during))
            }
        }
    }
}

/// Reads that may fail, and are otherwise the inner store's.
macro_rules! reads {
    ($($name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)*) => {
        $(
            fn $name(&self, $($arg: $type),*) -> Answer<'_, $answer> {
                Box::pin(async move {
                    self.read(stringify!($name)).await?;
                    self.inner.$name($($arg),*).await
                })
            }
        )*
    };
}

impl Store for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn time(&self) -> Timestamp {
        self.inner.time()
    }

    fn insert(&self, write: Write) -> Answer<'_, AsOf<Inserted>> {
        Box::pin(async move {
            let (write, told) = self.write("insert", write, None).await?;
            let answer = self.inner.insert(write).await?;
            if told { Ok(answer) } else { Err(in_doubt("insert")) }
        })
    }

    fn replace(&self, write: Write, expected: Version) -> Answer<'_, AsOf<Replaced>> {
        Box::pin(async move {
            let (write, told) = self.write("replace", write, Some(expected)).await?;
            let answer = self.inner.replace(write, expected).await?;
            if told { Ok(answer) } else { Err(in_doubt("replace")) }
        })
    }

    reads! {
        remove(id: RecordId, expected: Version) -> bool;
        load(id: RecordId) -> AsOf<Option<Arc<Record>>>;
        take_due(lane: Option<Lane>, limit: usize) -> AsOf<Vec<Arc<Record>>>;
        lanes() -> Vec<Option<Lane>>;
        next_due() -> AsOf<Option<Timestamp>>;
        changed(id: RecordId, seen: Version, patience: Duration) -> AsOf<Option<Arc<Record>>>;
        due_changed(patience: Duration) -> ();
        sweep(limit: usize) -> usize;
        counts() -> Vec<Count>;
        oldest_pending() -> AsOf<Option<Timestamp>>;
        search(query: Query, cursor: Option<Cursor>, limit: usize) -> Page<Summary, Cursor>;
        append_audit(entries: Vec<Entry>) -> ();
        audit(query: AuditQuery, cursor: Option<AuditCursor>, limit: usize) -> Page<Entry, AuditCursor>;
        forget_audit(before: Timestamp, limit: usize) -> usize;
        ready() -> ();
        close() -> ();
    }

    fn survives_failover(&self) -> bool {
        self.inner.survives_failover()
    }
}

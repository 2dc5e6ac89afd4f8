//! The suite over the store in memory.

use std::sync::Arc;
use std::time::Duration;

use semel_conformance::subject::{Doing, Step, Subject};
use semel_core::{Store, Timestamp};
use semel_stores::clock::{Clock, SteppedClock};
use semel_stores::memory::MemoryStore;

struct Memory {
    clock: SteppedClock,
    store: Arc<MemoryStore>,
}

impl Memory {
    fn open() -> Self {
        let clock = SteppedClock::at(Timestamp::from_millis(1_700_000_000_000));
        let store = Arc::new(MemoryStore::with_clock(Arc::new(clock.clone())));
        Self { clock, store }
    }
}

impl Subject for Memory {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as Arc<dyn Store>
    }

    fn pass(&self, length: Duration) -> Doing<'_, ()> {
        self.clock.advance(length);
        Box::pin(std::future::ready(()))
    }

    fn step_wall(&self, step: Step) -> bool {
        let wall = self.clock.wall();
        self.clock.set_wall(match step {
            Step::Ahead(by) => wall.plus(by),
            Step::Back(by) => Timestamp::ZERO.plus(wall.since(Timestamp::ZERO.plus(by))),
        });
        true
    }
}

semel_conformance::store_suite!(async || Memory::open());

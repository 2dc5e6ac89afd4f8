//! The conformance suite over the embedded store, on a simulated disk that loses power when the store crashes.

use std::sync::Arc;
use std::time::Duration;

use semel_conformance::subject::{Damage, Doing, Ending, Step, Subject};
use semel_core::{RecordId, Store, Timestamp};

use crate::clock::{Clock, SteppedClock};
use crate::embedded::disk::Folder;
use crate::embedded::disk::sim::{Fault, SimDisk};
use crate::embedded::{EmbeddedStore, OpenError, Options};

/// Small segments, so that the cases fill many.
const SEGMENT_BYTES: u64 = 256 * 1024;

struct Embedded {
    disk: SimDisk,
    clock: SteppedClock,
    store: Option<Arc<EmbeddedStore>>,
    crashes: u64,
}

impl Embedded {
    fn new() -> Self {
        let clock = SteppedClock::at(Timestamp::from_millis(1_700_000_000_000));
        let mut subject = Self { disk: SimDisk::default(), clock, store: None, crashes: 0 };
        subject.open().unwrap();
        subject
    }

    fn open(&mut self) -> Result<(), OpenError> {
        let options =
            Options::new("simulated").segment_bytes(SEGMENT_BYTES).clock(Arc::new(self.clock.clone()));
        self.store = Some(Arc::new(EmbeddedStore::open_in(Arc::new(self.disk.clone()), &options)?));
        Ok(())
    }

    fn let_go(&mut self) {
        let store = Arc::into_inner(self.store.take().unwrap());
        drop(store.expect("the case has let go of the store"));
    }
}

impl Subject for Embedded {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(self.store.as_ref().unwrap()) as Arc<dyn Store>
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

    fn restart(&mut self, ending: Ending) -> Doing<'_, bool> {
        Box::pin(async move {
            match ending {
                Ending::Closed => {
                    self.store().close().await.unwrap();
                    self.let_go();
                }
                Ending::Crashed => {
                    self.disk.fault_at(0, Fault::PowerLoss);
                    self.let_go();
                    self.crashes += 1;
                    self.disk.power_cycle(self.crashes);
                }
            }
            self.open().unwrap();
            true
        })
    }

    fn damage(&mut self, id: RecordId) -> Doing<'_, Damage> {
        Box::pin(async move {
            let record = self.store().load(id).await.unwrap().value.unwrap();
            let key = record.request().key().as_str().as_bytes().to_owned();
            self.store().close().await.unwrap();
            self.let_go();
            for name in self.disk.list().unwrap() {
                let bytes = self.disk.bytes(&name);
                let found = bytes.windows(key.len()).enumerate().filter(|(_, window)| *window == key);
                found.for_each(|(offset, _)| self.disk.flip(&name, offset));
            }
            match self.open() {
                Ok(()) => Damage::Done,
                Err(error) => Damage::Refused(error.to_string()),
            }
        })
    }
}

semel_conformance::store_suite!(async || Embedded::new());

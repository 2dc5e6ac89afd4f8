//! A store under judgement, and what the outside world can do to it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use semel_core::{RecordId, Store};

/// Something that takes a while.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A store of one test's own, empty at first, and its surroundings. What a back end cannot do (a store in memory
/// cannot be opened again) it says, and the cases that need it say that they were skipped.
pub trait Subject: Send + Sync {
    /// The store, open.
    fn store(&self) -> Arc<dyn Store>;

    /// Lets time pass: by a clock that tests can step, else by waiting.
    fn pass(&self, length: Duration) -> Doing<'_, ()>;

    /// Somebody sets the wall clock; no time passes. Whether that can be done here.
    fn step_wall(&self, step: Step) -> bool {
        let _ = step;
        false
    }

    /// Ends the store and opens it again on what is left. Whoever calls it has let go of the store before. Whether
    /// that can be done here.
    fn restart(&mut self, ending: Ending) -> Doing<'_, bool> {
        let _ = ending;
        Box::pin(std::future::ready(false))
    }

    /// Damages the stored bytes of a record, and opens the store again if it has to. Whoever calls it has let go of
    /// the store before.
    fn damage(&mut self, id: RecordId) -> Doing<'_, Damage> {
        let _ = id;
        Box::pin(std::future::ready(Damage::NotPossible))
    }
}

/// A step of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is set forward.
    Ahead(Duration),
    /// It is set back.
    Back(Duration),
}

/// How a store ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is closed.
    Closed,
    /// Its process is killed, or the power goes.
    Crashed,
}

/// What became of damaging a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It cannot be done here.
    NotPossible,
    /// It is done, and the store is open.
    Done,
    /// The store has found it when it was opened, and does not open: what it said.
    Refused(String),
}

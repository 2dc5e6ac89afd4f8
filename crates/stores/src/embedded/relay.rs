//! One task inside the runtime that publishes synced batches.
//!
//! Waking a task from outside of the runtime is a call into the kernel; from inside it is a push to a worker's own queue. So the log
//! thread wakes this one task for each batch, and it wakes the batch's writers. If there is no runtime (any more), the log
//! thread does it itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use tokio::sync::Notify;

use crate::embedded::engine::Engine;

/// The log thread's side.
#[derive(Default)]
pub(crate) struct Relay {
    ready: Notify,
    is_alive: AtomicBool,
    stop: AtomicBool,
}

impl Relay {
    /// Starts the task, if this is called inside a runtime.
    pub(crate) fn start(engine: &Arc<Engine>) -> Arc<Self> {
        let relay = Arc::new(Self::default());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            relay.is_alive.store(true, Ordering::SeqCst);
            let guard = Guard { relay: Arc::clone(&relay), engine: Arc::downgrade(engine) };
            runtime.spawn(guard.run());
        }
        relay
    }

    /// There are synced batches.
    pub(crate) fn publish(&self, engine: &Engine) {
        if self.is_alive.load(Ordering::SeqCst) {
            self.ready.notify_one();
        } else {
            engine.publish();
        }
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.ready.notify_one();
    }
}

struct Guard {
    relay: Arc<Relay>,
    engine: Weak<Engine>,
}

impl Guard {
    async fn run(self) {
        while !self.relay.stop.load(Ordering::SeqCst) {
            self.relay.ready.notified().await;
            let Some(engine) = self.engine.upgrade() else { return };
            engine.publish();
        }
    }
}

impl Drop for Guard {
    /// The runtime may go away before the store does: whatever comes after this, the log thread publishes.
    fn drop(&mut self) {
        self.relay.is_alive.store(false, Ordering::SeqCst);
        if let Some(engine) = self.engine.upgrade() {
            engine.publish();
        }
    }
}

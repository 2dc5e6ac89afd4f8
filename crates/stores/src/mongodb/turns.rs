//! Waiting for the driver's connections. Its pool gives one of those who wait their turn whenever something happens to it, and
//! who has left without a word takes a turn like everybody. Were nothing else to happen, whoever waits behind many of
//! these would wait for minutes. So when calls were left, something is made to happen until all who had come before have had
//! their turn.

use std::sync::{Arc, Weak};

use mongodb::bson::doc;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::store::Shared;
use crate::limits;

/// Tells when it is dropped before the call's end.
pub(super) struct Turn<'a> {
    left: &'a Notify,
    has_ended: bool,
}

impl<'a> Turn<'a> {
    pub(super) fn begin(left: &'a Notify) -> Self {
        Self { left, has_ended: false }
    }

    pub(super) fn end(mut self) {
        self.has_ended = true;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.left.notify_one();
        }
    }
}

/// Asks again and again, each time beside those before, until one of these has had its turn: it came after all others.
pub(super) async fn gives_turns(store: Weak<Shared>) {
    loop {
        let Some(shared) = store.upgrade() else { return };
        let (left, database) = (Arc::clone(&shared.left), shared.database.clone());
        drop(shared);
        left.notified().await;
        let mut asked = JoinSet::new();
        while asked.len() < limits::MONGODB_TURNS_MAX {
            let database = database.clone();
            asked.spawn(async move { drop(database.run_command(doc! { "ping": 1 }).await) });
            if timeout(limits::MONGODB_TURN_PAUSE, asked.join_next()).await.is_ok() {
                break;
            }
        }
        let rest = async { while asked.join_next().await.is_some() {} };
        drop(timeout(limits::MONGODB_COMMAND_TIMEOUT, rest).await);
    }
}

//! Notifications between nodes: a hint that it is worth a look, published by the script that writes. What is lost, waiters find
//! by looking.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind};
use semel_core::RecordId;
use tokio::sync::Notify;

use super::database::{Database, bytes};
use super::node::Push;
use crate::limits;
use crate::remote::wake::Waiters;

/// Who says it: so many random bytes, so that nobody hears themselves.
pub(super) const NODE: usize = 8;

/// A connection that hears what other nodes publish.
pub(super) struct Session {
    _connection: MultiplexedConnection,
    ended: Arc<Notify>,
}

/// Who listens, to what, for whom.
pub(super) struct Listener {
    pub(super) waiters: Arc<Waiters>,
    pub(super) database: Arc<Database>,
    pub(super) channel: String,
    pub(super) node: [u8; NODE],
}

impl Listener {
    /// Subscribes at whichever server lets it: any of a cluster hears what is published at any other.
    pub(super) async fn subscribe(&self) -> Option<Session> {
        for server in self.database.servers() {
            let ended = Arc::new(Notify::new());
            let push: Push = {
                let (waiters, ended, node) = (Arc::clone(&self.waiters), Arc::clone(&ended), self.node);
                Arc::new(move |info| {
                    if info.kind == PushKind::Disconnection {
                        ended.notify_one();
                    }
                    tell(&waiters, &info, node);
                })
            };
            let Ok(mut connection) = server.connect(push).await else { continue };
            if connection.subscribe(&self.channel).await.is_ok() {
                return Some(Session { _connection: connection, ended });
            }
        }
        None
    }

    /// Hears what other nodes wrote, for as long as it is polled; connects again when the connection is lost.
    pub(super) async fn hear(self, mut session: Option<Session>) {
        loop {
            if let Some(session) = session {
                session.ended.notified().await;
            }
            // While nobody listened, anything may have happened.
            self.waiters.all();
            tokio::time::sleep(limits::REDIS_POLL).await;
            session = self.subscribe().await;
            self.waiters.all();
        }
    }
}

fn tell(waiters: &Waiters, info: &PushInfo, node: [u8; NODE]) {
    if info.kind != PushKind::Message {
        return;
    }
    let Some(said) = info.data.last().and_then(bytes) else { return };
    let Some((_, news)) = said.split_first_chunk::<NODE>().filter(|(by, _)| **by != node) else { return };
    let Some((id, due)) = news.split_first_chunk::<16>() else { return };
    waiters.of(RecordId::from_bytes(*id)).notify_waiters();
    if !due.is_empty() {
        waiters.due_elsewhere();
    }
}

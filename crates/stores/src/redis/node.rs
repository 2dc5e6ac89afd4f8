//! One server: connections to it, each shared by all who ask, made anew when it is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Pipeline, PushInfo, PushKind, RedisError, Value};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

use super::error::Failure;
use crate::limits;

/// A server of a cluster, or the only one.
pub(super) struct Node {
    client: Client,
    links: Vec<Link>,
    next: AtomicUsize,
    patience: Duration,
    name: String,
}

/// A connection, or the place for one.
struct Link {
    live: Mutex<Option<Live>>,
    /// Commands under way. Whoever finds no room was not sent.
    room: Semaphore,
}

#[derive(Clone)]
struct Live {
    connection: MultiplexedConnection,
    lost: Arc<AtomicBool>,
}

/// What a connection is told without having asked.
pub(super) type Push = Arc<dyn Fn(PushInfo) + Send + Sync>;

impl Node {
    pub(super) fn new(client: Client, connections: usize, patience: Duration, name: &str) -> Self {
        let link = || Link { live: Mutex::new(None), room: Semaphore::new(limits::REDIS_IN_FLIGHT) };
        Self {
            client,
            links: (0..connections).map(|_| link()).collect(),
            next: AtomicUsize::new(0),
            patience,
            name: name.to_owned(),
        }
    }

    /// A connection of its own, told of everything that the server says unasked, and of its end.
    pub(super) async fn connect(&self, push: Push) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(limits::REDIS_CONNECT_TIMEOUT))
            .set_response_timeout(Some(self.patience))
            .set_push_sender(move |info: PushInfo| {
                push(info);
                Ok::<(), redis::aio::SendError>(())
            });
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        // So that operators see whose it is. Where that may not be said, it need not be.
        let mut named = redis::cmd("CLIENT");
        named.arg("SETNAME").arg(&self.name);
        match connection.send_packed_command(&named).await {
            Err(error) if error.code().is_none() => Err(error),
            _ => Ok(connection),
        }
    }

    /// Sends commands one behind the other on one connection, and gives what is answered to each.
    pub(super) async fn ask(&self, commands: &Pipeline) -> Result<Vec<Value>, Failure> {
        let link = &self.links[self.next.fetch_add(1, Ordering::Relaxed) % self.links.len()];
        let entered = timeout(limits::REDIS_CONNECT_TIMEOUT, async {
            let room = link.room.acquire().await;
            (room, self.live(link).await)
        });
        let Ok((room, live)) = entered.await else {
            return Err(Failure::NotSent("no connection in time".into(), true));
        };
        let mut live = live?;
        let answer = live.connection.send_packed_commands(commands, 0, commands.len()).await;
        drop(room);
        let answer = match answer {
            Ok(values) => Ok(values),
            Err(error) if error.is_timeout() => Err(Failure::NoAnswer),
            Err(error) => Err(Failure::Sent(error)),
        };
        if answer.as_ref().is_err_and(Failure::spoils_connection) {
            live.lost.store(true, Ordering::Release);
        }
        answer
    }

    /// The next command goes over a connection that is made for it.
    pub(super) async fn forget(&self) {
        for link in &self.links {
            link.live.lock().await.take();
        }
    }

    async fn live(&self, link: &Link) -> Result<Live, Failure> {
        // Of all who find it lost one connects, and the others wait for that.
        let mut live = link.live.lock().await;
        if let Some(live) = live.as_ref().filter(|live| !live.lost.load(Ordering::Acquire)) {
            return Ok(live.clone());
        }
        let lost = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&lost);
        let push: Push = Arc::new(move |info| {
            if info.kind == PushKind::Disconnection {
                told.store(true, Ordering::Release);
            }
        });
        let connection = self.connect(push).await.map_err(Failure::no_connection)?;
        Ok(live.insert(Live { connection, lost }).clone())
    }
}

//! Notifications between nodes: a hint that it is worth a look, sent after the write and outside its transaction, since
//! PostgreSQL lets transactions that notify commit one after the other. They are heard on a connection of their own,
//! which must go to the database itself. What is lost, waiters find by looking.

use std::future::poll_fn;
use std::sync::Arc;

use semel_core::RecordId;
use tokio_postgres::{AsyncMessage, Config};

use super::pool::Database;
use super::sql::Sql;
use super::tls::Tls;
use super::wake::{News, Waiters};
use crate::limits;

/// Says that something is due.
const DUE: &str = "due";

/// The channel of a schema.
pub(super) fn channel(schema: &str) -> String {
    format!("{schema}_changes")
}

/// Tells other nodes what this one wrote, for as long as it is polled.
pub(super) async fn tell(waiters: Arc<Waiters>, database: Arc<Database>, sql: Arc<Sql>, channel: String) {
    loop {
        let payloads = payloads(&waiters.news().await);
        // A hint that cannot be sent is left to the others' own looks.
        let _ = database.rows(&sql.notify, &[&channel, &payloads]).await;
    }
}

fn payloads(news: &News) -> Vec<String> {
    let ids: Vec<_> = news.changed.iter().map(ToString::to_string).collect();
    let changed = ids.chunks(limits::POSTGRES_NOTIFY_IDS).map(<[String]>::concat);
    changed.chain(news.due.then(|| DUE.to_owned())).collect()
}

/// Hears what other nodes wrote, for as long as it is polled; connects again when the connection is lost.
pub(super) async fn hear(waiters: Arc<Waiters>, server: Config, tls: Tls, channel: String) {
    loop {
        // While nobody listened, anything may have happened.
        let _ = session(&waiters, &server, tls.clone(), &channel).await;
        waiters.all();
        tokio::time::sleep(limits::POSTGRES_POLL).await;
    }
}

async fn session(
    waiters: &Waiters,
    server: &Config,
    tls: Tls,
    channel: &str,
) -> Result<(), tokio_postgres::Error> {
    let (client, mut connection) = server.connect(tls).await?;
    let listening = async {
        client.batch_execute(&format!("LISTEN {channel}")).await?;
        waiters.all();
        // The connection ends when its client is dropped.
        std::future::pending::<Result<(), tokio_postgres::Error>>().await
    };
    let hearing = async {
        while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(heard) = message? {
                tell_waiters(waiters, heard.payload());
            }
        }
        Ok(())
    };
    tokio::pin!(listening, hearing);
    poll_fn(|cx| {
        use std::future::Future;
        match hearing.as_mut().poll(cx) {
            std::task::Poll::Pending => listening.as_mut().poll(cx),
            ended @ std::task::Poll::Ready(_) => ended,
        }
    })
    .await
}

fn tell_waiters(waiters: &Waiters, payload: &str) {
    if payload == DUE {
        return waiters.due_elsewhere();
    }
    for id in payload.as_bytes().chunks(32) {
        if let Some(id) = std::str::from_utf8(id).ok().and_then(RecordId::parse) {
            waiters.of(id).notify_waiters();
        }
    }
}

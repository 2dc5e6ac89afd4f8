//! PostgreSQL, batched: whatever waits is taken together by one statement over `UNNEST`, claims on one connection and
//! outcomes on another, so that many commands share one commit.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::{Client, NoTls, Statement};

use super::postgres::SCHEMA;
use super::{Backend, Claim};
use crate::limits::GROUP_MAX;

const INSERT: &str =
    "INSERT INTO keys (key) SELECT * FROM unnest($1::text[]) ON CONFLICT (key) DO NOTHING RETURNING key";
const SELECT: &str = "SELECT keys.key, outcome FROM unnest($1::text[]) AS asked(key) JOIN keys USING (key)";
const UPDATE: &str = "UPDATE keys SET outcome = given.outcome
    FROM unnest($1::text[], $2::bytea[]) AS given(key, outcome) WHERE keys.key = given.key";

/// A fresh table has no statistics, and the planner would read or hash all of it for every batch; an index scan per
/// key of the batch is the right plan at every size.
const PLANNER: &str = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
    SET enable_bitmapscan = off; SET plan_cache_mode = force_generic_plan";

type Asked = (String, oneshot::Sender<Result<Claim, String>>);
type Given = (String, Bytes, oneshot::Sender<Result<(), String>>);

/// Two queues, each emptied by a task with a connection of its own.
pub(crate) struct Batched {
    claims: mpsc::UnboundedSender<Asked>,
    outcomes: mpsc::UnboundedSender<Given>,
}

impl Batched {
    /// Connects twice and creates the table.
    pub(crate) async fn connect(url: &str) -> Result<Self> {
        let claimer = client(url).await?;
        claimer.batch_execute(SCHEMA).await?;
        let completer = client(url).await?;
        let (insert, select) = (claimer.prepare(INSERT).await?, claimer.prepare(SELECT).await?);
        let update = completer.prepare(UPDATE).await?;
        let (claims, mut asked) = mpsc::unbounded_channel::<Asked>();
        let (outcomes, mut given) = mpsc::unbounded_channel::<Given>();
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while asked.recv_many(&mut batch, GROUP_MAX).await > 0 {
                claim_all(&claimer, &insert, &select, &mut batch).await;
            }
        });
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while given.recv_many(&mut batch, GROUP_MAX).await > 0 {
                complete_all(&completer, &update, &mut batch).await;
            }
        });
        Ok(Self { claims, outcomes })
    }
}

async fn client(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute(PLANNER).await?;
    Ok(client)
}

async fn claim_all(client: &Client, insert: &Statement, select: &Statement, batch: &mut Vec<Asked>) {
    let keys: Vec<&str> = batch.iter().map(|(key, _)| key.as_str()).collect();
    let answers = decide(client, insert, select, &keys).await;
    match answers {
        Ok((mut fresh, known)) => {
            for (key, answer) in batch.drain(..) {
                let claim = if fresh.remove(&key) {
                    Claim::Fresh
                } else {
                    known.get(&key).cloned().flatten().map_or(Claim::Busy, Claim::Replay)
                };
                // Whoever asked may have gone; nothing is owed then.
                let _ = answer.send(Ok(claim));
            }
        }
        Err(error) => {
            for (_, answer) in batch.drain(..) {
                let _ = answer.send(Err(format!("{error:#}")));
            }
        }
    }
}

type Decided = (HashSet<String>, HashMap<String, Option<Bytes>>);

async fn decide(client: &Client, insert: &Statement, select: &Statement, keys: &[&str]) -> Result<Decided> {
    let rows = client.query(insert, &[&keys]).await?;
    let fresh: HashSet<String> = rows.iter().map(|row| row.get(0)).collect();
    let rest: Vec<&str> = keys.iter().copied().filter(|key| !fresh.contains(*key)).collect();
    let mut known = HashMap::new();
    if !rest.is_empty() {
        for row in client.query(select, &[&rest]).await? {
            known.insert(row.get(0), row.get::<_, Option<Vec<u8>>>(1).map(Bytes::from));
        }
    }
    Ok((fresh, known))
}

async fn complete_all(client: &Client, update: &Statement, batch: &mut Vec<Given>) {
    let keys: Vec<&str> = batch.iter().map(|(key, ..)| key.as_str()).collect();
    let outcomes: Vec<&[u8]> = batch.iter().map(|(_, outcome, _)| &outcome[..]).collect();
    let stored = client.execute(update, &[&keys, &outcomes]).await;
    for (.., answer) in batch.drain(..) {
        let _ = answer.send(stored.as_ref().map(|_| ()).map_err(ToString::to_string));
    }
}

impl Backend for Batched {
    async fn claim(&self, key: &str) -> Result<Claim> {
        let (answer, waiting) = oneshot::channel();
        self.claims.send((key.to_owned(), answer)).ok().context("the claiming task has ended")?;
        waiting.await?.map_err(anyhow::Error::msg)
    }

    async fn complete(&self, key: &str, outcome: Bytes) -> Result<()> {
        let (answer, waiting) = oneshot::channel();
        self.outcomes
            .send((key.to_owned(), outcome, answer))
            .ok()
            .context("the completing task has ended")?;
        waiting.await?.map_err(anyhow::Error::msg)
    }
}

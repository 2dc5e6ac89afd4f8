//! Group commit in front of an engine in this process: one thread writes, whatever waits shares its next sync.

use std::collections::HashSet;
use std::sync::mpsc;

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Backend, Claim};
use crate::limits::GROUP_MAX;

/// The value of a key that is held and has no outcome yet; no JSON begins so.
pub(crate) const HELD: &[u8] = b"-";

/// Reading, from any thread.
pub(crate) trait Reader: Send + Sync + 'static {
    /// The synced value of a key.
    fn get(&self, key: &str) -> Result<Option<Bytes>>;
}

/// Writing, from the one thread that commits.
pub(crate) trait Writer: Send + 'static {
    /// Writes all pairs in one commit and syncs it to disk before it returns.
    fn commit(&mut self, pairs: &[(String, Bytes)]) -> Result<()>;
}

enum Command {
    Claim(String, oneshot::Sender<Result<Claim, String>>),
    Complete(String, Bytes, oneshot::Sender<Result<Claim, String>>),
}

/// An engine behind its writing thread.
pub(crate) struct Grouped<R> {
    reader: R,
    commands: mpsc::Sender<Command>,
}

impl<R: Reader + Clone> Grouped<R> {
    /// Starts the writing thread.
    pub(crate) fn start(reader: R, writer: impl Writer) -> Result<Self> {
        let (commands, waiting) = mpsc::channel();
        let own = reader.clone();
        std::thread::Builder::new().name("commit".to_owned()).spawn(move || write(&own, writer, &waiting))?;
        Ok(Self { reader, commands })
    }

    async fn ask(&self, command: Command, answer: oneshot::Receiver<Result<Claim, String>>) -> Result<Claim> {
        self.commands.send(command).ok().context("the writing thread has ended")?;
        answer.await?.map_err(anyhow::Error::msg)
    }
}

impl<R: Reader + Clone> Backend for Grouped<R> {
    async fn claim(&self, key: &str) -> Result<Claim> {
        // A settled key is answered from here, without the writing thread: only synced values can be read.
        if let Some(value) = self.reader.get(key)?
            && value != HELD
        {
            return Ok(Claim::Replay(value));
        }
        let (answer, waiting) = oneshot::channel();
        self.ask(Command::Claim(key.to_owned(), answer), waiting).await
    }

    async fn complete(&self, key: &str, outcome: Bytes) -> Result<()> {
        let (answer, waiting) = oneshot::channel();
        self.ask(Command::Complete(key.to_owned(), outcome, answer), waiting).await?;
        Ok(())
    }
}

fn write(reader: &impl Reader, mut writer: impl Writer, commands: &mpsc::Receiver<Command>) {
    while let Ok(first) = commands.recv() {
        let batch = std::iter::once(first).chain(commands.try_iter()).take(GROUP_MAX);
        let mut taken = HashSet::new();
        let mut pairs = Vec::new();
        let mut answers = Vec::new();
        for command in batch {
            match command {
                Command::Complete(key, outcome, answer) => {
                    pairs.push((key, outcome));
                    answers.push((answer, Ok(Claim::Fresh)));
                }
                Command::Claim(key, answer) => {
                    let verdict = judge(reader, &mut taken, &key);
                    if matches!(verdict, Ok(Claim::Fresh)) {
                        pairs.push((key, Bytes::from_static(HELD)));
                    }
                    answers.push((answer, verdict));
                }
            }
        }
        let committed = writer.commit(&pairs).map_err(|error| format!("{error:#}"));
        for (answer, verdict) in answers {
            // Whoever asked may have gone; nothing is owed then.
            let _ = answer.send(committed.clone().and(verdict));
        }
    }
}

fn judge(reader: &impl Reader, taken: &mut HashSet<String>, key: &str) -> Result<Claim, String> {
    if !taken.insert(key.to_owned()) {
        return Ok(Claim::Busy);
    }
    match reader.get(key).map_err(|error| format!("{error:#}"))? {
        None => Ok(Claim::Fresh),
        Some(value) if value == HELD => Ok(Claim::Busy),
        Some(value) => Ok(Claim::Replay(value)),
    }
}

//! Commands that wait are gathered, so that many share one statement and one commit.
//!
//! Nobody waits for company: a command that finds no lane under way goes at once, and what comes meanwhile goes with the
//! next batch, in a lane of its own as soon as there is enough for one. The busier the store, the larger the batches. A lane is a task of its own, so that a caller
//! who leaves takes nobody along: its command, if it was not sent yet, is left out, and else happens without it.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use semel_core::StoreError;
use tokio::sync::oneshot;

use crate::limits;

/// What becomes of a command in a batch.
pub(super) enum Gathered<D, A> {
    /// Its own answer.
    Answer(Result<A, StoreError>),
    /// The batch could not do it, and it did not happen: it is to be tried alone.
    Alone(D),
}

/// A command, and who waits for its answer.
pub(super) struct Job<D, A> {
    pub(super) command: D,
    bytes: usize,
    answer: oneshot::Sender<Gathered<D, A>>,
}

impl<D, A> Job<D, A> {
    /// Whoever waited may have left; nothing is owed then.
    pub(super) fn answer(self, answer: Result<A, StoreError>) {
        drop(self.answer.send(Gathered::Answer(answer)));
    }

    pub(super) fn alone(self) {
        drop(self.answer.send(Gathered::Alone(self.command)));
    }
}

/// What waits for a lane.
pub(super) struct Gather<D, A> {
    queue: Mutex<Queue<D, A>>,
    lanes: usize,
}

struct Queue<D, A> {
    waiting: VecDeque<Job<D, A>>,
    under_way: usize,
}

/// A lane that is under way.
struct Lane<D, A> {
    gather: Arc<Gather<D, A>>,
    ended: bool,
}

impl<D, A> Lane<D, A> {
    /// What has waited longest, within the limits of a batch; who has left is left out. With nothing left the lane ends,
    /// in the same moment, so that whoever comes next begins another.
    fn batch(&mut self) -> Vec<Job<D, A>> {
        let mut queue = self.gather.queue.lock();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(job) = queue.waiting.pop_front() {
            if job.answer.is_closed() {
                continue;
            }
            bytes += job.bytes;
            batch.push(job);
            if batch.len() == limits::POSTGRES_BATCH || bytes >= limits::POSTGRES_BATCH_BYTES {
                break;
            }
        }
        if batch.is_empty() {
            queue.under_way -= 1;
            self.ended = true;
        }
        batch
    }
}

impl<D, A> Drop for Lane<D, A> {
    /// The runtime ends, or a defect ended the task: nobody is left waiting for it.
    fn drop(&mut self) {
        if !self.ended {
            let mut queue = self.gather.queue.lock();
            queue.under_way -= 1;
            queue.waiting.clear();
        }
    }
}

impl<D: Send + 'static, A: Send + 'static> Gather<D, A> {
    pub(super) fn new(lanes: usize) -> Arc<Self> {
        Arc::new(Self { queue: Mutex::new(Queue { waiting: VecDeque::new(), under_way: 0 }), lanes })
    }

    /// Has a command done in some batch by `run`, which is called with each batch and answers all of it.
    ///
    /// # Cancellation
    /// The command is in doubt.
    pub(super) async fn submit<F: Future<Output = ()> + Send>(
        self: &Arc<Self>,
        during: &'static str,
        command: D,
        bytes: usize,
        run: impl Fn(Vec<Job<D, A>>) -> F + Send + 'static,
    ) -> Gathered<D, A> {
        let (answer, answered) = oneshot::channel();
        let lane = {
            let mut queue = self.queue.lock();
            queue.waiting.push_back(Job { command, bytes, answer });
            let enough = queue.waiting.len() > queue.under_way * limits::POSTGRES_LANE_FROM;
            let free = queue.under_way < self.lanes && enough;
            queue.under_way += usize::from(free);
            free.then(|| Lane { gather: Arc::clone(self), ended: false })
        };
        if let Some(mut lane) = lane {
            tokio::spawn(async move {
                loop {
                    let batch = lane.batch();
                    if batch.is_empty() {
                        break;
                    }
                    run(batch).await;
                }
            });
        }
        answered.await.unwrap_or_else(|_| {
            Gathered::Answer(Err(StoreError::in_doubt(during, "its batch ended without an answer")))
        })
    }
}

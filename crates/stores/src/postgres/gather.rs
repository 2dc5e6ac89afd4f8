//! Commands that wait are gathered, so that many share one statement and one commit.
//!
//! Nobody waits for company that is not there: a lane goes when every task that is ready has had its turn, which is at once
//! where there is none. Those who were answered by one batch ask again at the same moment; the first of them must not go
//! alone, with the others behind it. What comes meanwhile goes with the next batch, in a lane of its own as soon as there is enough for
//! one, and lanes that go together share what waits: while one batch waits for the disk, another is worked at. The busier the
//! store, the larger the batches. A lane is a task of its own, so that a caller who leaves takes nobody along: its command, if
//! it was not sent yet, is left out, and else happens without it.

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
    /// Of those under way, those that are about to take a batch.
    ready: usize,
}

/// A lane that is under way.
struct Lane<D, A> {
    gather: Arc<Gather<D, A>>,
    ready: bool,
    ended: bool,
}

impl<D, A> Lane<D, A> {
    /// The next batch, as soon as whoever is about to ask has asked.
    async fn next(&mut self) -> Vec<Job<D, A>> {
        if !self.ready {
            self.gather.queue.lock().ready += 1;
            self.ready = true;
        }
        tokio::task::yield_now().await;
        self.batch()
    }

    /// This lane's share of what has waited longest, within the limits of a batch; who has left is left out. With nothing left
    /// the lane ends, in the same moment, so that whoever comes next begins another.
    fn batch(&mut self) -> Vec<Job<D, A>> {
        let mut queue = self.gather.queue.lock();
        let share = queue.waiting.len().div_ceil(queue.ready.max(1)).min(limits::POSTGRES_BATCH);
        queue.ready -= usize::from(self.ready);
        self.ready = false;
        let (mut batch, mut bytes) = (Vec::with_capacity(share), 0);
        while let Some(job) = queue.waiting.pop_front() {
            if job.answer.is_closed() {
                continue;
            }
            bytes += job.bytes;
            batch.push(job);
            if batch.len() == share || bytes >= limits::POSTGRES_BATCH_BYTES {
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
            queue.ready -= usize::from(self.ready);
            queue.waiting.clear();
        }
    }
}

impl<D: Send + 'static, A: Send + 'static> Gather<D, A> {
    pub(super) fn new(lanes: usize) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::new(Queue { waiting: VecDeque::new(), under_way: 0, ready: 0 }),
            lanes,
        })
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
            queue.ready += usize::from(free);
            free.then(|| Lane { gather: Arc::clone(self), ready: true, ended: false })
        };
        if let Some(mut lane) = lane {
            tokio::spawn(async move {
                loop {
                    let batch = lane.next().await;
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

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    /// So many commands come at once; the sizes of the batches they went in.
    async fn batches(lanes: usize, commands: usize) -> Vec<usize> {
        let (gather, sizes) = (Gather::<usize, usize>::new(lanes), Arc::new(Mutex::new(Vec::new())));
        let mut callers = JoinSet::new();
        for command in 0..commands {
            let (gather, sizes) = (Arc::clone(&gather), Arc::clone(&sizes));
            callers.spawn(async move {
                let queue = Arc::clone(&gather);
                let run = move |jobs: Vec<Job<usize, usize>>| {
                    sizes.lock().push(jobs.len());
                    let queue = Arc::clone(&queue);
                    async move {
                        // Under way until every lane that is ready has gone, too.
                        while queue.queue.lock().ready > 0 {
                            tokio::task::yield_now().await;
                        }
                        for job in jobs {
                            let own = job.command;
                            job.answer(Ok(own));
                        }
                    }
                };
                match gather.submit("test", command, 0, run).await {
                    Gathered::Answer(answer) => assert_eq!(answer.unwrap(), command),
                    Gathered::Alone(_) => panic!("nobody said so"),
                }
            });
        }
        callers.join_all().await;
        // A lane ends when it finds nobody.
        while gather.queue.lock().under_way > 0 {
            tokio::task::yield_now().await;
        }
        let queue = gather.queue.lock();
        assert_eq!((queue.waiting.len(), queue.ready), (0, 0));
        sizes.lock().clone()
    }

    /// On one thread, where every caller is ready before any lane is.
    #[tokio::test]
    async fn those_who_are_ready_go_together_and_lanes_share_them() {
        const FROM: usize = limits::POSTGRES_LANE_FROM;
        assert_eq!(batches(4, 1).await, [1], "alone, at once");
        assert_eq!(batches(4, FROM).await, [FROM]);
        assert_eq!(batches(4, 4 * FROM).await, [FROM; 4]);
        assert_eq!(batches(1, 4 * FROM).await, [4 * FROM]);
        assert_eq!(batches(2, 2 * limits::POSTGRES_BATCH + 1).await.iter().sum::<usize>(), 257);
        assert!(batches(2, 400).await.iter().all(|size| *size <= limits::POSTGRES_BATCH));
    }
}

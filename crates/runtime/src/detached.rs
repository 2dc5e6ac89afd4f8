//! Work that runs in place as long as somebody waits for it, and goes on by itself when nobody does any more (L11).

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Polls its work in place: no task, no wake-up of another thread. When it is dropped after its first poll and before
/// the end, the work goes on in a task of its own, which `tasks` counts; before the first poll nothing has begun, and
/// nothing does. A shutdown that waits for `tasks` waits for work in place, too.
///
/// ```
/// use semel_runtime::Detached;
/// use tokio_util::task::TaskTracker;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let tasks = TaskTracker::new();
/// let sum = Detached::new(&tasks, async { 1 + 1 }).await;
/// assert_eq!(sum.unwrap(), 2);
/// # }
/// ```
pub struct Detached<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    /// `None` once it has ended. On the heap, since it moves into a task when it is dropped.
    work: Option<(Pin<Box<F>>, TaskTrackerToken)>,
    has_begun: bool,
}

/// The work has panicked. The panic's text went where the process's panics go.
pub struct Panicked(Box<str>);

impl Panicked {
    /// The panic's message, if it is text. It may say anything: for logs, never for clients.
    pub fn text(&self) -> &str {
        &self.0
    }
}

fn text(payload: &(dyn Any + Send)) -> &str {
    let plain = payload.downcast_ref::<&'static str>().copied();
    plain.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

impl fmt::Debug for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Panicked").field(&self.text()).finish()
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the work has panicked")
    }
}

impl Error for Panicked {}

impl<F> Detached<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    /// Takes the work; it begins when it is polled.
    pub fn new(tasks: &TaskTracker, work: F) -> Self {
        Self { work: Some((Box::pin(work), tasks.token())), has_begun: false }
    }
}

impl<F> fmt::Debug for Detached<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detached")
            .field("has_begun", &self.has_begun)
            .field("has_ended", &self.work.is_none())
            .finish()
    }
}

impl<F> Future for Detached<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        // What is polled after its end is never ready, and never a second panic.
        let Some((work, _)) = this.work.as_mut() else { return Poll::Pending };
        this.has_begun = true;
        let ended = ready!(poll_caught(work.as_mut(), cx));
        this.work = None;
        Poll::Ready(ended)
    }
}

impl<F> Drop for Detached<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn drop(&mut self) {
        let Some((mut work, token)) = self.work.take().filter(|_| self.has_begun) else { return };
        // Without a runtime nothing can run any more: the process is at its end.
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            let ended = std::future::poll_fn(|cx| poll_caught(work.as_mut(), cx)).await;
            if let Err(panicked) = ended {
                tracing::error!(panic = panicked.text(), "work that nobody waits for has panicked");
            }
            drop(token);
        });
    }
}

fn poll_caught<F: Future>(work: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<Result<F::Output, Panicked>> {
    // Whatever a panic leaves behind is dropped and never looked at again.
    match catch_unwind(AssertUnwindSafe(|| work.poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
        Err(payload) => Poll::Ready(Err(Panicked(text(&*payload).into()))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::poll;
    use tokio::sync::Notify;

    use super::*;

    /// Work that counts its steps, with a pause between them that lasts until `go`.
    fn steps(
        taken: &Arc<AtomicUsize>,
        go: &Arc<Notify>,
    ) -> impl Future<Output = &'static str> + Send + use<> {
        let (taken, go) = (Arc::clone(taken), Arc::clone(go));
        async move {
            taken.fetch_add(1, Ordering::SeqCst);
            go.notified().await;
            taken.fetch_add(1, Ordering::SeqCst);
            "done"
        }
    }

    #[tokio::test]
    async fn work_that_is_awaited_runs_in_place() {
        let tasks = TaskTracker::new();
        let outer = tokio::task::try_id();
        let done = Detached::new(&tasks, async { tokio::task::try_id() }).await;
        assert_eq!(done.unwrap(), outer, "no task of its own");
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn dropped_before_its_first_poll_nothing_begins() {
        let (tasks, taken) = (TaskTracker::new(), Arc::new(AtomicUsize::new(0)));
        drop(Detached::new(&tasks, steps(&taken, &Arc::default())));
        tasks.close();
        tasks.wait().await;
        assert_eq!(taken.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn l11_dropped_between_polls_it_goes_on_in_a_tracked_task() {
        let (tasks, taken, go) = (TaskTracker::new(), Arc::new(AtomicUsize::new(0)), Arc::default());
        let mut work = Detached::new(&tasks, steps(&taken, &go));
        assert!(poll!(&mut work).is_pending());
        assert_eq!((taken.load(Ordering::SeqCst), tasks.len()), (1, 1));
        drop(work);
        assert_eq!(tasks.len(), 1, "a shutdown waits for it");
        go.notify_one();
        tasks.close();
        tasks.wait().await;
        assert_eq!(taken.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn l11_the_task_of_a_client_that_is_aborted_leaves_its_work_running() {
        let (tasks, taken, go) = (TaskTracker::new(), Arc::new(AtomicUsize::new(0)), Arc::default());
        let client = tokio::spawn(Detached::new(&tasks, steps(&taken, &go)));
        while taken.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        client.abort();
        assert!(client.await.unwrap_err().is_cancelled());
        go.notify_one();
        tasks.close();
        tasks.wait().await;
        assert_eq!(taken.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn dropped_after_its_end_it_does_not_run_again() {
        let (tasks, taken, go) =
            (TaskTracker::new(), Arc::new(AtomicUsize::new(0)), Arc::<Notify>::default());
        go.notify_one();
        let mut work = Detached::new(&tasks, steps(&taken, &go));
        assert_eq!((&mut work).await.unwrap(), "done");
        assert!(tasks.is_empty(), "it has ended, though it is not dropped yet");
        assert!(poll!(&mut work).is_pending());
        drop(work);
        tokio::task::yield_now().await;
        assert_eq!(taken.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_panic_in_place_is_an_error() {
        let tasks = TaskTracker::new();
        let text = String::from("at 7");
        let panicked = Detached::new(&tasks, async move { std::panic::panic_any(text) }).await;
        assert_eq!(panicked.map(drop::<()>).unwrap_err().text(), "at 7");
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn a_panic_after_detaching_ends_the_task_and_nothing_else() {
        let (tasks, go) = (TaskTracker::new(), Arc::<Notify>::default());
        let mut work = Detached::new(&tasks, {
            let go = Arc::clone(&go);
            async move {
                go.notified().await;
                panic!("late");
            }
        });
        assert!(poll!(&mut work).is_pending());
        drop(work);
        go.notify_one();
        tasks.close();
        tasks.wait().await;
    }

    #[test]
    fn without_a_runtime_it_is_dropped_with_its_work() {
        let tasks = TaskTracker::new();
        let mut work = Detached::new(&tasks, std::future::pending::<()>());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut work).poll(&mut cx).is_pending());
        drop(work);
        assert!(tasks.is_empty());
    }
}

//! Bodies on their way through: streamed as they come, watched for standing still, and never gathered.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use super::passage::Place;
use super::upstream::Lent;

/// Why a body ends early.
pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// Nothing moved for too long, or the exchange took too long.
#[derive(Debug)]
pub(super) struct TooSlow(&'static str);

impl fmt::Display for TooSlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for TooSlow {}

/// Ends a body on which nothing moves. The timer is made when there is something to wait for, so what is there at
/// once costs none.
#[derive(Debug)]
struct Patience {
    idle: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    is_waiting: bool,
}

impl Patience {
    const fn new(idle: Duration) -> Self {
        Self { idle, sleep: None, is_waiting: false }
    }

    fn moved(&mut self) {
        self.is_waiting = false;
    }

    /// Nothing is there: ready when that has been so for too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_waiting {
            self.is_waiting = true;
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(Instant::now() + self.idle),
                None => self.sleep = Some(Box::pin(tokio::time::sleep(self.idle))),
            }
        }
        self.sleep.as_mut().map_or(Poll::Pending, |sleep| sleep.as_mut().poll(cx))
    }
}

/// How far bytes have come, for whoever waits at another place: a client with its request, or both ends of a tunnel.
#[derive(Clone, Debug)]
pub(super) struct Progress(Arc<ProgressState>);

#[derive(Debug)]
struct ProgressState {
    begun: Instant,
    /// Milliseconds after `begun` at which something last came.
    moved_ms: AtomicU64,
    ended: AtomicBool,
    /// It was given up, since the server stops.
    cut: AtomicBool,
}

impl Progress {
    /// Nothing has come yet.
    pub(super) fn new() -> Self {
        Self(Arc::new(ProgressState {
            begun: Instant::now(),
            moved_ms: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            cut: AtomicBool::new(false),
        }))
    }

    /// Something has come.
    pub(super) fn moved(&self) {
        let after = u64::try_from(self.0.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.moved_ms.store(after, Ordering::Relaxed);
    }

    fn ended(&self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }

    fn cut(&self) {
        self.0.cut.store(true, Ordering::Relaxed);
    }

    /// Whether all of it has come.
    pub(super) fn has_ended(&self) -> bool {
        self.0.ended.load(Ordering::Relaxed)
    }

    /// Whether it was given up before all of it had come, since the server stops.
    pub(super) fn was_cut(&self) -> bool {
        self.0.cut.load(Ordering::Relaxed)
    }

    /// When something last came.
    pub(super) fn last(&self) -> Instant {
        self.0.begun + Duration::from_millis(self.0.moved_ms.load(Ordering::Relaxed))
    }
}

/// What is sent to an upstream.
pub(super) enum Outgoing {
    /// Nothing.
    Empty,
    /// What a client sends, as it comes.
    Streamed(Streamed),
    /// What the contract's layer has read, or lets through; and how far the client has come with it.
    Layered(semel_tower::Body, Option<Progress>),
}

/// See [`Outgoing::Streamed`].
pub(super) struct Streamed {
    incoming: Incoming,
    patience: Patience,
    upload: Progress,
    stop: Stop,
}

/// Ends a body that the server does not wait for any longer when it stops. Made when there is something to wait for.
struct Stop {
    stopping: CancellationToken,
    within: Duration,
    ended: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Stop {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { stopping, within, ended } = self;
        let begin = || {
            let (stopping, within) = (stopping.clone(), *within);
            Box::pin(async move {
                stopping.cancelled().await;
                tokio::time::sleep(within).await;
            })
        };
        let ended = ended.get_or_insert_with(|| begin());
        ended.as_mut().poll(cx)
    }
}

impl Outgoing {
    /// A client's body; it may stand still for `idle`, and is given up `within` this time of a stop.
    pub(super) fn of(
        incoming: Incoming,
        idle: Duration,
        stopping: &CancellationToken,
        within: Duration,
    ) -> Self {
        if incoming.is_end_stream() {
            return Self::Empty;
        }
        let stop = Stop { stopping: stopping.clone(), within, ended: None };
        Self::Streamed(Streamed { incoming, patience: Patience::new(idle), upload: Progress::new(), stop })
    }

    /// How far it has come, if it comes bit by bit.
    pub(super) fn upload(&self) -> Option<Progress> {
        match self {
            Self::Streamed(streamed) => Some(streamed.upload.clone()),
            Self::Layered(_, upload) => upload.clone(),
            Self::Empty => None,
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let streamed = match &mut *self {
            Self::Empty => return Poll::Ready(None),
            Self::Layered(body, _) => return Pin::new(body).poll_frame(cx),
            Self::Streamed(streamed) => streamed,
        };
        match Pin::new(&mut streamed.incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                streamed.patience.moved();
                streamed.upload.moved();
                if streamed.incoming.is_end_stream() || !matches!(frame, Some(Ok(_))) {
                    streamed.upload.ended();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                if streamed.stop.poll(cx).is_ready() {
                    streamed.upload.cut();
                    return Poll::Ready(Some(Err(TooSlow("the server stops").into())));
                }
                ready!(streamed.patience.poll(cx));
                Poll::Ready(Some(Err(TooSlow("the client stopped sending").into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Layered(body, _) => body.is_end_stream(),
            Self::Streamed(streamed) => streamed.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Layered(body, _) => body.size_hint(),
            Self::Streamed(streamed) => streamed.incoming.size_hint(),
        }
    }
}

/// What an upstream answers. It holds the connection, and gives it back when it has come to its end.
pub(super) struct Reply {
    incoming: Incoming,
    lent: Option<Lent>,
    patience: Patience,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Ends it, where it has no end of its own.
    cut: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Held until the end.
    place: Option<Place>,
}

impl Reply {
    /// An answer that comes over a connection. It may stand still for `idle`, and must be whole at `deadline`.
    pub(super) fn new(incoming: Incoming, lent: Lent, idle: Duration, deadline: Option<Instant>) -> Self {
        let (lent, patience) = (Some(lent), Patience::new(idle));
        let mut reply = Self { incoming, lent, patience, deadline: None, cut: None, place: None };
        reply.done_if_at_its_end();
        if reply.lent.is_some() {
            reply.deadline = deadline.map(|at| Box::pin(tokio::time::sleep_until(at)));
        }
        reply
    }

    /// Ends when `cut` does, if it has not ended before.
    pub(super) fn until(mut self, cut: impl Future<Output = ()> + Send + 'static) -> Self {
        self.cut = Some(Box::pin(cut));
        self
    }

    /// Holds a place until it has ended.
    pub(super) fn holding(mut self, place: Place) -> Self {
        self.place = self.lent.is_some().then_some(place);
        self
    }

    fn done_if_at_its_end(&mut self) {
        if self.incoming.is_end_stream() {
            self.done();
        }
    }

    fn done(&mut self) {
        self.place = None;
        if let Some(lent) = self.lent.take() {
            lent.give_back();
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let mut polled = Pin::new(&mut this.incoming).poll_frame(cx);
        if polled.is_pending()
            && let Some(lent) = &mut this.lent
        {
            // Nobody else moves the bytes.
            lent.drive(cx);
            polled = Pin::new(&mut this.incoming).poll_frame(cx);
        }
        match polled {
            Poll::Ready(frame) => {
                this.patience.moved();
                match &frame {
                    None => this.done(),
                    Some(Ok(_)) => this.done_if_at_its_end(),
                    // The connection is lost with it.
                    Some(Err(_)) => drop(this.lent.take()),
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                let why = if this.deadline.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready()) {
                    "the exchange took too long"
                } else if this.cut.as_mut().is_some_and(|cut| cut.as_mut().poll(cx).is_ready()) {
                    "the server stops"
                } else {
                    ready!(this.patience.poll(cx));
                    "the upstream stopped sending"
                };
                this.lent = None;
                Poll::Ready(Some(Err(TooSlow(why).into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

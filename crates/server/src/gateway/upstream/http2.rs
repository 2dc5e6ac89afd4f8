//! A connection to an upstream over HTTP/2: many requests at once, each a stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Failed, Sent};
use crate::engine::target::{Counted, chain};
use crate::gateway::body::Outgoing;
use crate::limits;

/// A connection that is open. Clones share it.
#[derive(Clone)]
pub(super) struct Http2 {
    sender: SendRequest<Outgoing>,
    written: Arc<AtomicU64>,
    /// Requests that wait for the head of their answer.
    waiting: Arc<AtomicUsize>,
}

/// Counts a request while it waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Http2 {
    /// Speaks HTTP/2 on a stream. `fails_clean` says that a write which fails has written nothing.
    pub(super) async fn open<S>(stream: S, fails_clean: bool) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (stream, written) = Counted::new(stream, fails_clean);
        let mut http = Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .keep_alive_interval(limits::HEADER_READ_WITHIN)
            .max_header_list_size(u32::try_from(limits::UPSTREAM_HEADER_BYTES_MAX).unwrap_or(u32::MAX))
            .adaptive_window(true);
        let (sender, driver) = http.handshake(TokioIo::new(stream)).await.map_err(|error| chain(&error))?;
        // Ends with the connection; what becomes of a request is told to who sent it.
        tokio::spawn(async move { driver.await.ok() });
        Ok(Self { sender, written, waiting: Arc::default() })
    }

    /// Whether either side has closed it.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether it may take another request without making it wait for the others.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < limits::UPSTREAM_STREAMS_MAX
    }

    /// Whether both are the same connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.written, &other.written)
    }

    /// Sends one request and gives the head of the answer.
    pub(super) async fn send(&self, request: Request<Outgoing>) -> Result<Response<Incoming>, Failed> {
        let _waiting = Waiting::new(&self.waiting);
        let before = self.written.load(Ordering::Acquire);
        self.sender.clone().try_send_request(request).await.map_err(|mut error| {
            let request = error.take_message();
            let detail = chain(error.error());
            let unsent = self.written.load(Ordering::Acquire) == before || was_refused(error.error());
            let sent = match request {
                Some(request) => Sent::Nothing(Box::new(request)),
                None if unsent => Sent::NothingButSpent,
                None => Sent::Something,
            };
            Failed { sent, timed_out: false, detail }
        })
    }
}

/// Whether the other side says that it has not acted on the request (RFC 9113, section 8.7): the stream was refused,
/// or lies above the last one that a GOAWAY names.
fn was_refused(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<h2::Error>() {
            let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return error.is_remote() && (refused || error.is_go_away());
        }
        source = cause.source();
    }
    false
}

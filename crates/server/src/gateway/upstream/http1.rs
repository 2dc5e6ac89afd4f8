//! A connection to an upstream over HTTP/1.1: one request at a time, every byte that is written counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Failed, Sent};
use crate::engine::target::{Counted, chain};
use crate::gateway::body::Outgoing;
use crate::limits;

/// A connection that is open.
pub(super) struct Http1 {
    sender: SendRequest<Outgoing>,
    written: Arc<AtomicU64>,
}

impl Http1 {
    /// Speaks HTTP/1.1 on a stream. `fails_clean` says that a write which fails has written nothing.
    pub(super) async fn open<S>(stream: S, fails_clean: bool) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (stream, written) = Counted::new(stream, fails_clean);
        let mut http = http1::Builder::new();
        http.max_buf_size(limits::UPSTREAM_HEADER_BYTES_MAX);
        let opened = http.handshake(TokioIo::new(stream)).await;
        let (sender, driver) = opened.map_err(|error| chain(&error))?;
        // Ends with the connection; what becomes of a request is told to who sent it.
        tokio::spawn(async move { driver.with_upgrades().await.ok() });
        Ok(Self { sender, written })
    }

    /// Whether another request can be sent on it, as far as is known by now.
    pub(super) fn is_usable(&self) -> bool {
        self.sender.is_ready()
    }

    /// Whether either side has closed it.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends one request and gives the head of the answer.
    pub(super) async fn send(&mut self, request: Request<Outgoing>) -> Result<Response<Incoming>, Failed> {
        let before = self.written.load(Ordering::Acquire);
        self.sender.try_send_request(request).await.map_err(|mut error| {
            let request = error.take_message();
            let detail = chain(error.error());
            // With an error the connection is done with the request: the count does not move any more.
            let sent = match request {
                Some(request) => Sent::Nothing(Box::new(request)),
                None if self.written.load(Ordering::Acquire) == before => Sent::NothingButSpent,
                None => Sent::Something,
            };
            Failed { sent, timed_out: false, detail }
        })
    }
}

//! A connection to an upstream over HTTP/1.1: one request at a time, every byte that is written counted.
//!
//! The connection is driven by whoever waits for its answer, in the same task: nothing has to be woken to send a request
//! or to hand an answer over. While it is idle nobody drives it; before it is used again it is looked at.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Failed, Sent};
use crate::engine::target::{Counted, chain};
use crate::gateway::body::Outgoing;
use crate::limits;

/// Moves the bytes of a connection, until it ends.
type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// A connection that is open.
pub(in crate::gateway) struct Http1 {
    sender: SendRequest<Outgoing>,
    /// `None` once it has ended.
    driver: Option<Driver>,
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
        Ok(Self { sender, driver: Some(Box::pin(driver.with_upgrades())), written })
    }

    /// Moves what can be moved. What becomes of a request is told to who has sent it, so an end says nothing here.
    pub(in crate::gateway) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && driver.as_mut().poll(cx).is_ready()
        {
            self.driver = None;
        }
    }

    /// Whether another request can be sent on it: everything of the last one has come and gone, and the other side has not
    /// closed it, as far as is known by now.
    pub(super) fn is_usable(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Goes on by itself: the connection changes its protocol, and has no answer to wait for any more.
    pub(super) fn detach(self) {
        if let Some(driver) = self.driver {
            tokio::spawn(async move { driver.await.ok() });
        }
    }

    /// Sends one request and gives the head of the answer.
    pub(super) async fn send(&mut self, request: Request<Outgoing>) -> Result<Response<Incoming>, Failed> {
        let before = self.written.load(Ordering::Acquire);
        let mut answer = pin!(self.sender.try_send_request(request));
        let driver = &mut self.driver;
        let answered = poll_fn(|cx| {
            if let Some(moving) = driver
                && moving.as_mut().poll(cx).is_ready()
            {
                *driver = None;
            }
            answer.as_mut().poll(cx)
        });
        answered.await.map_err(|mut error| {
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

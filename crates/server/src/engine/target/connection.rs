//! One connection to a target: HTTP/1.1, one request at a time, every byte that is written counted.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Failed, chain};

/// Bytes that were handed to the transport.
type Written = Arc<AtomicU64>;

/// A connection that is open.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    written: Written,
}

impl Connection {
    /// Speaks HTTP/1.1 on a stream, until either side closes it.
    pub(super) async fn open<S>(stream: S) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let written = Written::default();
        let counted = Counted { stream, written: Arc::clone(&written) };
        let (sender, driver) =
            http1::handshake(TokioIo::new(counted)).await.map_err(|error| chain(&error))?;
        // Ends with the connection; what becomes of a request is told to who sent it.
        tokio::spawn(async move { driver.await.ok() });
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
    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failed> {
        let before = self.written.load(Ordering::Acquire);
        let unsent = |error: &hyper::Error| Failed { sent: false, detail: chain(error) };
        self.sender.ready().await.map_err(|error| unsent(&error))?;
        self.sender.send_request(request).await.map_err(|error| Failed {
            sent: self.written.load(Ordering::Acquire) != before,
            detail: chain(&error),
        })
    }
}

/// What is known of a call from outside, when it is given up.
#[derive(Default)]
pub(super) struct Progress(OnceLock<(Written, u64)>);

impl Progress {
    /// The call goes on on this connection.
    pub(super) fn watch(&self, connection: &Connection) {
        let before = connection.written.load(Ordering::Acquire);
        self.0.get_or_init(|| (Arc::clone(&connection.written), before));
    }

    /// Whether a byte of its request may have reached the transport.
    pub(super) fn is_sent(&self) -> bool {
        self.0.get().is_some_and(|(written, before)| written.load(Ordering::Acquire) != *before)
    }
}

/// Counts before it writes: a count that is too high is only too careful.
struct Counted<S> {
    stream: S,
    written: Written,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written.fetch_add(bytes.len() as u64, Ordering::AcqRel);
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        self.written.fetch_add(length as u64, Ordering::AcqRel);
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

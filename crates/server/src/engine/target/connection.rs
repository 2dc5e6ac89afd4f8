//! One connection to a target: HTTP/1.1, one request at a time, every byte that is written counted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
pub(in crate::engine) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    written: Written,
}

impl Connection {
    /// Speaks HTTP/1.1 on a stream, until either side closes it.
    ///
    /// `fails_clean` says that a write which fails has written nothing.
    pub(super) async fn open<S>(stream: S, fails_clean: bool) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (counted, written) = Counted::new(stream, fails_clean);
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
        self.sender.ready().await.map_err(|error| Failed::unsent(chain(&error)))?;
        // When it fails, the connection is done with it: the count does not move any more.
        self.sender.send_request(request).await.map_err(|error| Failed {
            sent: self.written.load(Ordering::Acquire) != before,
            permanent: false,
            detail: chain(&error),
        })
    }
}

/// Counts before it writes, and takes back what is known not to have been written: a count that is too high is only
/// too careful.
pub(crate) struct Counted<S> {
    stream: S,
    written: Written,
    /// Whether a write that fails has written nothing: so it is on a socket, but not where a layer above it (TLS)
    /// may have written a part first.
    fails_clean: bool,
}

impl<S> Counted<S> {
    /// A stream of which every byte that is written is counted, and the count.
    pub(crate) fn new(stream: S, fails_clean: bool) -> (Self, Arc<AtomicU64>) {
        let written = Written::default();
        (Self { stream, written: Arc::clone(&written), fails_clean }, written)
    }
}

fn counted(
    count: &AtomicU64,
    fails_clean: bool,
    asked: usize,
    write: impl FnOnce() -> Poll<io::Result<usize>>,
) -> Poll<io::Result<usize>> {
    let asked = asked as u64;
    count.fetch_add(asked, Ordering::AcqRel);
    let written = write();
    let unwritten = match &written {
        Poll::Ready(Ok(written)) => asked.saturating_sub(*written as u64),
        Poll::Ready(Err(_)) if !fails_clean => 0,
        Poll::Ready(Err(_)) | Poll::Pending => asked,
    };
    count.fetch_sub(unwritten, Ordering::AcqRel);
    written
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
        let this = &mut *self;
        let stream = Pin::new(&mut this.stream);
        counted(&this.written, this.fails_clean, bytes.len(), || stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        let this = &mut *self;
        let stream = Pin::new(&mut this.stream);
        counted(&this.written, this.fails_clean, length, || stream.poll_write_vectored(cx, slices))
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

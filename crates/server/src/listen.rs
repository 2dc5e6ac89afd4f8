//! Listeners: connections in, bounded in number and time, with TLS where it is configured; out when the server stops.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::response::Response;
use http::Request;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::limits;

/// How long a listener rests when it cannot accept (no file descriptors left, as a rule).
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    pub(crate) is_tls: bool,
}

/// A bound address, not serving yet.
pub(crate) struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    tls: Arc<ArcSwapOption<rustls::ServerConfig>>,
    connections: Arc<Semaphore>,
}

impl Listener {
    /// Binds the address.
    ///
    /// # Errors
    /// Somebody else has it, or it is not ours to have.
    pub(crate) async fn bind(
        address: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
        connections_max: usize,
    ) -> io::Result<Self> {
        let tcp = TcpListener::bind(address).await?;
        Ok(Self {
            address: tcp.local_addr()?,
            tcp,
            tls: Arc::new(ArcSwapOption::new(tls)),
            connections: Arc::new(Semaphore::new(connections_max)),
        })
    }

    /// Where it listens, with the port that it was given.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where new certificates are put; connections that are open keep theirs.
    pub(crate) fn tls(&self) -> Arc<ArcSwapOption<rustls::ServerConfig>> {
        Arc::clone(&self.tls)
    }

    /// Serves until `stopping` is cancelled, then takes nobody in any more. Connections finish the requests that they
    /// have; `tracker` knows when the last one has.
    pub(crate) async fn serve<S>(self, service: S, stopping: CancellationToken, tracker: TaskTracker)
    where
        S: Service<Request<Incoming>, Response = Response, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
    {
        self.serve_each(move |_| service.clone(), stopping, tracker).await;
    }

    /// As [`serve`](Self::serve), with a service of its own for each connection.
    pub(crate) async fn serve_each<S>(
        self,
        service: impl Fn(Origin) -> S,
        stopping: CancellationToken,
        tracker: TaskTracker,
    ) where
        S: Service<Request<Incoming>, Response = Response, Error = Infallible> + Send + 'static,
        S::Future: Send + 'static,
    {
        let http = Arc::new(protocol());
        loop {
            // Above the bound, the kernel's short queue of connections waits, and after that, clients.
            let connection = Arc::clone(&self.connections).acquire_owned();
            let accepted = async { (connection.await, self.tcp.accept().await) };
            let (permit, accepted) = tokio::select! {
                accepted = accepted => accepted,
                () = stopping.cancelled() => return,
            };
            let (Ok(permit), Ok((stream, address))) = (permit, accepted) else {
                tracing::warn!("a connection could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            };
            let tls = self.tls.load_full();
            let service = service(Origin { address, is_tls: tls.is_some() });
            let (http, stopping) = (Arc::clone(&http), stopping.clone());
            tracker.spawn(async move {
                connection_of(stream, tls, &http, service, stopping).await;
                drop(permit);
            });
        }
    }
}

fn protocol() -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_READ_WITHIN)
        .max_buf_size(limits::HEAD_READ_BYTES_MAX);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits::HEADER_READ_WITHIN)
        .max_header_list_size(u32::try_from(limits::HEAD_READ_BYTES_MAX).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits::STREAMS_MAX);
    http
}

async fn connection_of<S>(
    stream: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
    http: &Builder<TokioExecutor>,
    service: S,
    stopping: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
{
    // Answers are small and whole; waiting to fill a packet only delays them. A socket that refuses is slower, no more.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return requests(stream, http, service, stopping).await };
    let handshake = tokio::time::timeout(limits::HANDSHAKE_WITHIN, TlsAcceptor::from(tls).accept(stream));
    let shaken = tokio::select! {
        shaken = handshake => shaken,
        () = stopping.cancelled() => return,
    };
    match shaken {
        Ok(Ok(stream)) => requests(stream, http, service, stopping).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake has failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn requests<I, S>(stream: I, http: &Builder<TokioExecutor>, service: S, stopping: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
{
    let has_begun = Arc::new(AtomicBool::new(false));
    let begins = Arc::clone(&has_begun);
    let service = service_fn(move |request| {
        begins.store(true, Ordering::Relaxed);
        service.call(request)
    });
    let connection = http.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            // A first request whose head has not arrived whole has not begun, and nobody waits for the rest of it. (The
            // head of a later one is dropped by the shutdown itself.)
            if !has_begun.load(Ordering::Relaxed) {
                return;
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection has ended early");
    }
}

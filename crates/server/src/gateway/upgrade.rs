//! Connections that change to another protocol (RFC 9110, section 7.8), such as WebSocket: bytes both ways, as they
//! come.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Response;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::body::Progress;
use super::passage::{Place, ended_after};
use super::upstream::Lent;

/// What holds connections together until they end.
#[derive(Clone, Debug)]
pub(super) struct Tunnels {
    pub(super) tracker: TaskTracker,
    pub(super) stopping: CancellationToken,
}

impl Tunnels {
    /// Ties a client's connection to an upstream's, once both have changed. When the server stops, it lasts a little
    /// longer, and is then cut: it has no end of its own to wait for. So it is when nothing moves for `idle` in either
    /// direction: one end may have gone without a word. Until its end it holds its place.
    pub(super) fn tie(
        &self,
        client: OnUpgrade,
        response: &mut Response<Incoming>,
        mut lent: Lent,
        idle: Duration,
        place: Place,
    ) {
        let upstream = hyper::upgrade::on(response);
        lent.detach();
        let stopping = self.stopping.clone();
        let progress = Progress::new();
        self.tracker.spawn(async move {
            let tunnel = async {
                let (client, upstream) = tokio::try_join!(client, upstream)?;
                let (mut client, mut upstream) = (
                    Watched { stream: TokioIo::new(client), progress: progress.clone() },
                    Watched { stream: TokioIo::new(upstream), progress: progress.clone() },
                );
                // An end that goes away without a word is the usual end.
                tokio::io::copy_bidirectional(&mut client, &mut upstream).await.ok();
                Ok::<_, hyper::Error>(())
            };
            tokio::select! {
                ended = tunnel => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection could not change its protocol");
                    }
                }
                () = stands_still(&progress, idle) => {
                    tracing::debug!("a connection of another protocol is cut: nothing has moved on it");
                }
                () = ended_after(stopping) => {}
            }
            drop((lent, place));
        });
    }
}

/// Ends when nothing has moved for so long.
async fn stands_still(progress: &Progress, idle: Duration) {
    let mut until = progress.last() + idle;
    loop {
        tokio::time::sleep_until(until).await;
        let later = progress.last() + idle;
        if later <= until {
            return;
        }
        until = later;
    }
}

/// One end of a tunnel, whose bytes are told as they are read: what is written here has been read there.
struct Watched<S> {
    stream: S,
    progress: Progress,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.progress.moved();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_stands_still_only_when_nothing_has_moved_for_the_whole_time() {
        let progress = Progress::new();
        let begun = tokio::time::Instant::now();
        let moving = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(40)).await;
                progress.moved();
            }
        };
        tokio::join!(stands_still(&progress, Duration::from_secs(60)), moving);
        assert_eq!(begun.elapsed().as_secs(), 180, "a minute after the last byte");
    }
}

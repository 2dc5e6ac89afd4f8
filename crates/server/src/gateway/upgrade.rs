//! Connections that change to another protocol (RFC 9110, section 7.8), such as WebSocket: bytes both ways, as they
//! come.

use http::Response;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

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
    /// longer, and is then cut: it has no end of its own to wait for. Until its end it holds its place.
    pub(super) fn tie(
        &self,
        client: OnUpgrade,
        response: &mut Response<Incoming>,
        mut lent: Lent,
        place: Place,
    ) {
        let upstream = hyper::upgrade::on(response);
        lent.detach();
        let stopping = self.stopping.clone();
        self.tracker.spawn(async move {
            let tunnel = async {
                let (client, upstream) = tokio::try_join!(client, upstream)?;
                let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
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
                () = ended_after(stopping) => {}
            }
            drop((lent, place));
        });
    }
}

//! The load generator: one thread, one `epoll` loop, requests patched in place.
//!
//! All sides of every comparison are driven by this one generator. It is closed by default (each connection sends its
//! next request when the reply to the last is there), or paced: then requests leave at a fixed rate while connections
//! are free. Latency is taken from the moment a request is written to the moment its reply is whole.
//!
//! It stands here, rather than `wrk` with a Lua script, because keys, replays, paced bursts and counts by status are
//! needed, and because it costs the two shared cores no more: `semel-bench generator` measures both side by side.

mod request;
mod response;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

pub(crate) use request::{Body, WEBHOOK_SECRET};
pub(crate) use response::Reply;

use request::Template;

/// What to send, where, how long.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Where the peer listens.
    pub(crate) addr: SocketAddr,
    /// The path that takes the request.
    pub(crate) path: String,
    /// Open connections, each with at most one request on its way.
    pub(crate) connections: usize,
    /// Threads that share the connections.
    pub(crate) threads: usize,
    /// How long new requests are sent.
    pub(crate) duration: Duration,
    /// Stop after this many requests even if time is left.
    pub(crate) requests_max: Option<u64>,
    /// Which keys are sent.
    pub(crate) keys: Keys,
    /// Which body goes with them.
    pub(crate) body: Body,
    /// Requests per second over all connections; none sends as fast as replies come.
    pub(crate) rate: Option<f64>,
    /// Keep a histogram for each second, too.
    pub(crate) by_second: bool,
}

/// A range of key numbers; a key is a UUID-like scramble of its number, so that it arrives in no order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keys {
    /// Each key once, from this number on.
    Fresh {
        /// The first number.
        first: u64,
    },
    /// Round and round in a range that was sent before.
    Again {
        /// The first number.
        first: u64,
        /// How many.
        count: u64,
    },
    /// Drawn from all over a range that was sent before.
    Scattered {
        /// The first number.
        first: u64,
        /// How many.
        count: u64,
    },
}

impl Keys {
    fn number(self, index: u64) -> u64 {
        match self {
            Self::Fresh { first } => first + index,
            Self::Again { first, count } => first + index % count.max(1),
            Self::Scattered { first, count } => first + request::scramble(index) % count.max(1),
        }
    }
}

/// What one worker or all of them counted.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// Latency of replies with a 2xx status, in microseconds.
    pub(crate) ok: Histogram<u64>,
    /// Replies with 429 or 503: load that was refused on purpose.
    pub(crate) shed: u64,
    /// Any other status, a cut connection, or no reply in time.
    pub(crate) failed: u64,
    /// Requests sent, whether answered within the measured time or after it.
    pub(crate) sent: u64,
    /// The first unexpected answer, to say in the results what went wrong.
    pub(crate) first_failure: Option<String>,
    /// Latency by the second of completion, where asked for.
    pub(crate) seconds: Vec<Histogram<u64>>,
}

/// The figures of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Replies with a 2xx status per second.
    pub(crate) per_second: f64,
    /// Half of the replies came within this many microseconds.
    pub(crate) p50_us: u64,
    /// 99 of 100 came within.
    pub(crate) p99_us: u64,
    /// 999 of 1,000 came within.
    pub(crate) p999_us: u64,
    /// The slowest.
    pub(crate) max_us: u64,
    /// Good replies within the measured time.
    pub(crate) ok: u64,
    /// Refused with 429 or 503.
    pub(crate) shed: u64,
    /// Anything else.
    pub(crate) failed: u64,
    /// Requests sent in all.
    pub(crate) sent: u64,
    /// The first unexpected answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) first_failure: Option<String>,
    /// Per second of the run: good replies and their p99, where asked for.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) seconds: Vec<Second>,
}

/// One second of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Second {
    /// Good replies in it.
    pub(crate) ok: u64,
    /// Their p99 in microseconds.
    pub(crate) p99_us: u64,
}

impl Tally {
    fn new() -> Self {
        Self { ok: latencies(), shed: 0, failed: 0, sent: 0, first_failure: None, seconds: Vec::new() }
    }

    fn absorb(&mut self, other: Self) -> Result<()> {
        self.ok.add(&other.ok).context("histograms of one shape")?;
        self.shed += other.shed;
        self.failed += other.failed;
        self.sent += other.sent;
        self.first_failure = self.first_failure.take().or(other.first_failure);
        for (second, theirs) in other.seconds.into_iter().enumerate() {
            match self.seconds.get_mut(second) {
                Some(ours) => ours.add(&theirs).context("histograms of one shape")?,
                None => self.seconds.push(theirs),
            }
        }
        Ok(())
    }

    fn figures(self, took: Duration) -> Figures {
        let ok = self.ok.len();
        Figures {
            per_second: per_second(ok, took),
            p50_us: self.ok.value_at_quantile(0.50),
            p99_us: self.ok.value_at_quantile(0.99),
            p999_us: self.ok.value_at_quantile(0.999),
            max_us: self.ok.max(),
            ok,
            shed: self.shed,
            failed: self.failed,
            sent: self.sent,
            first_failure: self.first_failure,
            seconds: self
                .seconds
                .iter()
                .map(|one| Second { ok: one.len(), p99_us: one.value_at_quantile(0.99) })
                .collect(),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of requests stay far below 2^52")]
fn per_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// A histogram with three digits, fine enough for a p99.9 ratio, that grows to the slowest reply.
#[expect(clippy::expect_used, reason = "three digits is a constant that the histogram accepts")]
fn latencies() -> Histogram<u64> {
    Histogram::new(3).expect("three significant digits")
}

/// Sends the plan's requests and waits for the last reply.
///
/// # Errors
/// When the peer cannot be connected to, or a thread panicked.
pub(crate) fn run(plan: &Plan) -> Result<Figures> {
    let template = Template::new(&plan.path, plan.addr, plan.body);
    let next = Arc::new(AtomicU64::new(0));
    let threads = plan.threads.clamp(1, plan.connections.max(1));
    let workers: Vec<_> = (0..threads)
        .map(|index| {
            let share = plan.connections / threads + usize::from(index < plan.connections % threads);
            worker::Worker::connect(plan, share, threads, template.clone(), Arc::clone(&next))
        })
        .collect::<Result<_>>()?;
    let handles: Vec<_> = workers
        .into_iter()
        .map(|worker| std::thread::Builder::new().name("load".to_owned()).spawn(move || worker.run()))
        .collect::<std::io::Result<_>>()?;
    let mut total = Tally::new();
    let mut took = Duration::ZERO;
    for handle in handles {
        let (tally, measured) = handle.join().map_err(|_| anyhow::anyhow!("a load thread panicked"))??;
        total.absorb(tally)?;
        took = took.max(measured);
    }
    Ok(total.figures(took))
}

/// Sends one request by itself and returns the reply, for probes and warm-up checks.
///
/// # Errors
/// When the peer cannot be reached or answers nonsense.
pub(crate) fn once(addr: SocketAddr, path: &str, number: u64, body: Body) -> Result<Reply> {
    let mut template = Template::new(path, addr, body);
    template.set_number(number);
    exchange(addr, template.bytes())
}

/// Whether somebody listens there.
///
/// # Errors
/// When nobody does.
pub(crate) fn connect(addr: SocketAddr) -> Result<()> {
    std::net::TcpStream::connect_timeout(&addr, Duration::from_secs(1))?;
    Ok(())
}

/// Writes raw request bytes on a connection of its own and reads one reply.
///
/// # Errors
/// When the peer cannot be reached, is silent for ten seconds or answers nonsense.
pub(crate) fn exchange(addr: SocketAddr, request: &[u8]) -> Result<Reply> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect_timeout(&addr, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(crate::limits::DRAIN))?;
    stream.write_all(request)?;
    let mut buffer = Vec::new();
    let mut chunk = [0_u8; 4096];
    loop {
        let read = stream.read(&mut chunk)?;
        anyhow::ensure!(read > 0, "the connection was closed before the reply was whole");
        buffer.extend_from_slice(&chunk[..read]);
        if let Some(reply) = response::parse(&buffer)? {
            return Ok(Reply {
                body: buffer[reply.body].to_vec(),
                head: buffer[..reply.head].to_vec(),
                status: reply.status,
            });
        }
    }
}

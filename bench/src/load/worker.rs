//! One thread of the generator: its connections, its `epoll` loop, its counts.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::request::Template;
use super::{Keys, Plan, Tally, latencies, response};
use crate::limits::{DRAIN, REPLY_BYTES_MAX};

struct Connection {
    stream: TcpStream,
    sent_at: Option<Instant>,
    buffer: Vec<u8>,
    filled: usize,
}

/// A peer that fails so often has not been measured.
const FAILURES_MAX: u64 = 100_000;

/// A share of the plan's connections and what is needed to drive them.
pub(crate) struct Worker {
    poll: Poll,
    addr: SocketAddr,
    connections: Vec<Connection>,
    idle: Vec<usize>,
    template: Template,
    keys: Keys,
    next: Arc<AtomicU64>,
    requests_max: u64,
    duration: Duration,
    /// Time between two requests of this worker, when paced.
    gap: Option<Duration>,
    by_second: bool,
    tally: Tally,
}

impl Worker {
    /// Opens `share` connections to the plan's peer.
    pub(crate) fn connect(
        plan: &Plan,
        share: usize,
        threads: usize,
        template: Template,
        next: Arc<AtomicU64>,
    ) -> Result<Self> {
        let poll = Poll::new()?;
        let mut connections = Vec::with_capacity(share);
        for index in 0..share {
            let stream = std::net::TcpStream::connect(plan.addr)
                .with_context(|| format!("connection {index} to {}", plan.addr))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
            let buffer = vec![0; REPLY_BYTES_MAX];
            connections.push(Connection { stream, sent_at: None, buffer, filled: 0 });
        }
        #[expect(clippy::cast_precision_loss, reason = "a handful of threads")]
        let gap = plan.rate.map(|rate| Duration::from_secs_f64(threads as f64 / rate));
        Ok(Self {
            poll,
            addr: plan.addr,
            idle: (0..share).rev().collect(),
            connections,
            template,
            keys: plan.keys,
            next,
            requests_max: plan.requests_max.unwrap_or(u64::MAX),
            duration: plan.duration,
            gap,
            by_second: plan.by_second,
            tally: Tally::new(),
        })
    }

    /// Drives the connections until the time is up and the last reply is there; returns the counts and the time measured.
    pub(crate) fn run(mut self) -> Result<(Tally, Duration)> {
        let start = Instant::now();
        let end = start + self.duration;
        let mut events = Events::with_capacity(1024);
        let mut due = start;
        let mut spent = false;
        loop {
            let now = Instant::now();
            let sending = now < end && !spent;
            if sending {
                spent = !self.send_due(now, &mut due)?;
            } else if self.idle.len() == self.connections.len() {
                break;
            } else if now > end + DRAIN {
                self.give_up();
                break;
            }
            let wait = match (sending, self.gap) {
                (true, Some(_)) if !self.idle.is_empty() => due.saturating_duration_since(Instant::now()),
                _ => end.saturating_duration_since(now).min(DRAIN).max(Duration::from_millis(1)),
            };
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                self.receive(event.token().0, start, end)?;
            }
        }
        let measured = if spent { start.elapsed().min(self.duration) } else { self.duration };
        Ok((self.tally, measured))
    }

    /// Sends on every idle connection whose turn has come; false once the number of requests is spent.
    fn send_due(&mut self, now: Instant, due: &mut Instant) -> Result<bool> {
        while let Some(&index) = self.idle.last() {
            if let Some(gap) = self.gap {
                if *due > now {
                    return Ok(true);
                }
                // When every connection is busy the schedule does not pile up: the rate is what was offered, not owed.
                *due = (*due + gap).max(now.checked_sub(gap * 64).unwrap_or(now));
            }
            self.idle.pop();
            if !self.send(index)? {
                self.idle.push(index);
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn send(&mut self, index: usize) -> Result<bool> {
        let sequence = self.next.fetch_add(1, Ordering::Relaxed);
        if sequence >= self.requests_max {
            return Ok(false);
        }
        self.template.set_number(self.keys.number(sequence));
        let connection = &mut self.connections[index];
        connection.sent_at = Some(Instant::now());
        // A request of less than a kilobyte always fits the empty socket buffer of a connection with nothing on its way.
        connection.stream.write_all(self.template.bytes()).context("the peer closed a connection")?;
        self.tally.sent += 1;
        Ok(true)
    }

    fn receive(&mut self, index: usize, start: Instant, end: Instant) -> Result<()> {
        let connection = &mut self.connections[index];
        loop {
            match connection.stream.read(&mut connection.buffer[connection.filled..]) {
                Ok(0) => return self.reconnect(index, "the peer closed a connection"),
                Ok(read) => connection.filled += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return self.reconnect(index, &format!("reading a reply: {error}")),
            }
            if let Some(reply) = response::parse(&connection.buffer[..connection.filled])? {
                let now = Instant::now();
                let sent_at = connection.sent_at.take().context("a reply nobody asked for")?;
                let text = if (200..300).contains(&reply.status) || matches!(reply.status, 429 | 503) {
                    None
                } else {
                    let body = String::from_utf8_lossy(&connection.buffer[reply.body.clone()]).into_owned();
                    Some(format!("{} {body}", reply.status))
                };
                connection.filled = 0;
                self.count(reply.status, text, now, sent_at, start, end)?;
                return self.go_on(index, now, end);
            }
        }
    }

    /// A connection that was cut is a new one, and a failed request if one was on its way: a server may close a
    /// connection that has nothing to do (RFC 9112, section 9.5).
    fn reconnect(&mut self, index: usize, why: &str) -> Result<()> {
        if self.connections[index].sent_at.is_some() {
            self.tally.failed += 1;
            self.tally.first_failure.get_or_insert_with(|| why.to_owned());
        }
        anyhow::ensure!(self.tally.failed < FAILURES_MAX, "{FAILURES_MAX} requests failed, the first: {why}");
        let stream = std::net::TcpStream::connect(self.addr).context("connecting again")?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        self.poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
        let connection = &mut self.connections[index];
        connection.stream = stream;
        connection.filled = 0;
        if connection.sent_at.take().is_some() {
            self.idle.push(index);
        }
        Ok(())
    }

    /// A closed loop sends the next request at once, before it looks at the other connections.
    fn go_on(&mut self, index: usize, now: Instant, end: Instant) -> Result<()> {
        if self.gap.is_some() || now >= end || !self.send(index)? {
            self.idle.push(index);
        }
        Ok(())
    }

    fn count(
        &mut self,
        status: u16,
        text: Option<String>,
        now: Instant,
        sent_at: Instant,
        start: Instant,
        end: Instant,
    ) -> Result<()> {
        if let Some(text) = text {
            self.tally.failed += 1;
            self.tally.first_failure.get_or_insert(text);
            return Ok(());
        }
        // What was sent in time and answered late was real work, but not within the measured time.
        if now > end {
            return Ok(());
        }
        if !(200..300).contains(&status) {
            self.tally.shed += 1;
            return Ok(());
        }
        let micros = u64::try_from((now - sent_at).as_micros()).unwrap_or(u64::MAX).max(1);
        self.tally.ok.record(micros).context("an auto-resizing histogram")?;
        if self.by_second {
            let second = usize::try_from((now - start).as_secs()).unwrap_or(usize::MAX);
            while self.tally.seconds.len() <= second {
                self.tally.seconds.push(latencies());
            }
            self.tally.seconds[second].record(micros).context("an auto-resizing histogram")?;
        }
        Ok(())
    }

    fn give_up(&mut self) {
        let silent = self.connections.iter().filter(|one| one.sent_at.is_some()).count();
        self.tally.failed += silent as u64;
        self.tally
            .first_failure
            .get_or_insert(format!("{silent} requests had no reply {DRAIN:?} after the end"));
    }
}

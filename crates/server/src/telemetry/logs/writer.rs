//! Writes lines without making anybody wait for the disk or the terminal.
//!
//! Lines are gathered in memory and written by a thread of their own, many at a time. The memory has an end: a line
//! that finds no room is dropped and counted.

use std::io::Write;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use prometheus_client::metrics::counter::Counter;

use crate::limits::LOG_BUFFER_BYTES_MAX;

/// How long lines are gathered before they are written: waking the writer for each line would cost more than the line.
const GATHER: Duration = Duration::from_millis(5);

/// Where lines are put. Clones are the same writer.
#[derive(Clone)]
pub(super) struct LineWriter(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
    dropped: Counter,
}

#[derive(Default)]
struct State {
    pending: Vec<u8>,
    writing: bool,
    /// Somebody waits: do not gather.
    hurry: bool,
    closed: bool,
}

/// Ends the writer when it is dropped, once everything is written.
pub(super) struct WriterThread {
    writer: LineWriter,
    thread: Option<JoinHandle<()>>,
}

impl LineWriter {
    /// Starts a writer onto `out`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(out: Box<dyn Write + Send>) -> std::io::Result<(Self, WriterThread)> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            dropped: Counter::default(),
        });
        let writer = Self(Arc::clone(&shared));
        let thread =
            std::thread::Builder::new().name("semel-logs".into()).spawn(move || shared.write(out))?;
        Ok((writer.clone(), WriterThread { writer, thread: Some(thread) }))
    }

    /// Puts a line, with its end.
    pub(super) fn put(&self, line: &[u8]) {
        let mut state = self.0.state.lock();
        if state.closed || state.pending.len() + line.len() > LOG_BUFFER_BYTES_MAX {
            self.0.dropped.inc();
            return;
        }
        let wake = state.pending.is_empty();
        state.pending.extend_from_slice(line);
        drop(state);
        if wake {
            self.0.filled.notify_one();
        }
    }

    /// Waits until what was put before is written.
    pub(super) fn flush(&self) {
        let mut state = self.0.state.lock();
        state.hurry = true;
        self.0.filled.notify_one();
        while !state.closed && (state.writing || !state.pending.is_empty()) {
            self.0.emptied.wait(&mut state);
        }
    }

    /// Lines that found no room.
    pub(super) fn dropped(&self) -> Counter {
        self.0.dropped.clone()
    }
}

impl Shared {
    fn write(&self, mut out: Box<dyn Write + Send>) {
        let mut lines = Vec::new();
        let mut state = self.state.lock();
        loop {
            while state.pending.is_empty() && !state.closed {
                state.hurry = false;
                self.emptied.notify_all();
                self.filled.wait(&mut state);
            }
            if state.pending.is_empty() {
                self.emptied.notify_all();
                return;
            }
            if !state.hurry && !state.closed {
                // Woken early by `flush` or the end, and by no line, since only the first one wakes.
                self.filled.wait_for(&mut state, GATHER);
            }
            std::mem::swap(&mut state.pending, &mut lines);
            state.writing = true;
            drop(state);
            // There is nobody to tell that the log cannot be written.
            let _ = out.write_all(&lines).and_then(|()| out.flush());
            lines.clear();
            lines.shrink_to(LOG_BUFFER_BYTES_MAX / 16);
            state = self.state.lock();
            state.writing = false;
        }
    }
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        self.writer.0.state.lock().closed = true;
        self.writer.0.filled.notify_one();
        if let Some(thread) = self.thread.take() {
            // It ends by itself, and a panic in it has shown itself already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Hands over what is written, and waits to be let go on.
    struct Gate {
        entered: mpsc::Sender<Vec<u8>>,
        leave: mpsc::Receiver<()>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.entered.send(bytes.to_vec());
            let _ = self.leave.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_a_writer_that_hangs_and_what_finds_no_room_is_counted() {
        let (entered, written) = mpsc::channel();
        let (go, leave) = mpsc::channel();
        let (writer, thread) = LineWriter::start(Box::new(Gate { entered, leave })).unwrap();
        writer.put(b"first\n");
        assert_eq!(written.recv().unwrap(), b"first\n", "and now it hangs");
        let line = vec![b'x'; LOG_BUFFER_BYTES_MAX / 2];
        for _ in 0..3 {
            writer.put(&line);
        }
        assert_eq!(writer.dropped().get(), 1, "two halves have room");
        go.send(()).unwrap();
        assert_eq!(written.recv().unwrap().len(), line.len() * 2, "many at a time");
        drop(go);
        writer.flush();
        drop(thread);
        writer.put(b"too late\n");
        assert_eq!(writer.dropped().get(), 2);
    }
}

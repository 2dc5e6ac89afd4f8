//! Whether some sequential order explains a history of concurrent claims, runs and outcomes.
//!
//! A test writes down what its clients saw: when each asked, when it was answered, and what; and, if something
//! outside counts them, when the operation was seen to run. [`check`] looks for an order of all that, one for each
//! key, in which every answer is what the ledger would have said: each call takes effect at one moment between its
//! question and its answer, and a call that was never answered (a crash, a lost connection) takes effect at any
//! moment after its question or not at all. If there is no such order, no ledger that keeps L1 to L10 can have given
//! these answers, and the [`Violation`] says where every order ends.
//!
//! ```
//! use semel_conformance::history::{Claimed, Event, Held, What, check};
//!
//! let claim = |called, answered, answer| Event::new("key-1", called, answered, What::Claim { attempt: None, answer });
//! let good = [
//!     claim(0, Some(10), Some(Claimed::Granted { grant: 1 })),
//!     claim(5, Some(8), Some(Claimed::Busy)),
//!     Event::new("key-1", 20, Some(30), What::Complete {
//!         grant: 1,
//!         outcome: "200 done".into(),
//!         answer: Some(Held::Done),
//!     }),
//!     claim(25, Some(40), Some(Claimed::Replay { outcome: "200 done".into() })),
//! ];
//! check(&good).unwrap();
//!
//! let two_grants = [
//!     claim(0, Some(10), Some(Claimed::Granted { grant: 1 })),
//!     claim(12, Some(20), Some(Claimed::Granted { grant: 2 })),
//! ];
//! assert!(check(&two_grants).is_err());
//! ```
//!
//! Retention is no part of it: let records live longer than the history.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead};

use serde::{Deserialize, Serialize};

mod object;
mod search;
#[cfg(test)]
mod tests;

/// One call with its answer, or one thing that was seen to happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The key. Keys are independent of each other.
    pub key: String,
    /// When it was asked, by a clock that all events share and that never goes back. Any unit.
    pub called: u64,
    /// When its answer came; `None` if none ever did.
    pub answered: Option<u64>,
    /// What was asked and answered.
    #[serde(flatten)]
    pub what: What,
}

/// What was asked, and what was answered. An answer that says that nobody knows (a 503 in doubt) is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum What {
    /// Somebody asks for the right to run one attempt.
    Claim {
        /// The client's name for the attempt: a claim with the same one may be given the same grant again.
        attempt: Option<String>,
        /// What was answered.
        answer: Option<Claimed>,
    },
    /// A holder renews its lease.
    Extend {
        /// The fence of its claim.
        grant: u64,
        /// What was answered.
        answer: Option<Held>,
    },
    /// A holder says what its attempt gave.
    Complete {
        /// The fence of its claim.
        grant: u64,
        /// What it gave.
        outcome: String,
        /// What was answered.
        answer: Option<Held>,
    },
    /// A holder says that its attempt had no effect.
    Release {
        /// The fence of its claim.
        grant: u64,
        /// What was answered.
        answer: Option<Held>,
    },
    /// A holder says that nobody knows what its attempt did.
    MarkUnknown {
        /// The fence of its claim.
        grant: u64,
        /// What was answered.
        answer: Option<Held>,
    },
    /// An operator or a probe settles what nobody knew.
    Resolve {
        /// With this outcome; `None` says that it was not executed.
        outcome: Option<String>,
        /// `Done`, or `Fenced` if it was refused.
        answer: Option<Held>,
    },
    /// A client asks the server to run the operation: claim, run and outcome in one call.
    Execute {
        /// What was answered.
        answer: Option<Executed>,
    },
    /// The operation was seen to run, by something outside that counts. Between `called` and `answered`.
    Ran {
        /// What it gave, if each run gives something that no other does.
        outcome: Option<String>,
    },
}

/// What a claim is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claimed {
    /// Run it.
    Granted {
        /// The fence.
        grant: u64,
    },
    /// It was done.
    Replay {
        /// What it gave.
        outcome: String,
    },
    /// Somebody else has it.
    Busy,
    /// It may have happened, and nobody knows.
    Unknown,
    /// Nothing happened: overload, an outage before anything was tried.
    Refused,
}

/// What a holder is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// It holds.
    Done,
    /// The claim is over; nothing changed.
    Fenced,
    /// Nothing happened, and the claim may be held all the same.
    Refused,
}

/// What a client of the server is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Executed {
    /// It was done.
    Completed {
        /// What it gave.
        outcome: String,
        /// Whether by an earlier call; `false` says that this call's own attempt did it.
        replayed: bool,
    },
    /// It is being done.
    Processing,
    /// It may have happened, and nobody knows.
    Unknown,
    /// This call's attempt is known to have had no effect.
    Released,
    /// Nothing happened: overload, an outage before anything was tried.
    Refused,
}

impl Event {
    /// One event.
    pub fn new(key: &str, called: u64, answered: Option<u64>, what: What) -> Self {
        Self { key: key.to_owned(), called, answered, what }
    }
}

/// What the history was made under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whether a lapsed lease means that nobody knows. Otherwise the next claim takes over.
    pub at_most_once: bool,
    /// The lease, in the unit of the events: nothing lapses sooner. `None`: a lease may lapse at any time, so that
    /// two grants of one key are never wrong where the next claim takes over.
    pub lease: Option<u64>,
    /// Whether every run was seen: an outcome without a run is a violation.
    pub runs_are_seen: bool,
}

/// No sequential order explains the history of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key.
    pub key: String,
    /// What is wrong, in a sentence.
    pub what: String,
    /// The longest part of the history that has an explanation, in its order.
    pub explained: Vec<String>,
    /// Where the key stands after it.
    pub standing: String,
    /// What comes next in every order, and cannot follow.
    pub stuck: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "key {:?}: {}", self.key, self.what)?;
        writeln!(f, "  an order explains this much:")?;
        for step in &self.explained {
            writeln!(f, "    {step}")?;
        }
        writeln!(f, "  then the key is {}, and none of these can follow:", self.standing)?;
        self.stuck.iter().try_for_each(|step| writeln!(f, "    {step}"))
    }
}

impl std::error::Error for Violation {}

/// Whether some order explains the history, under *at most once*; runs are all seen if any is in the history.
///
/// # Errors
/// The first key, by name, whose history has no explanation.
pub fn check(events: &[Event]) -> Result<(), Violation> {
    let runs_are_seen = events.iter().any(|event| matches!(event.what, What::Ran { .. }));
    check_under(Rules { at_most_once: true, lease: None, runs_are_seen }, events)
}

/// As [`check`], under these rules.
///
/// # Errors
/// The first key, by name, whose history has no explanation.
pub fn check_under(rules: Rules, events: &[Event]) -> Result<(), Violation> {
    let mut keys = BTreeMap::<&str, Vec<&Event>>::new();
    for event in events {
        keys.entry(&event.key).or_default().push(event);
    }
    keys.into_iter().try_for_each(|(key, mut events)| {
        events.sort_by_key(|event| (event.called, event.answered.unwrap_or(u64::MAX)));
        search::explain(rules, key, &events)
    })
}

/// Reads a history of one event a line, as JSON; empty lines are left out.
///
/// # Errors
/// It cannot be read, or a line is no event: which one.
pub fn read_json_lines(lines: impl BufRead) -> io::Result<Vec<Event>> {
    let mut events = Vec::new();
    for (number, line) in lines.lines().enumerate() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let event = serde_json::from_str(&line).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("line {}: {error}", number + 1))
        })?;
        events.push(event);
    }
    Ok(events)
}

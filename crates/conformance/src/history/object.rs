//! The sequential object: one key as the ledger would keep it, one step at a time.
//!
//! It is written from the table of commands, not from core's code, so that the two are held against each other.

use std::fmt;

use super::Rules;

/// Which claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Grant {
    /// That of this fence.
    Fence(u64),
    /// One whose answer never came, or that never left the server: by its event.
    Of(usize),
}

/// An outcome, by its place in the key's table of outcomes; `None` is one that nobody has told.
pub(super) type Told = Option<usize>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Standing {
    /// Nobody has it. The last grant may still complete if somebody else said that it was not executed.
    Free {
        last: Option<Grant>,
    },
    Held(Grant),
    Unknown(Grant),
    Done(Told),
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Object {
    pub(super) standing: Standing,
    /// The highest fence that was told.
    fence: u64,
    /// Whether the attempt at hand was seen to run, and what that gave.
    ran: Option<Told>,
    /// When, at the earliest, the lease at hand began.
    lease_from: u64,
    /// Who has given the claim back last.
    returned: Option<Grant>,
    /// Whose completion it is.
    completed_by: Option<Grant>,
}

/// One step of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A claim is granted.
    Grant { grant: Grant, attempt: Option<usize> },
    /// A lease is renewed.
    Extend(Grant),
    /// The outcome is stored.
    Complete { grant: Grant, outcome: usize },
    /// Some outcome is stored, which one nobody was told.
    CompleteSomehow(Grant),
    /// The claim is given back.
    Release(Grant),
    /// Nobody knows.
    Lose(Grant),
    /// Somebody settles it.
    Resolve(Option<usize>),
    /// A holder is told that it holds nothing.
    Fenced(Grant),
    /// It was seen to run.
    Run(Told),
    /// Somebody is shown the outcome.
    SeeDone(usize),
    /// Somebody is told that another has it.
    SeeHeld,
    /// Somebody is told that nobody knows.
    SeeUnknown,
}

impl Step {
    /// Whether it changes nothing wherever it is possible, so that it may always come first.
    pub(super) const fn only_looks(self) -> bool {
        matches!(self, Self::SeeDone(_) | Self::SeeHeld | Self::Fenced(_))
    }
}

impl Object {
    pub(super) const ABSENT: Self = Self {
        standing: Standing::Free { last: None },
        fence: 0,
        ran: None,
        lease_from: 0,
        returned: None,
        completed_by: None,
    };

    fn is_held_by(&self, grant: Grant) -> bool {
        matches!(self.standing, Standing::Held(held) | Standing::Unknown(held) if held == grant)
    }

    /// Whether the lease at hand can have lapsed before an answer that came at `answered`.
    fn can_have_lapsed(&self, rules: Rules, answered: u64) -> bool {
        rules.lease.is_none_or(|lease| answered >= self.lease_from.saturating_add(lease))
    }

    /// What the key may be after `step`, whose call came at `called` and was answered at `answered`; nothing if the
    /// step cannot come here. `outcomes` is how many were ever told.
    pub(super) fn after(
        &self,
        rules: Rules,
        step: Step,
        (called, answered): (u64, u64),
        outcomes: usize,
    ) -> Vec<Self> {
        let one = |next: Option<Self>| next.into_iter().collect();
        match step {
            Step::Grant { grant, attempt } => {
                one(self.granted(rules, grant, attempt.is_some(), (called, answered)))
            }
            Step::Extend(grant) => one(self.is_held_by(grant).then_some(Self {
                standing: Standing::Held(grant),
                lease_from: self.lease_from.max(called),
                ..*self
            })),
            Step::Complete { grant, outcome } => one(self.completed(rules, grant, Some(outcome))),
            Step::CompleteSomehow(grant) => {
                let told = (0..outcomes).map(Some).chain([None]);
                told.filter_map(|outcome| self.completed(rules, grant, outcome)).collect()
            }
            Step::Release(grant) => one(self.released(rules, grant)),
            Step::Lose(grant) => {
                one(self.is_held_by(grant).then_some(Self { standing: Standing::Unknown(grant), ..*self }))
            }
            Step::Resolve(outcome) => self.resolved(rules, outcome, answered),
            Step::Fenced(grant) => one((!self.is_held_by(grant)).then_some(*self)),
            Step::Run(outcome) => one(self.run(rules, outcome)),
            Step::SeeDone(outcome) => one((self.standing == Standing::Done(Some(outcome))).then_some(*self)),
            Step::SeeHeld => one(matches!(self.standing, Standing::Held(_)).then_some(*self)),
            Step::SeeUnknown => match self.standing {
                Standing::Unknown(_) => vec![*self],
                Standing::Held(grant) if rules.at_most_once && self.can_have_lapsed(rules, answered) => {
                    vec![Self { standing: Standing::Unknown(grant), ..*self }]
                }
                Standing::Held(_) | Standing::Free { .. } | Standing::Done(_) => Vec::new(),
            },
        }
    }

    fn granted(
        &self,
        rules: Rules,
        grant: Grant,
        named: bool,
        (called, answered): (u64, u64),
    ) -> Option<Self> {
        let fence = match grant {
            Grant::Fence(fence) => fence,
            Grant::Of(_) => self.fence,
        };
        match self.standing {
            // Asked for again under the attempt's own name, it is the same claim.
            Standing::Held(held) if held == grant => Some(*self),
            Standing::Held(Grant::Of(_)) if named && fence > self.fence => {
                Some(Self { standing: Standing::Held(grant), fence, ..*self })
            }
            Standing::Held(_) if rules.at_most_once || !self.can_have_lapsed(rules, answered) => None,
            Standing::Unknown(_) | Standing::Done(_) => None,
            Standing::Held(_) | Standing::Free { .. } => {
                // L2: a fence that does not rise was given before.
                let rises = matches!(grant, Grant::Of(_)) || fence > self.fence;
                rises.then_some(Self {
                    standing: Standing::Held(grant),
                    fence,
                    ran: None,
                    lease_from: called,
                    ..*self
                })
            }
        }
    }

    fn completed(&self, rules: Rules, grant: Grant, outcome: Told) -> Option<Self> {
        let holds = match self.standing {
            Standing::Held(held) | Standing::Unknown(held) => held == grant,
            Standing::Free { last } => last == Some(grant),
            Standing::Done(told) => {
                return (self.completed_by == Some(grant) && told == outcome).then_some(*self);
            }
        };
        let as_it_ran = match self.ran {
            None => !rules.runs_are_seen || !rules.at_most_once,
            Some(gave) => gave.is_none() || gave == outcome,
        };
        (holds && as_it_ran).then_some(Self {
            standing: Standing::Done(outcome),
            completed_by: Some(grant),
            ..*self
        })
    }

    fn released(&self, rules: Rules, grant: Grant) -> Option<Self> {
        if self.is_held_by(grant) {
            // What was seen to run is not without effect: giving it back would be the first half of a double run.
            if rules.at_most_once && self.ran.is_some() {
                return None;
            }
            return Some(Self {
                standing: Standing::Free { last: None },
                returned: Some(grant),
                ran: None,
                ..*self
            });
        }
        (self.returned == Some(grant)).then_some(*self)
    }

    fn resolved(&self, rules: Rules, outcome: Option<usize>, answered: u64) -> Vec<Self> {
        let grant = match self.standing {
            Standing::Unknown(grant) => grant,
            Standing::Held(grant) if rules.at_most_once && self.can_have_lapsed(rules, answered) => grant,
            Standing::Held(_) | Standing::Free { .. } | Standing::Done(_) => return Vec::new(),
        };
        vec![match outcome {
            Some(outcome) => {
                Self { standing: Standing::Done(Some(outcome)), completed_by: Some(grant), ..*self }
            }
            None => Self { standing: Standing::Free { last: Some(grant) }, ran: None, ..*self },
        }]
    }

    fn run(&self, rules: Rules, outcome: Told) -> Option<Self> {
        if !rules.at_most_once {
            // A paused attempt's request may arrive whenever it likes, but not before there was any.
            let begun = self.standing != Standing::Free { last: None } || self.returned.is_some();
            return begun.then_some(*self);
        }
        let under_way = matches!(self.standing, Standing::Held(_) | Standing::Unknown(_));
        (under_way && self.ran.is_none()).then_some(Self { ran: Some(outcome), ..*self })
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ran = if self.ran.is_some() { ", and has run" } else { "" };
        match self.standing {
            Standing::Free { .. } => f.write_str("free"),
            Standing::Held(grant) => write!(f, "held by {grant}{ran}"),
            Standing::Unknown(grant) => write!(f, "unknown since {grant}{ran}"),
            Standing::Done(_) => f.write_str("completed"),
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fence(fence) => write!(f, "grant {fence}"),
            Self::Of(event) => write!(f, "the grant of call {event}"),
        }
    }
}

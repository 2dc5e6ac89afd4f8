//! Who takes part, what they may do, and how often: the bounds of a run.

use semel_core::id::Namespace;
use semel_core::policy::OnLapse;

use crate::guards::Guard;
use crate::orders::Laws;

/// What an actor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Claims the key and runs the work itself.
    Client,
    /// As a client that asks for a longer lease.
    Patient,
    /// As a client, and asks once for something else under the same key.
    Confused,
    /// As a client that names its attempt, and asks again under that name when an answer is lost.
    Named,
    /// As a client whose input is kept, so that a worker can go on with its work.
    Completer,
    /// Hands the work in.
    Submitter,
    /// Hands the work in for later.
    Planner,
    /// Files the work among the dead letters, without a try.
    Filer,
    /// Takes what is due.
    Worker,
    /// Applies lapses.
    Reaper,
    /// Asks the target about unknown and dead work, and says what it found.
    Probe,
    /// Revives and discards; in any state, as far as the ledger lets it.
    Operator,
    /// Takes the guard of a job from its holder.
    Warden,
    /// Puts pending work off.
    Breaker,
    /// Removes what has expired.
    Sweeper,
    /// Drops payloads whose time has come.
    Clerk,
}

/// An actor and its bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cast {
    pub(crate) role: Role,
    /// Orders it begins. What follows from a claim (work, end) is not counted.
    pub(crate) orders: u8,
    /// Answers that it loses or does not wait for.
    pub(crate) doubts: u8,
    /// Times that it crashes.
    pub(crate) crashes: u8,
    /// Heartbeats per claim.
    pub(crate) beats: u8,
    /// Checkpoints per claim.
    pub(crate) steps: u8,
    /// How fast its clock goes, in tenths of the store's.
    pub(crate) rate: u8,
}

impl Cast {
    /// An actor that gives this many orders, with no trouble.
    pub(crate) const fn new(role: Role, orders: u8) -> Self {
        Self { role, orders, doubts: 0, crashes: 0, beats: 0, steps: 0, rate: 10 }
    }

    pub(crate) const fn doubts(mut self, doubts: u8) -> Self {
        self.doubts = doubts;
        self
    }

    pub(crate) const fn crashes(mut self, crashes: u8) -> Self {
        self.crashes = crashes;
        self
    }

    pub(crate) const fn beats(mut self, beats: u8) -> Self {
        self.beats = beats;
        self
    }

    pub(crate) const fn steps(mut self, steps: u8) -> Self {
        self.steps = steps;
        self
    }

    pub(crate) const fn clock(mut self, tenths: u8) -> Self {
        self.rate = tenths;
        self
    }
}

/// A run of the model.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) laws: Laws,
    pub(crate) cast: Vec<Cast>,
    /// Whether a write is durable some time after it was judged, and a power loss can come between.
    pub(crate) power_loss: bool,
    /// What must be seen to happen, so that the run is known not to have passed it by.
    pub(crate) sees: &'static [Sight],
}

impl Scenario {
    /// A run under this policy, with so many tries of accepted work.
    pub(crate) fn new(name: &'static str, on_lapse: OnLapse, attempts: u32, cast: &[Cast]) -> Self {
        let laws = Laws::new(on_lapse, attempts, Namespace::Execute);
        Self { name, laws, cast: cast.to_vec(), power_loss: false, sees: &[] }
    }

    /// For the guard of a job.
    pub(crate) fn of_a_job(mut self) -> Self {
        let policy = self.laws.policy();
        self.laws = Laws::new(policy.on_lapse(), policy.retry().max_attempts(), Namespace::Job);
        self
    }

    /// With payloads that go before their records.
    pub(crate) fn dropping_payloads(mut self) -> Self {
        self.laws = self.laws.dropping_payloads();
        self
    }

    /// With a store that loses what is not durable yet.
    pub(crate) fn with_power_loss(mut self) -> Self {
        self.power_loss = true;
        self
    }

    /// Must see these.
    pub(crate) fn seeing(mut self, sees: &'static [Sight]) -> Self {
        self.sees = sees;
        self
    }

    /// The same without a guard.
    pub(crate) fn without(mut self, guard: Guard) -> Self {
        if guard == Guard::HolderLeavesAMargin {
            for cast in &mut self.cast {
                cast.rate = 5;
            }
        }
        self.laws = self.laws.without(guard);
        self
    }
}

/// Something that a run must come by, or it has proved nothing about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// A lease lapsed into unknown.
    Lapse,
    /// A claim was taken over from a holder that had lost its lease.
    Takeover,
    /// A stale holder was fenced.
    Fenced,
    /// A holder settled after its lease had lapsed, since nobody had taken over.
    LateSettlement,
    /// A write took effect after its sender had given it up.
    GhostWrite,
    /// A write was refused since its deadline had passed.
    TooLate,
    /// A version was not durable when the power went.
    PowerLoss,
    /// A key was used again after the sweep had removed it.
    Reuse,
    /// A probe said "not executed", and the key ran again.
    SecondRun,
    /// A request of an attempt that is over reached the target.
    LateRequest,
    /// The target refused a request, since the probe had cancelled it.
    Cancelled,
    /// A stale version was refused.
    StaleVersion,
    /// Accepted work died.
    Death,
    /// Dead work was revived.
    Revival,
    /// Somebody else asked for the outcome and was told.
    Replay,
    /// Another request came under the same key.
    Mismatch,
    /// A claim that had been given up was found and given back.
    Abandoned,
    /// A payload went before its record.
    PayloadGone,
}

impl Sight {
    /// How many there are.
    pub(crate) const COUNT: usize = Self::PayloadGone as usize + 1;
}

//! The search for an order, one key at a time: depth first, and no configuration twice (Wing and Gong's search with
//! Lowe's memory of what was tried).
//!
//! A call is taken apart into steps. A step may come next if no step that must still come had its answer before this
//! one's question. Steps that only look are taken as soon as they are possible: they change nothing, so waiting with
//! them can only make things worse.

use std::collections::HashSet;

use super::object::{Grant, Object, Step, Told};
use super::{Claimed, Event, Executed, Held, Rules, Violation, What};

/// Configurations that are tried for one key before the search gives up, which is a violation, too: a history that
/// cannot be judged proves nothing.
const CONFIGURATIONS_MAX: usize = 500_000;

/// One step of a call, and when it may come.
struct Placed {
    event: usize,
    step: Step,
    earliest: u64,
    latest: u64,
    /// Whether it must come: it was answered, or seen.
    required: bool,
    /// The step of the same call that must have come before.
    follows: Option<usize>,
    /// Whether it is the grant of a call that was never answered and has no name. Such calls differ in nothing but
    /// when they were asked, and the one that was asked first can do whatever another could.
    nameless: bool,
}

/// Looks for an order that explains the events of a key.
pub(super) fn explain(rules: Rules, key: &str, events: &[&Event]) -> Result<(), Violation> {
    let mut table = Table { steps: Vec::new(), outcomes: Vec::new(), attempts: Vec::new() };
    for (number, event) in events.iter().enumerate() {
        table.add(number, event);
    }
    let mut search = Search {
        rules,
        steps: &table.steps,
        outcomes: table.outcomes.len(),
        tried: HashSet::new(),
        path: Vec::new(),
        best: Vec::new(),
        best_object: Object::ABSENT,
    };
    let done = vec![0; table.steps.len().div_ceil(64)];
    if search.from(done, Object::ABSENT) {
        return Ok(());
    }
    Err(search.violation(key, events))
}

/// The steps of all calls on a key, and the texts in them by number.
struct Table {
    steps: Vec<Placed>,
    outcomes: Vec<String>,
    attempts: Vec<String>,
}

fn number(texts: &mut Vec<String>, text: &str) -> usize {
    texts.iter().position(|known| known == text).unwrap_or_else(|| {
        texts.push(text.to_owned());
        texts.len() - 1
    })
}

impl Table {
    fn put(&mut self, number: usize, event: &Event, step: Step, required: bool) -> usize {
        let latest = event.answered.unwrap_or(u64::MAX);
        self.steps.push(Placed {
            event: number,
            step,
            earliest: event.called,
            latest,
            required,
            follows: None,
            nameless: false,
        });
        self.steps.len() - 1
    }

    /// A step that may come at any time after the question, or never.
    fn may(&mut self, number: usize, event: &Event, step: Step, follows: Option<usize>) -> usize {
        let at = self.put(number, event, step, false);
        self.steps[at].latest = u64::MAX;
        self.steps[at].follows = follows;
        at
    }

    /// A holder's command.
    fn held(&mut self, number: usize, event: &Event, grant: u64, step: Step, answer: Option<Held>) {
        match answer.filter(|_| event.answered.is_some()) {
            Some(Held::Done) => drop(self.put(number, event, step, true)),
            Some(Held::Fenced) => {
                // Its answer may have been lost within, and others have come and gone until it was said again. (A
                // completion is final: said again, it is known.)
                if !matches!(step, Step::Complete { .. }) {
                    self.put(number, event, step, false);
                }
                self.put(number, event, Step::Fenced(Grant::Fence(grant)), true);
            }
            Some(Held::Refused) => {}
            None => drop(self.may(number, event, step, None)),
        }
    }

    fn add(&mut self, at: usize, event: &Event) {
        match &event.what {
            What::Claim { attempt, answer } => {
                let attempt = attempt.as_ref().map(|name| number(&mut self.attempts, name));
                self.claim(at, event, attempt, answer.as_ref());
            }
            What::Extend { grant, answer } => {
                self.held(at, event, *grant, Step::Extend(Grant::Fence(*grant)), *answer);
            }
            What::Complete { grant, outcome, answer } => {
                let outcome = number(&mut self.outcomes, outcome);
                let step = Step::Complete { grant: Grant::Fence(*grant), outcome };
                self.held(at, event, *grant, step, *answer);
            }
            What::Release { grant, answer } => {
                self.held(at, event, *grant, Step::Release(Grant::Fence(*grant)), *answer);
            }
            What::MarkUnknown { grant, answer } => {
                self.held(at, event, *grant, Step::Lose(Grant::Fence(*grant)), *answer);
            }
            What::Resolve { outcome, answer } => {
                let step = Step::Resolve(outcome.as_ref().map(|text| number(&mut self.outcomes, text)));
                match answer.filter(|_| event.answered.is_some()) {
                    Some(Held::Done) => drop(self.put(at, event, step, true)),
                    Some(Held::Fenced | Held::Refused) => {}
                    None => drop(self.may(at, event, step, None)),
                }
            }
            What::Execute { answer } => self.execute(at, event, answer.as_ref()),
            What::Ran { outcome } => {
                let outcome: Told = outcome.as_ref().map(|text| number(&mut self.outcomes, text));
                self.put(at, event, Step::Run(outcome), true);
            }
        }
    }

    fn claim(&mut self, at: usize, event: &Event, attempt: Option<usize>, answer: Option<&Claimed>) {
        let step = match answer.filter(|_| event.answered.is_some()) {
            Some(Claimed::Granted { grant }) => Step::Grant { grant: Grant::Fence(*grant), attempt },
            Some(Claimed::Replay { outcome }) => Step::SeeDone(number(&mut self.outcomes, outcome)),
            Some(Claimed::Busy) => Step::SeeHeld,
            Some(Claimed::Unknown) => {
                // It may be its own claim, whose answer was lost within, and which has lapsed before it was said again.
                self.put(at, event, Step::Grant { grant: Grant::Of(at), attempt }, false);
                Step::SeeUnknown
            }
            Some(Claimed::Refused) => return,
            None => {
                let begun = self.may(at, event, Step::Grant { grant: Grant::Of(at), attempt }, None);
                self.steps[begun].nameless = attempt.is_none();
                return;
            }
        };
        self.put(at, event, step, true);
    }

    /// A call that claims, runs and settles by itself, with or without its client.
    fn execute(&mut self, at: usize, event: &Event, answer: Option<&Executed>) {
        let grant = Grant::Of(at);
        let claim = Step::Grant { grant, attempt: None };
        match answer.filter(|_| event.answered.is_some()) {
            Some(Executed::Refused) => {}
            Some(Executed::Completed { outcome, replayed: true }) => {
                let outcome = number(&mut self.outcomes, outcome);
                self.put(at, event, Step::SeeDone(outcome), true);
            }
            Some(Executed::Completed { outcome, replayed: false }) => {
                let outcome = number(&mut self.outcomes, outcome);
                let begun = self.put(at, event, claim, true);
                let done = self.put(at, event, Step::Complete { grant, outcome }, true);
                self.steps[done].follows = Some(begun);
            }
            Some(Executed::Released) => {
                let begun = self.put(at, event, claim, false);
                let returned = self.put(at, event, Step::Release(grant), false);
                self.steps[returned].follows = Some(begun);
            }
            Some(Executed::Processing) => {
                // It may be this call's own attempt that goes on.
                let begun = self.put(at, event, claim, false);
                self.may_end(at, event, begun);
                self.put(at, event, Step::SeeHeld, true);
            }
            Some(Executed::Unknown) => {
                let begun = self.put(at, event, claim, false);
                self.may_end(at, event, begun);
                self.put(at, event, Step::SeeUnknown, true);
            }
            None => {
                let begun = self.may(at, event, claim, None);
                self.steps[begun].nameless = true;
                self.may_end(at, event, begun);
            }
        }
    }

    fn may_end(&mut self, at: usize, event: &Event, begun: usize) {
        let grant = Grant::Of(at);
        for end in [Step::CompleteSomehow(grant), Step::Release(grant), Step::Lose(grant)] {
            self.may(at, event, end, Some(begun));
        }
    }
}

type Done = Vec<u64>;

struct Search<'a> {
    rules: Rules,
    steps: &'a [Placed],
    outcomes: usize,
    tried: HashSet<(Done, Object)>,
    path: Vec<usize>,
    best: Vec<usize>,
    best_object: Object,
}

fn has(done: &[u64], at: usize) -> bool {
    done[at / 64] & (1 << (at % 64)) != 0
}

impl Search<'_> {
    /// Steps that may come next, those that must come first.
    fn next(&self, done: &[u64]) -> Vec<usize> {
        let left = || (0..self.steps.len()).filter(|at| !has(done, *at));
        let deadline = left().filter(|at| self.steps[*at].required).map(|at| self.steps[at].latest).min();
        // An optional step that was answered cannot come after something that was asked later.
        let reached =
            (0..self.steps.len()).filter(|at| has(done, *at)).map(|at| self.steps[at].earliest).max();
        let first_nameless = left().find(|at| self.steps[*at].nameless);
        let mut next: Vec<_> = left()
            .filter(|at| {
                let step = &self.steps[*at];
                if step.nameless && first_nameless != Some(*at) {
                    return false;
                }
                deadline.is_none_or(|deadline| step.earliest <= deadline)
                    && reached.is_none_or(|reached| step.latest >= reached)
                    && step.follows.is_none_or(|before| has(done, before))
            })
            .collect();
        next.sort_by_key(|at| (!self.steps[*at].required, self.steps[*at].latest));
        next
    }

    fn after(&self, object: &Object, at: usize) -> Vec<Object> {
        let placed = &self.steps[at];
        object.after(self.rules, placed.step, (placed.earliest, placed.latest), self.outcomes)
    }

    /// Whether everything that must still come can, from here.
    fn from(&mut self, mut done: Done, object: Object) -> bool {
        let came_with = self.path.len();
        let mut next = self.next(&done);
        while let Some(at) = next.iter().copied().find(|at| {
            let step = &self.steps[*at];
            step.required && step.step.only_looks() && !self.after(&object, *at).is_empty()
        }) {
            done[at / 64] |= 1 << (at % 64);
            self.path.push(at);
            next = self.next(&done);
        }
        if self.path.len() >= self.best.len() {
            self.best.clone_from(&self.path);
            self.best_object = object;
        }
        let all = (0..self.steps.len()).all(|at| has(&done, at) || !self.steps[at].required);
        let found = all || self.is_new(&done, object) && self.any_of(&next, &done, object);
        self.path.truncate(came_with);
        found
    }

    fn is_new(&mut self, done: &[u64], object: Object) -> bool {
        self.tried.len() < CONFIGURATIONS_MAX && self.tried.insert((done.to_vec(), object))
    }

    fn any_of(&mut self, next: &[usize], done: &[u64], object: Object) -> bool {
        next.iter().any(|at| {
            self.after(&object, *at).into_iter().any(|object| {
                let mut done = done.to_vec();
                done[at / 64] |= 1 << (at % 64);
                self.path.push(*at);
                let found = self.from(done, object);
                self.path.pop();
                found
            })
        })
    }

    fn violation(&self, key: &str, events: &[&Event]) -> Violation {
        let mut done = vec![0; self.steps.len().div_ceil(64)];
        for at in &self.best {
            done[at / 64] |= 1 << (at % 64);
        }
        let say = |at: &usize| describe(self.steps[*at].event, events[self.steps[*at].event]);
        let mut stuck: Vec<_> =
            self.next(&done).iter().filter(|at| self.steps[**at].required).map(say).collect();
        stuck.dedup();
        let mut explained: Vec<_> = self.best.iter().map(say).collect();
        explained.dedup();
        let what = if self.tried.len() >= CONFIGURATIONS_MAX {
            "undecided: too many calls without an answer".to_owned()
        } else {
            reason(self.rules, events)
        };
        Violation { key: key.to_owned(), what, explained, standing: self.best_object.to_string(), stuck }
    }
}

fn describe(number: usize, event: &Event) -> String {
    let answered = event.answered.map_or("never".to_owned(), |at| at.to_string());
    format!("call {number}, {} to {answered}: {:?}", event.called, event.what)
}

/// The outcome that an event told somebody.
fn told(event: &Event) -> Option<&str> {
    event.answered?;
    match &event.what {
        What::Claim { answer: Some(Claimed::Replay { outcome }), .. }
        | What::Execute { answer: Some(Executed::Completed { outcome, .. }) }
        | What::Complete { outcome, answer: Some(Held::Done), .. }
        | What::Resolve { outcome: Some(outcome), answer: Some(Held::Done) } => Some(outcome),
        What::Claim { .. }
        | What::Execute { .. }
        | What::Complete { .. }
        | What::Resolve { .. }
        | What::Extend { .. }
        | What::Release { .. }
        | What::MarkUnknown { .. }
        | What::Ran { .. } => None,
    }
}

/// Whether an event may have given an outcome.
fn may_have_given(rules: Rules, event: &Event, outcome: &str) -> bool {
    match &event.what {
        What::Complete { outcome: gave, .. } | What::Resolve { outcome: Some(gave), .. } => gave == outcome,
        What::Ran { outcome: gave } => gave.as_ref().is_none_or(|gave| gave == outcome),
        What::Execute { answer: Some(Executed::Completed { outcome: gave, replayed }) } => {
            gave == outcome && !replayed
        }
        What::Execute { answer: None } => !rules.runs_are_seen,
        What::Execute { .. }
        | What::Claim { .. }
        | What::Extend { .. }
        | What::Release { .. }
        | What::MarkUnknown { .. }
        | What::Resolve { outcome: None, .. } => false,
    }
}

/// The likeliest of the known ways to be wrong. The search has found that something is; this only names it.
fn reason(rules: Rules, events: &[&Event]) -> String {
    let mut outcomes: Vec<_> = events.iter().filter_map(|event| told(event)).collect();
    outcomes.dedup();
    if let Some(other) = outcomes.iter().find(|outcome| **outcome != outcomes[0]) {
        return format!("two outcomes were told, {:?} and {other:?} (L3, L10)", outcomes[0]);
    }
    let runs = events.iter().filter(|event| matches!(event.what, What::Ran { .. })).count();
    if rules.at_most_once && runs > 1 {
        return format!("it ran {runs} times under at most once (L7)");
    }
    if let Some(outcome) = outcomes.first()
        && !events.iter().any(|event| may_have_given(rules, event, outcome))
    {
        return format!("outcome {outcome:?} was replayed, and nothing ever gave it (L10)");
    }
    let first_told =
        events.iter().filter(|event| told(event).is_some()).filter_map(|event| event.answered).min();
    let denied = events.iter().find(|event| {
        let denies = matches!(
            event.what,
            What::Claim { answer: Some(Claimed::Granted { .. } | Claimed::Busy | Claimed::Unknown), .. }
                | What::Execute {
                    answer: Some(Executed::Processing | Executed::Unknown | Executed::Released)
                }
        );
        denies && first_told.is_some_and(|told| event.called > told)
    });
    if denied.is_some() {
        return "a completion that was acknowledged is lost (L4)".to_owned();
    }
    let grants = events.iter().filter(|event| {
        matches!(event.what, What::Claim { answer: Some(Claimed::Granted { .. }), .. })
            || matches!(
                event.what,
                What::Execute { answer: Some(Executed::Completed { replayed: false, .. }) }
            )
    });
    if grants.count() > 1 {
        return "two claims were granted, and the first had not ended (L1), or the fence did not rise (L2)"
            .to_owned();
    }
    if rules.runs_are_seen && runs == 0 && first_told.is_some() {
        return "an outcome was told, and it was never seen to run (L4)".to_owned();
    }
    "no order explains the answers".to_owned()
}

//! The book-keeping of offsets against a model, over any history of assignments, deliveries and ends.

use std::collections::BTreeMap;

use proptest::prelude::*;
use semel_kafka::offsets::{Offsets, Place, Ticket};

#[derive(Clone, Debug)]
enum Step {
    Assign,
    Revoke,
    /// The next message, so many offsets further.
    Deliver(u8),
    /// The partition goes back by so many offsets.
    GoBack(u8),
    /// One of the deliveries so far ends, of whatever assignment.
    Complete(prop::sample::Index),
    Commit,
    /// The last commit failed.
    Fail,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Assign),
        1 => Just(Step::Revoke),
        8 => (1..4_u8).prop_map(Step::Deliver),
        1 => (1..6_u8).prop_map(Step::GoBack),
        8 => any::<prop::sample::Index>().prop_map(Step::Complete),
        3 => Just(Step::Commit),
        1 => Just(Step::Fail),
    ]
}

/// What the model knows of an assignment: the last delivery of each offset, and whether it is done.
#[derive(Default)]
struct Model {
    assigned: Option<u64>,
    assignments: u64,
    /// By offset: number of the delivery, and whether that is done.
    delivered: BTreeMap<i64, (usize, bool)>,
    committed: Option<i64>,
    position: i64,
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_committed_is_the_part_without_a_gap_that_is_done(steps in prop::collection::vec(step(), 1..200)) {
        let place = Place::new("orders", 0);
        let (mut offsets, mut model) = (Offsets::new(), Model::default());
        // Every delivery there ever was: its ticket, assignment, offset.
        let mut tickets: Vec<(Ticket, u64, i64)> = Vec::new();
        for step in steps {
            match step {
                Step::Assign => {
                    offsets.assign(place.clone());
                    model.assignments += 1;
                    model.assigned = Some(model.assignments);
                    model.delivered.clear();
                    // It begins where the group stands.
                    model.position = model.committed.unwrap_or(0);
                    model.committed = None;
                }
                Step::Revoke => {
                    offsets.revoke(&place);
                    model.assigned = None;
                }
                Step::Deliver(_) | Step::GoBack(_) => {
                    let offset = match step {
                        Step::GoBack(by) => (model.position - i64::from(by)).max(0),
                        Step::Deliver(by) => model.position + i64::from(by),
                        _ => unreachable!(),
                    };
                    let ticket = offsets.deliver(&place, offset);
                    prop_assert_eq!(ticket.is_some(), model.assigned.is_some());
                    if let (Some(ticket), Some(assignment)) = (ticket, model.assigned) {
                        model.delivered.split_off(&offset);
                        model.delivered.insert(offset, (tickets.len(), false));
                        tickets.push((ticket, assignment, offset));
                        model.position = offset;
                    }
                }
                Step::Complete(index) if !tickets.is_empty() => {
                    let number = index.index(tickets.len());
                    let (ticket, assignment, offset) = tickets[number];
                    let counted = offsets.complete(&place, ticket);
                    let live = model.assigned == Some(assignment);
                    let entry = model.delivered.get_mut(&offset).filter(|(last, done)| live && *last == number && !done);
                    prop_assert_eq!(counted, entry.is_some(), "an end of an old delivery says nothing");
                    if let Some(entry) = entry {
                        entry.1 = true;
                    }
                }
                Step::Complete(_) => {}
                Step::Commit => {
                    if let Some(next) = offsets.take(&place) {
                        prop_assert!(model.assigned.is_some(), "nothing of others is committed");
                        for (offset, (_, done)) in model.delivered.range(..next) {
                            prop_assert!(*done, "{} is committed over {}, which is not done", next, offset);
                        }
                        prop_assert!(model.committed.is_none_or(|before| before < next), "it rises");
                        model.committed = Some(next);
                    }
                }
                Step::Fail => {
                    if let Some(committed) = model.committed {
                        offsets.not_committed(&place, committed);
                        model.committed = None;
                    }
                }
            }
            let open = model.delivered.values().filter(|(_, done)| !done).count();
            if model.assigned.is_some() {
                prop_assert_eq!(offsets.running(&place), open);
            }
        }
        // Once everything that was delivered last is done, all of it is committed.
        if model.assigned.is_some() && !model.delivered.is_empty() {
            for (number, done) in model.delivered.values() {
                if !done {
                    prop_assert!(offsets.complete(&place, tickets[*number].0));
                }
            }
            prop_assert_eq!(offsets.held(&place), 0);
            let last = *model.delivered.keys().next_back().unwrap();
            prop_assert!(offsets.done(&place).is_some_and(|done| done > last));
        }
    }
}

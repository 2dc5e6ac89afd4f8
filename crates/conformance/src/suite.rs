//! The contract of stores as code: one case for each sentence of [`semel_core::store`].
//!
//! [`store_suite!`](crate::store_suite) makes a test of every case. It is given how to open a
//! [`Subject`], an empty store of the test's own:
//!
//! ```text
//! semel_conformance::store_suite!(async || MemorySubject::open());
//! ```

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::random;
use crate::subject::{Doing, Subject};

pub mod audit;
pub mod cancel;
pub mod changes;
pub mod corrupt;
pub mod counts;
pub mod due;
pub mod histories;
pub mod restart;
pub mod search;
pub mod swap;
pub mod sweep;
#[cfg(test)]
mod tests;
pub mod time;

/// After so long a case hangs, which is a failure: a wake-up was lost.
const PATIENCE: Duration = Duration::from_secs(120);

/// After so long a history hangs: those of the full run are long.
const PATIENCE_WITH_HISTORIES: Duration = Duration::from_secs(60 * 60);

/// What opening a subject gives: one, or none where its server is not there, which whoever opens it has said.
pub trait Opened {
    /// The subject.
    type Subject: Subject + 'static;

    /// The subject, if there is one.
    fn opened(self) -> Option<Self::Subject>;
}

impl<S: Subject + 'static> Opened for S {
    type Subject = S;

    fn opened(self) -> Option<S> {
        Some(self)
    }
}

impl<S: Subject + 'static> Opened for Option<S> {
    type Subject = S;

    fn opened(self) -> Self {
        self
    }
}

/// Runs one case in a runtime of its own.
///
/// # Panics
/// The store does not keep its contract.
pub fn run<F: Future<Output: Opened>>(
    name: &str,
    open: impl FnOnce() -> F,
    case: impl for<'a> FnOnce(&'a mut dyn Subject) -> Doing<'a, ()>,
) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let Some(mut subject) = open().await.opened() else { return };
        let patience = if random::is_full() { PATIENCE_WITH_HISTORIES } else { PATIENCE };
        let judged = tokio::time::timeout(patience, case(&mut subject)).await;
        assert!(judged.is_ok(), "{name} hangs: somebody waits for what has happened");
    });
}

/// Says that a case does not apply.
fn skipped(why: &str) {
    println!("skipped: {why}");
}

/// Lets time pass in small steps until a task has ended.
async fn passes_until<T>(subject: &dyn Subject, task: JoinHandle<T>) -> T {
    while !task.is_finished() {
        subject.pass(Duration::from_millis(10)).await;
        tokio::task::yield_now().await;
    }
    task.await.unwrap()
}

/// Makes a `#[test]` of every case. `$open` is an async closure without arguments that opens a
/// [`Subject`].
#[macro_export]
macro_rules! store_suite {
    ($open:expr) => {
        $crate::store_cases!($open);
        $crate::store_suite! { $open;
            histories: one_command_after_the_other_answers_as_the_model_does;
            histories: many_workers_at_once_make_one_chain_of_legal_steps;
        }
    };
    ($open:expr; $($room:ident: $case:ident;)*) => {
        $(
            #[test]
            fn $case() {
                $crate::suite::run(stringify!($case), $open, |subject| {
                    ::std::boxed::Box::pin($crate::suite::$room::$case(subject))
                });
            }
        )*
    };
}

/// The same without the random histories, for a store that has these in another form.
#[macro_export]
macro_rules! store_cases {
    ($open:expr) => {
        $crate::store_suite! { $open;
            swap: an_insert_puts_a_record_where_none_is;
            swap: an_insert_where_something_is_changes_nothing_and_shows_it;
            swap: an_expired_record_is_occupied_until_it_is_replaced;
            swap: a_write_after_its_deadline_has_no_effect;
            swap: of_many_inserts_of_a_key_exactly_one_is_inserted;
            swap: a_replacement_of_the_version_that_was_judged_is_stamped_and_stored;
            swap: l6_a_replacement_of_another_version_conflicts_and_changes_nothing;
            swap: of_many_replacements_of_a_version_exactly_one_is_replaced;
            swap: a_removal_takes_only_the_version_that_was_expected;
            swap: l2_fences_rise_and_no_version_comes_twice_across_removal_and_reuse;
            swap: l2_no_record_begins_below_a_fence_that_was_removed;
            swap: l6_a_delayed_write_does_not_hit_a_later_life;
            swap: a_read_sees_what_was_answered_before_it;
            swap: records_of_every_state_are_loaded_as_they_were_written;
            swap: the_largest_record_is_kept_whole_or_refused_without_effect;
            swap: workers_on_one_key_run_it_once;
            swap: workers_on_many_keys_do_not_disturb_each_other;
            time: as_of_never_goes_back;
            time: a_stepped_wall_clock_neither_lapses_nor_keeps_anything;
            time: stamps_count_from_the_write;
            time: l1_the_guard_of_a_job_holds_for_as_long_as_the_claim_that_has_it_asked_for;
            due: what_is_due_comes_in_order_from_its_lane_only;
            due: a_live_lease_is_not_due_and_a_lapsed_one_is;
            due: a_heartbeat_moves_the_lapse;
            due: what_comes_to_rest_leaves_the_order;
            due: a_lapse_that_was_seen_leaves_the_order;
            due: work_that_waits_is_due_when_it_was_said;
            due: work_that_is_taken_in_for_later_is_due_then;
            due: work_that_is_accepted_while_it_runs_goes_to_its_lane;
            due: what_is_done_gives_up_its_payload_when_that_is_due_and_nothing_else;
            due: no_more_is_taken_than_was_asked_for;
            due: lanes_come_with_the_longest_due_first;
            due: the_next_due_time_is_over_all_lanes;
            due: of_many_workers_that_take_exactly_one_is_granted;
            changes: a_waiter_is_told_at_once_what_it_has_not_seen;
            changes: a_waiter_is_told_at_once_that_nothing_is_there;
            changes: a_waiter_wakes_when_the_record_changes;
            changes: a_waiter_wakes_when_the_record_goes;
            changes: a_waiter_that_loses_patience_is_told_what_is_there;
            changes: no_wake_up_is_lost_between_looking_and_waiting;
            changes: fifty_waiters_wake_together;
            changes: waiters_that_give_up_leave_nothing_behind;
            changes: due_work_wakes_whoever_waits_for_it;
            changes: due_work_is_not_missed_between_asking_and_waiting;
            changes: whoever_waits_for_due_work_loses_patience;
            counts: counts_follow_every_state;
            counts: counts_hold_what_a_search_finds_after_a_storm;
            counts: the_oldest_pending_record_is_known;
            search: every_mix_of_filters_finds_what_matches_and_nothing_else;
            search: paging_misses_nothing_that_was_there_while_records_are_inserted;
            search: an_expired_record_is_not_found;
            search: a_page_holds_what_was_asked_for_and_the_last_one_says_so;
            search: a_page_reads_little_more_than_it_shows;
            audit: entries_come_back_newest_first_with_the_stores_time;
            audit: an_entry_has_the_time_at_which_it_happened_as_far_as_the_order_allows;
            audit: every_mix_of_filters_finds_its_entries;
            audit: entries_are_found_by_what_their_record_was_found_by;
            audit: a_page_of_the_audit_log_reads_little_more_than_it_shows;
            audit: old_entries_are_forgotten_in_steps_and_younger_ones_stay;
            audit: paging_misses_nothing_while_entries_are_added;
            audit: an_operators_entry_is_in_the_same_write;
            sweep: l8_only_what_is_settled_and_expired_is_removed;
            sweep: a_sweep_is_limited;
            sweep: a_sweep_beside_claims_takes_nothing_that_lives;
            cancel: dropping_a_write_leaves_the_store_usable;
            cancel: dropping_a_read_or_a_wait_changes_nothing;
            cancel: a_closed_store_refuses_writes;
            restart: l4_what_was_acknowledged_outlives_a_close;
            restart: l4_what_was_acknowledged_outlives_a_crash;
            restart: l2_fences_rise_over_a_restart;
            restart: time_does_not_go_back_over_a_restart;
            restart: a_crash_in_the_middle_of_many_writes_loses_none_that_was_acknowledged;
            restart: what_expires_while_the_store_is_closed_is_swept;
            restart: audit_entries_that_were_forgotten_do_not_come_back;
            corrupt: l13_damaged_bytes_are_an_error_and_never_absent;
        }
    };
}

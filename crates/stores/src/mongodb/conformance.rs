//! The conformance suite over MongoDB's protocol.

use std::sync::Arc;
use std::time::Duration;

use mongodb::bson::{Document, doc};
use semel_conformance::subject::{Damage, Doing, Ending, Subject};
use semel_core::{RecordId, Store};

use super::testing::{Stepped, url};

impl Stepped {
    fn let_go(&mut self) {
        let store = Arc::into_inner(self.store.take().unwrap());
        drop(store.expect("the case has let go of the store"));
    }
}

impl Subject for Stepped {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(self.store.as_ref().unwrap()) as Arc<dyn Store>
    }

    fn pass(&self, length: Duration) -> Doing<'_, ()> {
        self.clock.advance(length);
        Box::pin(std::future::ready(()))
    }

    fn restart(&mut self, ending: Ending) -> Doing<'_, bool> {
        Box::pin(async move {
            match ending {
                Ending::Closed => self.store().close().await.unwrap(),
                // The connections go with the client.
                Ending::Crashed => {}
            }
            self.let_go();
            self.open().await;
            true
        })
    }

    fn damage(&mut self, id: RecordId) -> Doing<'_, Damage> {
        Box::pin(async move {
            let versions = self.room.versions();
            let newest = versions.find_one(doc! { "r": id.to_string() }).sort(doc! { "n": -1 });
            let mut newest: Document = newest.await.unwrap().unwrap();
            let mut record = newest.get_binary_generic("record").unwrap().clone();
            let middle = record.len() / 2;
            record[middle] = !record[middle];
            newest.insert("record", super::version::binary(record));
            versions.replace_one(doc! { "_id": newest.get_str("_id").unwrap() }, newest).await.unwrap();
            // Who has seen the version goes on from it without reading it again, and mends it.
            self.let_go();
            self.open().await;
            Damage::Done
        })
    }
}

async fn open() -> Option<Stepped> {
    Some(Stepped::new(url()?).await)
}

/// Commands of a history. FerretDB reads all of a collection for every question, so that six thousand would take minutes.
const COMMANDS: usize = 1_000;

#[test]
fn one_command_after_the_other_answers_as_the_model_does() {
    semel_conformance::suite::run("one command after the other", open, |subject| {
        Box::pin(semel_conformance::random::sequential(subject, 0x5e_0e1, COMMANDS))
    });
}

#[test]
fn many_workers_at_once_make_one_chain_of_legal_steps() {
    semel_conformance::suite::run("many workers at once", open, |subject| {
        Box::pin(semel_conformance::random::concurrent(subject, 0x00c0_ffee, COMMANDS))
    });
}

// All of the suite but its histories, which are above.
semel_conformance::store_suite! { open;
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
    due: what_is_due_comes_in_order_from_its_lane_only;
    due: a_live_lease_is_not_due_and_a_lapsed_one_is;
    due: a_heartbeat_moves_the_lapse;
    due: what_comes_to_rest_leaves_the_order;
    due: a_lapse_that_was_seen_leaves_the_order;
    due: work_that_waits_is_due_when_it_was_said;
    due: work_that_is_accepted_while_it_runs_goes_to_its_lane;
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

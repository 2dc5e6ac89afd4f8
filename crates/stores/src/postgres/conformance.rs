//! The conformance suite over PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

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
        Box::pin(async move {
            self.schema.pass(length).await;
            self.clock.advance(length);
        })
    }

    fn restart(&mut self, ending: Ending) -> Doing<'_, bool> {
        Box::pin(async move {
            match ending {
                Ending::Closed => self.store().close().await.unwrap(),
                Ending::Crashed => self.schema.cut().await,
            }
            self.let_go();
            self.open().await;
            true
        })
    }

    fn damage(&mut self, id: RecordId) -> Doing<'_, Damage> {
        Box::pin(async move {
            self.schema
                .run(&format!(
                    "UPDATE SCHEMA.records SET head = set_byte(head, length(head) / 2, \
                     255 - get_byte(head, length(head) / 2)) WHERE id = '{id}'"
                ))
                .await;
            Damage::Done
        })
    }
}

async fn open() -> Option<Stepped> {
    Some(Stepped::new(url()?).await)
}

semel_conformance::store_suite!(open);

/// The same where each command has a statement of its own: what is not about many commands at once is the same code.
mod apart {
    use super::{Stepped, url};

    async fn open() -> Option<Stepped> {
        Some(Stepped::with(url()?, "&batch=false").await)
    }

    semel_conformance::store_suite! { open;
        swap: of_many_inserts_of_a_key_exactly_one_is_inserted;
        swap: of_many_replacements_of_a_version_exactly_one_is_replaced;
        swap: an_insert_where_something_is_changes_nothing_and_shows_it;
        swap: a_write_after_its_deadline_has_no_effect;
        swap: l6_a_replacement_of_another_version_conflicts_and_changes_nothing;
        swap: a_read_sees_what_was_answered_before_it;
        swap: records_of_every_state_are_loaded_as_they_were_written;
        swap: workers_on_one_key_run_it_once;
        cancel: dropping_a_write_leaves_the_store_usable;
        corrupt: l13_damaged_bytes_are_an_error_and_never_absent;
        histories: one_command_after_the_other_answers_as_the_model_does;
        histories: many_workers_at_once_make_one_chain_of_legal_steps;
    }
}

/// The whole suite again behind `PgBouncer` in transaction mode, where a session belongs to nobody. Each case has a pooler of
/// its own, so that a crash ends the sessions behind it, too.
mod pooled {
    use super::{Stepped, url};

    async fn open() -> Option<Stepped> {
        Stepped::behind_pooler(url()?).await
    }

    semel_conformance::store_suite!(open);
}

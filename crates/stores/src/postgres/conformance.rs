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

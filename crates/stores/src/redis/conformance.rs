//! The conformance suite over Redis: all records in one shard, as on a server alone, and in several, as in a cluster.

use std::sync::Arc;
use std::time::Duration;

use redis::cmd;
use semel_conformance::subject::{Damage, Doing, Ending, Subject};
use semel_core::{RecordId, Store};

use super::keys::shard_of;
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
            self.space.pass(self.shards, length).await;
            self.clock.advance(length);
        })
    }

    /// Of a store that is over a network, its node: what the server keeps over its own end is a test of its own.
    fn restart(&mut self, ending: Ending) -> Doing<'_, bool> {
        Box::pin(async move {
            if ending == Ending::Closed {
                self.store().close().await.unwrap();
            }
            self.let_go();
            self.open().await;
            true
        })
    }

    fn damage(&mut self, id: RecordId) -> Doing<'_, Damage> {
        Box::pin(async move {
            let shard = &self.space.shards(self.shards)[shard_of(id, self.shards)];
            let key = shard.record(id);
            let mut head: Vec<u8> = self.space.ask(cmd("HGET").arg(&key).arg("h")).await;
            let middle = head.len() / 2;
            head[middle] ^= 0xff;
            let () = self.space.ask(cmd("HSET").arg(&key).arg("h").arg(head)).await;
            Damage::Done
        })
    }
}

mod one_shard {
    use super::*;

    async fn open() -> Option<Stepped> {
        Some(Stepped::new(&url()?, 1).await)
    }

    semel_conformance::store_suite!(open);
}

mod several_shards {
    use super::*;

    async fn open() -> Option<Stepped> {
        Some(Stepped::new(&url()?, 3).await)
    }

    semel_conformance::store_suite!(open);
}

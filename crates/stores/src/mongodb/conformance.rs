//! The conformance suite over MongoDB's protocol.

use std::sync::Arc;
use std::time::Duration;

use mongodb::bson::{Document, doc};
use semel_conformance::random;
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

/// Commands of a history. FerretDB reads all of a collection for every question, so that six thousand would take minutes:
/// in the full run there are many short ones instead, each in collections of its own, and 10^5 commands of them together.
const COMMANDS: usize = 500;

/// A history of so many commands, begun by that number.
type History = for<'a> fn(&'a mut dyn Subject, u64, usize) -> Doing<'a, ()>;

fn histories(name: &str, seed: u64, history: History) {
    let rounds = if random::is_full() { 100 } else { 2 };
    for round in 0..rounds {
        // Workers take the numbers after it.
        let seed = seed + round * 100;
        semel_conformance::suite::run(name, open, |subject| history(subject, seed, COMMANDS));
    }
}

#[test]
fn one_command_after_the_other_answers_as_the_model_does() {
    histories("one command after the other", 0x5e_0e1, |subject, seed, commands| {
        Box::pin(random::sequential(subject, seed, commands))
    });
}

#[test]
fn many_workers_at_once_make_one_chain_of_legal_steps() {
    histories("many workers at once", 0x00c0_ffee, |subject, seed, commands| {
        Box::pin(random::concurrent(subject, seed, commands))
    });
}

semel_conformance::store_cases!(open);

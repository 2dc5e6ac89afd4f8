//! Bytes that cannot be read.

use std::time::Duration;

use semel_core::Version;
use semel_core::error::StoreErrorKind;
use semel_core::query::Query;

use super::skipped;
use crate::fixture::{Ask, Hand, claim_key, write_of};
use crate::subject::{Damage, Subject};

/// Absent would run it again.
pub async fn l13_damaged_bytes_are_an_error_and_never_absent(subject: &mut dyn Subject) {
    let (one, two) = (Ask::key("damaged-key").tag("partner", "p"), Ask::key("sound-key").tag("partner", "p"));
    let hand = Hand::on(subject.store());
    let damaged = hand.complete(&one).await;
    let sound = hand.complete(&two).await;
    drop(hand);
    match subject.damage(one.id()).await {
        Damage::NotPossible => return skipped("nothing of this store can be damaged"),
        Damage::Refused(said) => return assert!(!said.is_empty(), "it says what it found"),
        Damage::Done => {}
    }
    let store = subject.store();
    let again = write_of(&claim_key(&one, 1), &*store, None);
    let next = write_of(&claim_key(&one, 2), &*store, None);
    let errors = [
        store.load(one.id()).await.expect_err("load"),
        store.insert(again).await.expect_err("insert"),
        store.replace(next, damaged.version()).await.expect_err("replace"),
        store.changed(one.id(), Version::default(), Duration::ZERO).await.expect_err("changed"),
    ];
    for error in errors {
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error}");
    }
    assert_eq!(store.load(two.id()).await.unwrap().value, Some(sound), "the others are still served");
    // A page that it belongs to fails, or shows what is known of it; it is never left out of one.
    match store.search(Query::default(), None, 10).await {
        Ok(page) => assert!(page.items.iter().any(|item| item.id == one.id()), "it is left out of the page"),
        Err(error) => assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error}"),
    }
    let of_the_sound = Query { key: Some(two.request().key().clone()), ..Query::default() };
    let page = store.search(of_the_sound, None, 10).await.expect("a page that it does not belong to");
    assert_eq!(page.items.iter().map(|item| item.id).collect::<Vec<_>>(), [two.id()]);
    Hand::on(subject.store()).complete(&Ask::key("three")).await;
}

//! Finding records: every filter, every mix, page by page.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use semel_core::id::{Namespace, Tag, TagName, TagValue};
use semel_core::query::{Cursor, Query, Summary};
use semel_core::record::StateName;
use semel_core::{Key, Operation, Record, Store, limits};
use tokio::task::JoinSet;

use crate::fixture::{Ask, Hand};
use crate::subject::Subject;

fn tag(name: &str, value: &str) -> Tag {
    Tag { name: TagName::try_new(name).unwrap(), value: TagValue::try_new(value).unwrap() }
}

/// All pages of a query, with how many entries were read for them.
async fn pages(store: &dyn Store, query: &Query, limit: usize) -> (Vec<Summary>, u64) {
    let (mut found, mut read, mut cursor) = (Vec::new(), 0, None);
    loop {
        let page = store.search(query.clone(), cursor, limit).await.unwrap();
        assert!(page.items.len() <= limit);
        assert!(page.next.is_none() || page.next == page.items.last().map(Summary::cursor));
        found.extend(page.items);
        read += page.entries_read;
        cursor = page.next;
        if cursor.is_none() {
            return (found, read);
        }
    }
}

fn newest_first(mut records: Vec<Summary>) -> Vec<Summary> {
    records.sort_by_key(|record| std::cmp::Reverse(record.cursor()));
    records
}

/// Ninety records that share names and times in many ways.
async fn library(subject: &dyn Subject, hand: &Hand) -> Vec<Arc<Record>> {
    let mut ids = Vec::new();
    for number in 0..90 {
        let namespace = [Namespace::Execute, Namespace::Http, Namespace::Webhook][number % 3];
        let ask = Ask::key(&format!("key-{}", number / 6))
            .namespace(namespace)
            .tenant(["one", "two"][number / 3 % 2])
            .operation(["charge", "refund", "ship", "label"][number % 4]);
        let ask = match number % 5 {
            0 => ask,
            1 => ask.tag("partner", "p-1"),
            _ => ask.tag("partner", "p-2").tag("order_id", &format!("o-{}", number % 7)),
        };
        ids.push(hand.in_state(&ask, StateName::ALL[number / 2 % 6]).await.id());
        if number % 3 == 0 {
            subject.pass(Duration::from_millis(1)).await;
        }
    }
    let mut records = Vec::new();
    for id in ids {
        records.push(hand.stored(id).await.unwrap());
    }
    records
}

fn queries(records: &[Arc<Record>]) -> Vec<Query> {
    let mut times: Vec<_> = records.iter().map(|record| record.times().created).collect();
    times.sort();
    let (early, late) = (times[times.len() / 4], times[times.len() * 3 / 4]);
    let operation = |name| Some(Operation::try_new(name).unwrap());
    let key = |name| Some(Key::try_new(name).unwrap());
    let mut queries = Vec::new();
    for namespace in [None, Some(Namespace::Http), Some(Namespace::Job)] {
        for states in [vec![], vec![StateName::Dead], vec![StateName::Pending, StateName::Completed]] {
            for operation in [None, operation("ship"), operation("nothing")] {
                for key in [None, key("key-3"), key("key-nobody")] {
                    for tag in [None, Some(tag("partner", "p-2")), Some(tag("order_id", "o-3"))] {
                        for (from, until) in
                            [(None, None), (Some(early), None), (None, Some(late)), (Some(early), Some(late))]
                        {
                            let (states, operation, key) = (states.clone(), operation.clone(), key.clone());
                            let tag = tag.clone();
                            queries.push(Query { namespace, states, operation, key, tag, from, until });
                        }
                    }
                }
            }
        }
    }
    queries
}

/// Held against [`Query::matches`], which says what a filter means.
pub async fn every_mix_of_filters_finds_what_matches_and_nothing_else(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let records = library(subject, &hand).await;
    let queries = queries(&records);
    assert_eq!(queries.len(), 972);
    let mut found_something = 0;
    for query in queries {
        let matching =
            records.iter().filter(|record| query.matches(record)).map(|record| Summary::of(record));
        let expected = newest_first(matching.collect());
        let (found, read) = pages(hand.store(), &query, 7).await;
        assert_eq!(found, expected, "{query:?}");
        assert!(read >= found.len() as u64, "what is shown was read");
        found_something += usize::from(!found.is_empty());
    }
    assert!(found_something > 150, "{found_something}");
}

/// The cursor is a place that does not move.
pub async fn paging_misses_nothing_that_was_there_while_records_are_inserted(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let mut there = BTreeSet::new();
    for number in 0..60 {
        there.insert(hand.claim(&Ask::key(&format!("old-{number}")).tag("partner", "p")).await.record().id());
    }
    for query in [Query::default(), Query { tag: Some(tag("partner", "p")), ..Query::default() }] {
        let (mut shown, mut cursor, mut round) = (Vec::<Cursor>::new(), None, 0);
        loop {
            let page = hand.store().search(query.clone(), cursor, 5).await.unwrap();
            shown.extend(page.items.iter().map(Summary::cursor));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
            let mut inserts = JoinSet::new();
            for number in 0..4 {
                let hand = hand.clone();
                let key = format!("new-{:?}-{round}-{number}", query.tag.is_some());
                let ask = Ask::key(&key).tag("partner", "p");
                inserts.spawn(async move { drop(hand.claim(&ask).await) });
            }
            inserts.join_all().await;
            // What is shown already changes, and stays where it is.
            let old = hand.stored(shown[0].id).await.unwrap();
            assert_eq!(Summary::of(&old).cursor(), shown[0]);
            subject.pass(Duration::from_millis(1)).await;
            round += 1;
        }
        assert!(shown.is_sorted_by(|one, next| one > next), "newest first, none twice");
        let shown: BTreeSet<_> = shown.into_iter().map(|place| place.id).collect();
        assert!(shown.is_superset(&there));
    }
}

/// L8: swept or not.
pub async fn an_expired_record_is_not_found(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    hand.complete(&Ask::key("short").retention_ms(20)).await;
    let long = hand.complete(&Ask::key("long")).await;
    assert_eq!(pages(hand.store(), &Query::default(), 1).await.0.len(), 2);
    subject.pass(Duration::from_millis(30)).await;
    let completed = Query { states: vec![StateName::Completed], ..Query::default() };
    let short = Query { key: Some(Key::try_new("short").unwrap()), ..Query::default() };
    for query in [Query::default(), completed] {
        assert_eq!(pages(hand.store(), &query, 1).await.0, [Summary::of(&long)]);
    }
    assert_eq!(pages(hand.store(), &short, 1).await.0, []);
    hand.store().sweep(10).await.unwrap();
    assert_eq!(pages(hand.store(), &Query::default(), 1).await.0, [Summary::of(&long)]);
}

/// A next page is promised only if there is something on it.
pub async fn a_page_holds_what_was_asked_for_and_the_last_one_says_so(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    for number in 0..12 {
        hand.claim(&Ask::key(&format!("key-{number}"))).await;
    }
    for (limit, pages) in [(1, 12), (5, 3), (6, 2), (12, 1), (13, 1), (limits::PAGE_MAX + 1, 1)] {
        let (mut cursor, mut seen, mut found) = (None, 0, 0);
        loop {
            let page = hand.store().search(Query::default(), cursor, limit).await.unwrap();
            assert!(!page.items.is_empty() && page.items.len() <= limit);
            (seen, found) = (seen + 1, found + page.items.len());
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!((seen, found), (pages, 12), "limit {limit}");
    }
}

/// A console page does not scan the table.
pub async fn a_page_reads_little_more_than_it_shows(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    for number in 0..600 {
        let ask = Ask::key(&format!("key-{number}")).tag("order_id", &format!("o-{}", number / 4));
        let state = if number % 150 == 0 { StateName::Unknown } else { StateName::Running };
        hand.in_state(&ask.operation(["charge", "refund"][number % 2]), state).await;
    }
    let operation = Some(Operation::try_new("charge").unwrap());
    let queries = [
        Query::default(),
        Query { states: vec![StateName::Unknown], ..Query::default() },
        Query { operation, states: vec![StateName::Unknown], ..Query::default() },
        Query { key: Some(Key::try_new("key-7").unwrap()), ..Query::default() },
        Query { tag: Some(tag("order_id", "o-7")), ..Query::default() },
        Query { tag: Some(tag("order_id", "o-7")), states: vec![StateName::Running], ..Query::default() },
    ];
    for query in queries {
        let page = hand.store().search(query.clone(), None, 25).await.unwrap();
        let shown = page.items.len() as u64;
        assert!(shown > 0);
        assert!(page.entries_read <= 20 * (shown + 1), "{} for {shown} of {query:?}", page.entries_read);
    }
}

//! The audit log: in order, in the store's time, and in one write with what it tells of.

use std::time::Duration;

use semel_core::audit::{Action, Entry};
use semel_core::command::{Judged, Resolution, Resolve};
use semel_core::id::{Key, Operation, Tag, TagName, TagValue};
use semel_core::query::{AuditQuery, Page};
use semel_core::record::{StateName, Text};
use semel_core::{RecordId, Store};
use tokio::task::JoinSet;

use crate::fixture::{Ask, Hand};
use crate::subject::Subject;

fn entry(number: usize) -> Entry {
    let mut entry = Entry::new(Action::ALL[number % 3], format!("actor-{number}").as_str().into());
    entry.record = (!number.is_multiple_of(4)).then(|| RecordId::from_bytes([[0, 1, 2, 3][number % 4]; 16]));
    entry.correlation_id =
        (!number.is_multiple_of(5)).then(|| format!("corr-{}", number % 5).as_str().into());
    entry.reason = number.is_multiple_of(2).then(|| "why".into());
    entry.from = (number % 3 == 1).then_some(StateName::Dead);
    entry.to = (number % 3 == 2).then_some(StateName::Pending);
    entry.metadata =
        vec![("isRetry".into(), "true".into()), ("n".into(), number.to_string().as_str().into())];
    entry
}

async fn pages(store: &dyn Store, query: &AuditQuery, limit: usize) -> Vec<Entry> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let page: Page<_, _> = store.audit(query.clone(), cursor, limit).await.unwrap();
        assert!(page.items.len() <= limit);
        found.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return found;
        }
    }
}

/// Everything in an entry comes back.
pub async fn entries_come_back_newest_first_with_the_stores_time(subject: &mut dyn Subject) {
    let store = subject.store();
    assert_eq!(pages(&*store, &AuditQuery::default(), 10).await, []);
    let mut expected = Vec::new();
    for batch in 0..4 {
        let before = store.time();
        let entries: Vec<_> = (batch * 3..batch * 3 + 3).map(entry).collect();
        store.append_audit(entries.clone()).await.unwrap();
        let newest = store.audit(AuditQuery::default(), None, 1).await.unwrap().items.remove(0).at;
        assert!(newest >= before && newest <= store.load(RecordId::from_bytes([9; 16])).await.unwrap().as_of);
        expected.extend(entries);
        subject.pass(Duration::from_millis(2)).await;
    }
    expected.reverse();
    let found = pages(&*store, &AuditQuery::default(), 5).await;
    assert!(found.is_sorted_by(|newer, older| newer.at >= older.at));
    let unstamped: Vec<_> =
        found.iter().cloned().map(|entry| entry.at(semel_core::Timestamp::ZERO)).collect();
    assert_eq!(unstamped, expected);
}

/// What happened is written in the background, and may have to wait; what an operator does is written at once, and may
/// overtake it.
pub async fn an_entry_has_the_time_at_which_it_happened_as_far_as_the_order_allows(
    subject: &mut dyn Subject,
) {
    let store = subject.store();
    let happened = store.load(RecordId::from_bytes([9; 16])).await.unwrap().as_of;
    subject.pass(Duration::from_millis(40)).await;
    let later = store.load(RecordId::from_bytes([9; 16])).await.unwrap().as_of;
    subject.pass(Duration::from_millis(40)).await;
    store.append_audit(vec![entry(1).at(happened), entry(2).at(later), entry(3).at(happened)]).await.unwrap();
    let shown = |entries: Vec<Entry>| entries.iter().map(|entry| entry.at).collect::<Vec<_>>();
    let first = shown(pages(&*store, &AuditQuery::default(), 10).await);
    assert_eq!(first, [later, later, happened], "the third was overtaken");
    let until = AuditQuery { until: Some(later), ..AuditQuery::default() };
    assert_eq!(shown(pages(&*store, &until, 10).await), [happened], "it is searched by that time");

    // One that is written as it happens, and one of the past behind it.
    store.append_audit(vec![entry(4)]).await.unwrap();
    store.append_audit(vec![entry(5).at(happened)]).await.unwrap();
    let then = shown(pages(&*store, &AuditQuery::default(), 10).await);
    assert!(then[1] > later && then[0] == then[1], "{then:?}");

    // Nothing is of a time to come.
    let before = store.load(RecordId::from_bytes([9; 16])).await.unwrap().as_of;
    store.append_audit(vec![entry(6).at(before.plus(Duration::from_hours(1)))]).await.unwrap();
    let now = store.load(RecordId::from_bytes([9; 16])).await.unwrap().as_of;
    let newest = store.audit(AuditQuery::default(), None, 1).await.unwrap().items.remove(0).at;
    assert!(newest >= before && newest <= now, "{newest:?}");
}

fn matches(query: &AuditQuery, entry: &Entry) -> bool {
    let correlation = entry.correlation_id.as_ref().map(Text::as_str);
    (query.key.is_none() || entry.key == query.key)
        && (query.operation.is_none() || entry.operation == query.operation)
        && query.tag.as_ref().is_none_or(|tag| entry.tags.iter().any(|one| one == tag))
        && query.actor.as_ref().is_none_or(|actor| entry.actor.as_str() == actor)
        && (query.record.is_none() || entry.record == query.record)
        && query.action.is_none_or(|action| entry.action == action)
        && (query.correlation_id.is_none() || correlation == query.correlation_id.as_deref())
        && query.from.is_none_or(|from| entry.at >= from)
        && query.until.is_none_or(|until| entry.at < until)
}

/// By record, kind, correlation and time.
pub async fn every_mix_of_filters_finds_its_entries(subject: &mut dyn Subject) {
    let store = subject.store();
    for number in 0..60 {
        store.append_audit(vec![entry(number)]).await.unwrap();
        subject.pass(Duration::from_millis(1)).await;
    }
    let all = pages(&*store, &AuditQuery::default(), 60).await;
    assert_eq!(all.len(), 60);
    let (early, late) = (all[45].at, all[15].at);
    for record in [None, Some(RecordId::from_bytes([2; 16])), Some(RecordId::from_bytes([7; 16]))] {
        for action in [None, Some(Action::ALL[1]), Some(Action::ConfigurationLoaded)] {
            for correlation_id in [None, Some("corr-2".to_owned()), Some("nobody".to_owned())] {
                for (from, until) in
                    [(None, None), (Some(early), None), (None, Some(late)), (Some(early), Some(late))]
                {
                    let correlation_id = correlation_id.clone();
                    let query =
                        AuditQuery { record, action, correlation_id, from, until, ..AuditQuery::default() };
                    let expected: Vec<_> =
                        all.iter().filter(|entry| matches(&query, entry)).cloned().collect();
                    assert_eq!(pages(&*store, &query, 4).await, expected, "{query:?}");
                }
            }
        }
    }
}

/// An entry about one of many records: each third record shares a tag, half of them an operation, and one in ten entries
/// is by an operator.
fn about(number: usize) -> Entry {
    let ask = Ask::key(&format!("key-{}", number % 300)).operation(["charge", "refund"][number % 2]);
    let ask =
        ask.tag("order_id", &format!("order-{}", number % 300)).tag("lot", &format!("lot-{}", number % 3));
    let actor = if number.is_multiple_of(10) { "operator" } else { "tenant" };
    let action = [Action::Claimed, Action::Completed, Action::Replayed][(number / 300) % 3];
    let mut entry = Entry::new(action, actor.into()).about(&ask.request());
    entry.correlation_id = Some(format!("corr-{number}").as_str().into());
    entry
}

/// Queries by what entries keep of their records, by who and what, and mixes of them.
fn queries_by_what_is_kept() -> Vec<AuditQuery> {
    let tag = |name: &str, value: &str| Tag {
        name: TagName::try_new(name).unwrap(),
        value: TagValue::try_new(value).unwrap(),
    };
    let mut queries = Vec::new();
    for key in [None, Some(Key::try_new("key-42").unwrap())] {
        for tag in
            [None, Some(tag("order_id", "order-42")), Some(tag("lot", "lot-0")), Some(tag("lot", "none"))]
        {
            for operation in [None, Some(Operation::try_new("charge").unwrap())] {
                for actor in [None, Some("operator".to_owned()), Some("nobody".to_owned())] {
                    for action in [None, Some(Action::Replayed)] {
                        let (key, tag) = (key.clone(), tag.clone());
                        let (operation, actor) = (operation.clone(), actor.clone());
                        queries.push(AuditQuery {
                            key,
                            tag,
                            operation,
                            actor,
                            action,
                            ..AuditQuery::default()
                        });
                    }
                }
            }
        }
    }
    queries
}

/// By key, tag, operation and actor, which the entry keeps, so that they find it when the record is gone.
pub async fn entries_are_found_by_what_their_record_was_found_by(subject: &mut dyn Subject) {
    let store = subject.store();
    for batch in 0..10 {
        store.append_audit((batch * 90..(batch + 1) * 90).map(about).collect()).await.unwrap();
        subject.pass(Duration::from_millis(1)).await;
    }
    let all = pages(&*store, &AuditQuery::default(), 1_000).await;
    assert_eq!(all.len(), 900);
    let record = about(42).record;
    for query in queries_by_what_is_kept() {
        for (from, until) in [(None, None), (Some(all[700].at), Some(all[100].at))] {
            let query = AuditQuery { from, until, ..query.clone() };
            let expected: Vec<_> = all.iter().filter(|entry| matches(&query, entry)).cloned().collect();
            assert_eq!(pages(&*store, &query, 7).await, expected, "{query:?}");
        }
    }
    let by_record = AuditQuery { record, ..AuditQuery::default() };
    assert_eq!(pages(&*store, &by_record, 7).await.len(), 3);
}

/// Whatever is asked for, at most twenty entries are read for each that is shown.
pub async fn a_page_of_the_audit_log_reads_little_more_than_it_shows(subject: &mut dyn Subject) {
    let store = subject.store();
    for batch in 0..30 {
        store.append_audit((batch * 100..(batch + 1) * 100).map(about).collect()).await.unwrap();
    }
    for query in queries_by_what_is_kept() {
        for limit in [1, 10] {
            let page = store.audit(query.clone(), None, limit).await.unwrap();
            // A page that shows nothing has a word to look at, too; and one more line says whether there is a next page.
            let shown = page.items.len().max(1) as u64 + 1;
            assert!(page.entries_read <= 20 * shown, "{} for {query:?}", page.entries_read);
        }
    }
}

/// The oldest first, in steps, and not one too many.
pub async fn old_entries_are_forgotten_in_steps_and_younger_ones_stay(subject: &mut dyn Subject) {
    let store = subject.store();
    store.append_audit((0..20).map(about).collect()).await.unwrap();
    subject.pass(Duration::from_millis(5)).await;
    store.append_audit((20..25).map(about).collect()).await.unwrap();
    let all = pages(&*store, &AuditQuery::default(), 100).await;
    let (border, oldest) = (all[4].at, all[24].at);
    assert_eq!(store.forget_audit(oldest, 10).await.unwrap(), 0, "nothing is older than the oldest");
    assert_eq!(pages(&*store, &AuditQuery::default(), 100).await, all);
    let mut forgotten = 0;
    loop {
        let step = store.forget_audit(border, 8).await.unwrap();
        assert!(step <= 8);
        if step == 0 {
            break;
        }
        forgotten += step;
        let left = pages(&*store, &AuditQuery::default(), 100).await;
        assert_eq!(left, all[..left.len()], "the oldest go first");
        assert!(left.len() >= 25 - forgotten);
    }
    assert_eq!(pages(&*store, &AuditQuery::default(), 100).await, all[..5]);
    let by_key = AuditQuery { key: about(3).key, ..AuditQuery::default() };
    assert_eq!(pages(&*store, &by_key, 100).await, [], "nor are they found by what they were found by");
    // Numbers and cursors go on.
    store.append_audit((25..30).map(about).collect()).await.unwrap();
    assert_eq!(pages(&*store, &AuditQuery::default(), 3).await.len(), 10);
}

/// The cursor is the store's own number of an entry.
pub async fn paging_misses_nothing_while_entries_are_added(subject: &mut dyn Subject) {
    let store = subject.store();
    store.append_audit((0..40).map(entry).collect()).await.unwrap();
    let there = pages(&*store, &AuditQuery::default(), 40).await;
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let page = store.audit(AuditQuery::default(), cursor, 7).await.unwrap();
        found.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
        let mut writers = JoinSet::new();
        for number in 0..4 {
            let store = subject.store();
            writers.spawn(async move { store.append_audit(vec![entry(number)]).await.unwrap() });
        }
        writers.join_all().await;
    }
    assert_eq!(found, there);
}

/// Durable with its effect, and absent without.
pub async fn an_operators_entry_is_in_the_same_write(subject: &mut dyn Subject) {
    let hand = Hand::on(subject.store());
    let unknown = hand.in_state(&Ask::key("a"), StateName::Unknown).await;
    let resolve = |actor: &str| Resolve {
        id: unknown.id(),
        version: unknown.version(),
        resolution: Resolution::NotExecuted,
        actor: actor.into(),
        reason: "asked the bank".into(),
        correlation_id: Some("corr-1".into()),
    };
    let about = AuditQuery { record: Some(unknown.id()), ..AuditQuery::default() };
    assert_eq!(pages(hand.store(), &about, 10).await, []);
    let Judged::Done(resolved) = hand.ledger.apply(&resolve("op")).await.unwrap() else { panic!("resolved") };
    let entries = pages(hand.store(), &about, 10).await;
    assert_eq!(entries.len(), 1);
    let entry = &entries[0];
    assert_eq!(entry.at, resolved.times().written);
    assert_eq!(
        (entry.action, entry.from, entry.to),
        (Action::Resolved, Some(StateName::Unknown), Some(StateName::Released))
    );
    assert_eq!(
        (entry.actor.as_str(), entry.correlation_id.as_ref().map(Text::as_str)),
        ("op", Some("corr-1"))
    );

    // A write that loses leaves no trace: neither its effect nor its entry.
    let late = crate::fixture::write_of(&resolve("late"), hand.store(), Some(&unknown));
    let answer = hand.store().replace(late, unknown.version()).await.unwrap();
    assert!(matches!(answer.value, semel_core::store::Replaced::Conflict(Some(_))));
    assert_eq!(pages(hand.store(), &about, 10).await, entries);
}

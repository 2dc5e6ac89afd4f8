//! Histories that a ledger can have made, and those that none can.

use super::*;

fn claim(called: u64, answered: u64, answer: Claimed) -> Event {
    Event::new("k", called, Some(answered), What::Claim { attempt: None, answer: Some(answer) })
}

fn lost_claim(called: u64) -> Event {
    Event::new("k", called, None, What::Claim { attempt: None, answer: None })
}

fn granted(called: u64, answered: u64, grant: u64) -> Event {
    claim(called, answered, Claimed::Granted { grant })
}

fn replay(called: u64, answered: u64, outcome: &str) -> Event {
    claim(called, answered, Claimed::Replay { outcome: outcome.into() })
}

fn complete(called: u64, answered: Option<u64>, grant: u64, outcome: &str, answer: Held) -> Event {
    let answer = answered.map(|_| answer);
    Event::new("k", called, answered, What::Complete { grant, outcome: outcome.into(), answer })
}

fn release(called: u64, answered: u64, grant: u64, answer: Held) -> Event {
    Event::new("k", called, Some(answered), What::Release { grant, answer: Some(answer) })
}

fn execute(called: u64, answered: u64, answer: Executed) -> Event {
    Event::new("k", called, Some(answered), What::Execute { answer: Some(answer) })
}

fn completed(called: u64, answered: u64, outcome: &str, replayed: bool) -> Event {
    execute(called, answered, Executed::Completed { outcome: outcome.into(), replayed })
}

fn cut_off(called: u64) -> Event {
    Event::new("k", called, None, What::Execute { answer: None })
}

fn ran(at: u64, outcome: &str) -> Event {
    Event::new("k", at, Some(at), What::Ran { outcome: Some(outcome.into()) })
}

#[track_caller]
fn refuses(events: &[Event], because: &str) -> Violation {
    let violation = check(events).expect_err("no ledger can have made this");
    assert!(violation.what.contains(because), "{violation}");
    violation
}

#[track_caller]
fn explains(events: &[Event]) {
    if let Err(violation) = check(events) {
        panic!("{violation}");
    }
}

#[test]
fn one_runs_the_others_are_busy_and_then_it_is_replayed() {
    explains(&[
        granted(0, 10, 1),
        claim(1, 9, Claimed::Busy),
        complete(20, Some(30), 1, "a", Held::Done),
        claim(21, 29, Claimed::Busy),
        replay(22, 28, "a"),
        replay(31, 40, "a"),
    ]);
}

#[test]
fn two_grants_alive_at_once_are_refused() {
    let violation = refuses(&[granted(0, 10, 1), granted(11, 20, 2)], "two claims were granted");
    assert_eq!(violation.standing, "held by grant 1");
    assert_eq!(violation.stuck.len(), 1, "{violation}");
}

#[test]
fn two_grants_with_a_release_between_them_are_fine_but_not_if_the_release_was_asked_too_late() {
    explains(&[granted(0, 10, 1), release(11, 30, 1, Held::Done), granted(12, 20, 2)]);
    refuses(&[granted(0, 10, 1), granted(12, 20, 2), release(21, 30, 1, Held::Done)], "two claims");
}

#[test]
fn a_fence_that_does_not_rise_is_refused() {
    refuses(&[granted(0, 10, 2), release(11, 12, 2, Held::Done), granted(13, 20, 2)], "did not rise (L2)");
}

#[test]
fn a_replay_of_an_outcome_that_was_never_completed_is_refused() {
    refuses(&[granted(0, 10, 1), replay(11, 20, "a")], "nothing ever gave it");
}

#[test]
fn a_replay_before_the_completion_was_even_asked_is_refused() {
    refuses(
        &[granted(0, 10, 1), replay(11, 12, "a"), complete(13, Some(20), 1, "a", Held::Done)],
        "no order",
    );
}

#[test]
fn a_replay_of_other_bytes_is_refused() {
    refuses(
        &[granted(0, 10, 1), complete(11, Some(20), 1, "a", Held::Done), replay(21, 30, "b")],
        "two outcomes",
    );
}

#[test]
fn an_acknowledged_completion_that_is_lost_is_refused() {
    for forgets in [Claimed::Busy, Claimed::Unknown, Claimed::Granted { grant: 2 }] {
        refuses(
            &[granted(0, 10, 1), complete(11, Some(20), 1, "a", Held::Done), claim(21, 30, forgets)],
            "acknowledged is lost",
        );
    }
}

#[test]
fn a_completion_without_an_answer_may_have_happened_or_not() {
    let begun = [granted(0, 10, 1), complete(11, None, 1, "a", Held::Done)];
    explains(&[&begun[..], &[replay(50, 60, "a")]].concat());
    explains(&[&begun[..], &[claim(50, 60, Claimed::Unknown)]].concat());
    explains(&[&begun[..], &[claim(50, 60, Claimed::Unknown), replay(70, 80, "a")]].concat());
    refuses(&[&begun[..], &[replay(50, 60, "a"), claim(70, 80, Claimed::Unknown)]].concat(), "is lost");
}

#[test]
fn a_claim_without_an_answer_may_hold_the_key_for_nobody() {
    explains(&[lost_claim(0), claim(10, 20, Claimed::Busy), claim(30, 40, Claimed::Unknown)]);
    explains(&[lost_claim(0), granted(10, 20, 5)]);
    refuses(&[claim(0, 5, Claimed::Busy), lost_claim(10)], "no order");
}

#[test]
fn a_claim_under_its_attempts_name_is_granted_again_and_is_the_same() {
    let named = |called, answered, answer| {
        Event::new("k", called, answered, What::Claim { attempt: Some("try-1".into()), answer })
    };
    let again = Some(Claimed::Granted { grant: 3 });
    explains(&[named(0, None, None), claim(5, 6, Claimed::Busy), named(10, Some(20), again.clone())]);
    explains(&[named(0, Some(1), again.clone()), named(10, Some(20), again)]);
}

#[test]
fn two_runs_under_at_most_once_are_refused() {
    refuses(&[cut_off(0), ran(5, "1"), cut_off(100), ran(105, "2")], "ran 2 times");
    refuses(&[completed(0, 10, "1", false), ran(5, "1"), ran(6, "2")], "ran 2 times");
}

#[test]
fn a_run_that_nothing_asked_for_is_refused() {
    refuses(&[ran(5, "1"), cut_off(10)], "no order");
}

#[test]
fn what_a_crash_cut_off_is_busy_until_its_lease_lapses_and_unknown_then() {
    let cut = [cut_off(0), ran(5, "1")];
    explains(
        &[&cut[..], &[execute(50, 60, Executed::Processing), execute(70, 80, Executed::Unknown)]].concat(),
    );
    explains(&[&cut[..], &[completed(50, 60, "1", true)]].concat());
    refuses(&[&cut[..], &[completed(50, 60, "2", true)]].concat(), "nothing ever gave it");
    refuses(&[&cut[..], &[completed(50, 60, "2", false), ran(55, "2")]].concat(), "ran 2 times");
}

#[test]
fn an_outcome_that_was_told_without_a_run_is_refused() {
    let other = Event { key: "other".into(), ..ran(1, "x") };
    let asked = Event { key: "other".into(), ..cut_off(0) };
    refuses(&[other, asked, completed(0, 10, "1", false)], "never seen to run");
}

#[test]
fn what_the_target_refused_may_run_again() {
    explains(&[execute(0, 10, Executed::Released), completed(20, 30, "1", false), ran(25, "1")]);
    explains(&[cut_off(0), completed(20, 30, "1", false), ran(25, "1")]);
}

#[test]
fn an_attempt_whose_client_left_goes_on_and_its_outcome_is_replayed() {
    explains(&[
        execute(0, 10, Executed::Processing),
        ran(20, "1"),
        completed(30, 40, "1", true),
        completed(31, 42, "1", true),
    ]);
}

#[test]
fn fifty_at_once_run_once() {
    let mut events = vec![completed(0, 100, "1", false), ran(50, "1")];
    events.extend((1..50).map(|n| completed(n % 7, 100 + n, "1", true)));
    explains(&events);
    events.push(completed(3, 120, "2", false));
    refuses(&events, "two outcomes");
}

#[test]
fn a_resolution_frees_the_key_and_a_late_completion_still_counts_until_the_next_claim() {
    let resolve = |called, answered, outcome: Option<&str>| {
        let what = What::Resolve { outcome: outcome.map(Into::into), answer: Some(Held::Done) };
        Event::new("k", called, Some(answered), what)
    };
    let unknown = [granted(0, 10, 1), claim(20, 30, Claimed::Unknown)];
    explains(&[&unknown[..], &[resolve(31, 32, None), granted(33, 34, 2)]].concat());
    explains(&[&unknown[..], &[resolve(31, 32, None), complete(33, Some(34), 1, "a", Held::Done)]].concat());
    explains(&[&unknown[..], &[resolve(31, 32, Some("b")), replay(33, 34, "b")]].concat());
    refuses(
        &[
            &unknown[..],
            &[resolve(31, 32, None), granted(33, 34, 2), complete(35, Some(36), 1, "a", Held::Done)],
        ]
        .concat(),
        "two claims",
    );
}

#[test]
fn a_takeover_before_the_lease_has_lapsed_is_refused_and_after_it_the_first_holder_is_fenced() {
    let rules = Rules { at_most_once: false, lease: Some(100), runs_are_seen: false };
    let early = [granted(0, 10, 1), granted(20, 90, 2)];
    assert!(check_under(rules, &early).is_err());
    let late = [
        granted(0, 10, 1),
        granted(20, 110, 2),
        complete(111, Some(112), 1, "a", Held::Fenced),
        complete(113, Some(114), 2, "b", Held::Done),
    ];
    check_under(rules, &late).unwrap();
    let extend = Event::new("k", 50, Some(60), What::Extend { grant: 1, answer: Some(Held::Done) });
    assert!(check_under(rules, &[granted(0, 10, 1), extend, granted(65, 110, 2)]).is_err(), "it was renewed");
    let stale = [granted(0, 10, 1), granted(20, 110, 2), complete(111, Some(112), 1, "a", Held::Done)];
    assert!(check_under(rules, &stale).is_err(), "L6");
}

#[test]
fn many_calls_without_an_answer_are_still_decided() {
    let mut events: Vec<_> = (0..12).map(cut_off).collect();
    events.push(ran(20, "1"));
    events.push(completed(30, 40, "1", true));
    explains(&events);
    events.push(ran(50, "2"));
    refuses(&events, "ran 2 times");
}

#[test]
fn histories_are_read_from_json_lines_and_keys_are_independent() {
    let lines = r#"
        {"key":"a","called":0,"answered":9,"op":"execute","answer":{"completed":{"outcome":"1","replayed":false}}}
        {"key":"a","called":4,"answered":4,"op":"ran","outcome":"1"}

        {"key":"b","called":1,"answered":9,"op":"execute","answer":"processing"}
        {"key":"b","called":2,"answered":null,"op":"claim","attempt":null,"answer":null}
    "#;
    let events = read_json_lines(lines.as_bytes()).unwrap();
    assert_eq!(events.len(), 4);
    explains(&events);
    let line = serde_json::to_string(&events[0]).unwrap();
    assert_eq!(read_json_lines(line.as_bytes()).unwrap(), events[..1]);
    let error = read_json_lines("{\"key\":1}".as_bytes()).unwrap_err();
    assert!(error.to_string().starts_with("line 1:"), "{error}");
}

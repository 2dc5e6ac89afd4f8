//! No case is forgotten.

#[test]
fn every_case_is_in_the_list() {
    let rooms = [
        ("audit", include_str!("audit.rs")),
        ("cancel", include_str!("cancel.rs")),
        ("changes", include_str!("changes.rs")),
        ("corrupt", include_str!("corrupt.rs")),
        ("counts", include_str!("counts.rs")),
        ("due", include_str!("due.rs")),
        ("histories", include_str!("histories.rs")),
        ("restart", include_str!("restart.rs")),
        ("search", include_str!("search.rs")),
        ("swap", include_str!("swap.rs")),
        ("sweep", include_str!("sweep.rs")),
        ("time", include_str!("time.rs")),
    ];
    let list = include_str!("../suite.rs");
    let mut cases = 0;
    for (room, text) in rooms {
        for rest in text.split("\npub async fn ").skip(1) {
            let case = rest.split('(').next().unwrap();
            assert!(list.contains(&format!("{room}: {case};")), "{room}::{case} is in no list");
            cases += 1;
        }
    }
    assert!(cases > 60, "{cases} cases");
}

//! Every code of the catalogue has its page, and every page is of a code.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use semel_api::ErrorCode;

fn pages() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors"))
}

#[test]
fn every_code_has_one_page_and_every_page_is_of_a_code() {
    let there: BTreeSet<String> = fs::read_dir(pages())
        .unwrap()
        .filter_map(|entry| {
            entry.unwrap().file_name().into_string().ok()?.strip_suffix(".md").map(str::to_owned)
        })
        .filter(|name| name != "README")
        .collect();
    let codes: BTreeSet<String> = ErrorCode::ALL.iter().map(|code| code.slug().to_owned()).collect();
    assert_eq!(there, codes);
}

#[test]
fn a_page_names_the_code_and_its_status() {
    for code in ErrorCode::ALL {
        let page = fs::read_to_string(pages().join(format!("{}.md", code.slug()))).unwrap();
        assert!(page.contains(code.as_str()), "{code}");
        let status = match code {
            // It has the target's.
            ErrorCode::OperationRejected => "4xx".to_owned(),
            code => code.status().to_string(),
        };
        assert!(page.contains(&status), "{code}: {status}");
    }
}

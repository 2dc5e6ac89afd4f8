//! The documents are held to what they say: links lead somewhere, error pages agree with the catalogue, tests that are
//! named exist. Only tests live here; `cargo xtask test` runs them with all others.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use semel_api::ErrorCode;

use crate::workspace;

/// A link of a document: what it shows, and where it leads.
struct Link {
    shown: String,
    target: String,
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text without fenced blocks: what looks like a link in them is an example.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let lines = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn links(text: &str) -> Vec<Link> {
    let prose = prose(text);
    let mut links = Vec::new();
    for (at, _) in prose.match_indices("](") {
        let shown = prose[..at].rfind('[').map_or("", |open| &prose[open + 1..at]);
        if let Some(end) = prose[at + 2..].find(')') {
            links.push(Link { shown: shown.to_owned(), target: prose[at + 2..at + 2 + end].to_owned() });
        }
    }
    links
}

/// The anchor that a heading is given: lower case, spaces as hyphens, other punctuation gone.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars()
        .filter(|character| character.is_alphanumeric() || matches!(character, ' ' | '-' | '_'))
        .map(|character| if character == ' ' { '-' } else { character })
        .collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    prose(text)
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect()
}

fn documents() -> Vec<PathBuf> {
    let documents = workspace::files(".md").expect("git lists the files");
    assert!(documents.len() > 30, "only {} documents were found", documents.len());
    documents
}

fn shown(path: &Path) -> String {
    path.strip_prefix(workspace::root()).unwrap_or(path).display().to_string()
}

/// What is wrong with a link of the document at `path`.
fn judge(path: &Path, link: &Link) -> Option<String> {
    if link.target.contains("://") || link.target.starts_with("mailto:") {
        return None;
    }
    let (file, heading) = link.target.split_once('#').unwrap_or((&link.target, ""));
    let target = match file {
        "" => path.to_owned(),
        file => path.parent().expect("a file is in a folder").join(file),
    };
    if !target.exists() {
        return Some(format!("{}: {} leads nowhere", shown(path), link.target));
    }
    if !heading.is_empty() && !anchors(&read(&target)).contains(heading) {
        return Some(format!("{}: {} has no such heading", shown(path), link.target));
    }
    // A name that is linked to code is the name of a test, or of what else stands there.
    let name = link.shown.trim_matches('`');
    let code = target.extension().is_some_and(|extension| extension == "rs");
    (code && name != link.shown && !names(&read(&target), name))
        .then(|| format!("{}: {} does not hold {name}", shown(path), link.target))
}

fn names(code: &str, name: &str) -> bool {
    let last = name.rsplit("::").next().unwrap_or(name);
    ["fn ", "mod ", "struct ", "enum ", "const ", "trait "].iter().any(|word| {
        code.match_indices(&format!("{word}{last}")).any(|(at, found)| {
            !code[at + found.len()..].starts_with(|next: char| next.is_alphanumeric() || next == '_')
        })
    })
}

#[test]
fn links_of_documents_lead_somewhere_and_name_what_is_there() {
    let wrong: Vec<_> = documents()
        .iter()
        .flat_map(|path| {
            links(&read(path)).into_iter().filter_map(|link| judge(path, &link)).collect::<Vec<_>>()
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_broken_link_is_found() {
    let here = workspace::root().join("xtask/none.md");
    let check = |text: &str, wrong: bool| {
        let found = links(text).iter().filter_map(|link| judge(&here, link)).count();
        assert_eq!(found, usize::from(wrong), "{text}");
    };
    check("[x](Cargo.toml)", false);
    check("[x](gone.md)", true);
    check("[x](https://example.com/gone)", false);
    check("```\n[x](gone.md)\n```", false);
    check("[`judge`](src/docs.rs)", false);
    check("[`docs::judge`](src/docs.rs)", false);
    check("[`judg`](src/docs.rs)", true);
    check("[`names_nothing_here_or_elsewhere`](src/main.rs)", true);
    check("[x](../docs/errors/README.md#is-it-safe-to-retry)", false);
    check("[x](../docs/errors/README.md#gone)", true);
}

/// Code and status of each row of the index.
fn index() -> Vec<(String, String)> {
    let text = read(&workspace::root().join("docs/errors/README.md"));
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let code = cells.get(1)?.strip_prefix("[`")?.split('`').next()?;
        Some((code.to_owned(), (*cells.get(2)?).to_owned()))
    });
    rows.collect()
}

#[test]
fn every_error_has_a_page_and_every_page_an_error() {
    let folder = workspace::root().join("docs/errors");
    let pages: BTreeSet<_> = fs::read_dir(&folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be read").path())
        .filter_map(|path| Some(path.file_name()?.to_str()?.strip_suffix(".md")?.to_owned()))
        .filter(|name| name != "README")
        .collect();
    let index: BTreeSet<_> = index().into_iter().map(|(code, _)| code).collect();
    assert_eq!(pages, index, "pages and index");
    let catalogue: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.slug().to_owned()).collect();
    assert_eq!(pages, catalogue, "pages and what the server knows");
}

#[test]
fn a_page_says_what_it_must() {
    for (code, status) in index() {
        let text = read(&workspace::root().join(format!("docs/errors/{code}.md")));
        assert!(
            text.starts_with(&format!("# `{code}`\n\nStatus: {status}\n\n")),
            "{code}: heading or status"
        );
        for section in ["## Cause\n- ", "## What the client does\n- ", "## Example\n", "## Rule\n"] {
            assert!(text.contains(section), "{code}: {section:?}");
        }
        let example = text.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).expect(&code);
        let form = semel_fingerprint::canonical_json(example.as_bytes()).expect(&code);
        let form = String::from_utf8(form).expect("JSON is text");
        assert!(
            form.starts_with(&format!("{{\"error\":{{\"code\":\"{code}\",\"details\":[")),
            "{code}: {form}"
        );
        let known = ErrorCode::parse(&code).expect(&code);
        assert!(form.contains(known.message()), "{code}: the message is not the server's");
        let usual = status == known.status().to_string();
        assert!(
            usual || matches!(known, ErrorCode::OperationRejected | ErrorCode::OutcomeUnknown),
            "{code}: {status}"
        );
        let answer = text.split("HTTP/1.1 ").nth(1).expect(&code);
        assert!(
            status.contains(&answer[..3]) || status == "the target's 4xx" && answer.starts_with('4'),
            "{code}"
        );
        let waits = answer.lines().any(|line| line.starts_with("Retry-After: "));
        assert_eq!(waits, form.contains("\"retry_after\":"), "{code}: Retry-After in header and body");
    }
}

#[test]
fn keys_of_the_configuration_guide_are_those_of_the_example() {
    let example = read(&workspace::root().join("crates/server/src/config/example.toml"));
    let guide = read(&workspace::root().join("docs/guide/configuration.md"));
    // The tables of keys have three columns; that of commands has two.
    let rows = guide.lines().filter(|line| line.matches('|').count() == 4);
    let cells = rows.filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let keys: Vec<_> =
        cells.flat_map(|cell| cell.split(['`', ',', ' ', '†'])).filter(|key| !key.is_empty()).collect();
    assert!(keys.len() > 8, "only {keys:?} were read");
    for key in keys {
        // In a line of its own, or at the end of one that says when it is needed.
        let begins = |text: &str| text.trim_start_matches("# ").starts_with(&format!("{key} = "));
        let known = example.lines().any(|line| line.split(": ").any(begins));
        assert!(known, "{key} is no key of the example");
    }
}

#[test]
fn the_table_of_addresses_has_what_each_listener_serves() {
    let interface = read(&workspace::root().join("docs/openapi.json"));
    let guide = read(&workspace::root().join("docs/guide/operations.md"));
    let row = |listener: &str| {
        let begin = format!("| `{listener}` |");
        guide.lines().find(|line| line.starts_with(&begin)).unwrap_or_else(|| panic!("no row {begin}"))
    };
    let (doors, admin) = (row("server.listen"), row("admin.listen"));
    let mut served = BTreeSet::new();
    // Paths are indented by four; what is asked for operators' tokens is on their listener.
    for path in interface.split("\n    \"/v1/").skip(1) {
        let name = path.split(['/', '"']).next().expect("a path has a name");
        let path = path.split("\n    }").next().expect("a path has an end");
        let (is_operators, is_clients) = (path.contains("\"admin\": []"), path.contains("\"tenant\": []"));
        served.extend(is_operators.then_some((admin, name)));
        served.extend((is_clients || !is_operators).then_some((doors, name)));
    }
    assert!(served.len() > 6, "only {served:?} were read");
    for (row, name) in served {
        assert!(row.contains(&format!("`/v1/{name}`")), "/v1/{name} is not in\n{row}");
    }
}

#[test]
fn the_map_shows_every_crate() {
    let map = read(&workspace::root().join("ARCHITECTURE.md"));
    for crate_folder in fs::read_dir(workspace::root().join("crates")).expect("the folder is there") {
        let name = crate_folder.expect("it can be read").file_name();
        let shown = format!("`crates/{}`", name.display());
        assert!(map.contains(&shown), "ARCHITECTURE.md does not show {shown}");
    }
}

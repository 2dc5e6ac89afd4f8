//! Reads sections of the tree: takes each key by name and type, remembers what was asked for, and reports what
//! nobody asked for, so that a typing error never passes as a default.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use semel_api::Time;

use super::duration;
use super::secret::Secret;
use super::store_url::StoreUrl;
use super::tree::{Entry, Node, Origin, Problem, parse_value};

/// One line of `semel config show`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The key, such as `server.listen`.
    pub path: String,
    /// Its value, as it would stand in the file; secrets are hidden.
    pub value: String,
    /// Where it came from, such as `semel.toml:12` or `default`.
    pub origin: String,
}

/// What is common to all sections.
pub(super) struct Reading {
    pub(super) file: String,
    pub(super) environment: BTreeMap<String, String>,
    problems: RefCell<Vec<(Origin, Problem)>>,
    warnings: RefCell<Vec<Problem>>,
    shown: RefCell<Vec<Shown>>,
    named: RefCell<Vec<Named>>,
}

/// An address that is written out somewhere, for requests to go to.
pub(super) struct Named {
    pub(super) origin: Origin,
    pub(super) path: String,
    pub(super) address: Uri,
}

/// What became of a reading.
pub(super) struct Read {
    /// What is wrong, in the order of the file's lines.
    pub(super) problems: Vec<Problem>,
    /// What holds, and is probably not meant.
    pub(super) warnings: Vec<Problem>,
    /// What holds.
    pub(super) shown: Vec<Shown>,
}

impl Reading {
    pub(super) fn new(file: String, environment: BTreeMap<String, String>) -> Self {
        Self {
            file,
            environment,
            problems: RefCell::default(),
            warnings: RefCell::default(),
            shown: RefCell::default(),
            named: RefCell::default(),
        }
    }

    pub(super) fn problem(&self, origin: &Origin, path: &str, message: impl Display) {
        let (place, path, message) = (origin.place(&self.file), path.to_owned(), message.to_string());
        self.problems.borrow_mut().push((origin.clone(), Problem { place, path, message }));
    }

    /// Says that something can hold, and is probably not meant.
    pub(super) fn warn(&self, origin: &Origin, path: &str, message: impl Display) {
        let (place, path, message) = (origin.place(&self.file), path.to_owned(), message.to_string());
        self.warnings.borrow_mut().push(Problem { place, path, message });
    }

    /// Whether something was said of a key whose path is such. What follows from a value that nobody could read is not said.
    pub(super) fn is_wrong(&self, is_it: impl Fn(&str) -> bool) -> bool {
        self.problems.borrow().iter().any(|(_, problem)| is_it(&problem.path))
    }

    /// Remembers an address that requests will go to. Whether they may is only known when all is read.
    pub(super) fn name(&self, origin: &Origin, path: String, address: &Uri) {
        self.named.borrow_mut().push(Named { origin: origin.clone(), path, address: address.clone() });
    }

    /// All that were remembered, once.
    pub(super) fn take_named(&self) -> Vec<Named> {
        self.named.take()
    }

    pub(super) fn show(&self, origin: &Origin, path: String, value: String) {
        self.shown.borrow_mut().push(Shown { path, value, origin: origin.place(&self.file) });
    }

    /// What is wrong, what is odd, and what holds.
    pub(super) fn finish(self) -> Read {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|(origin, _)| match origin {
            Origin::File(line) => *line,
            Origin::Environment(_) | Origin::Flag(_) | Origin::Default => usize::MAX,
        });
        Read {
            problems: problems.into_iter().map(|(_, problem)| problem).collect(),
            warnings: self.warnings.into_inner(),
            shown: self.shown.into_inner(),
        }
    }
}

/// A value with its origin and path, once it is understood.
#[derive(Clone, Debug)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
    pub(super) path: String,
}

/// A table of the tree, being read.
pub(super) struct Section<'a> {
    pub(super) reading: &'a Reading,
    pub(super) path: String,
    pub(super) origin: Origin,
    entries: BTreeMap<String, Entry>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    pub(super) fn of(reading: &'a Reading, path: String, entry: Option<Entry>) -> Self {
        let origin = entry.as_ref().map_or(Origin::Default, |entry| entry.origin.clone());
        let entries = match entry.map(|entry| entry.node) {
            None => BTreeMap::new(),
            Some(Node::Table(table)) => table,
            Some(Node::Raw(text)) => {
                if let Some(Node::Table(table)) = parse_value(&text, &origin) {
                    table
                } else {
                    reading.problem(&origin, &path, "must be a table, such as { key = \"value\" }");
                    BTreeMap::new()
                }
            }
            Some(other) => {
                reading.problem(&origin, &path, format!("must be a table, not {other}"));
                BTreeMap::new()
            }
        };
        Self { reading, path, origin, entries, asked: RefCell::default() }
    }

    /// The full path of a key of this section.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn ask(&self, key: &'static str) -> Option<&Entry> {
        self.asked.borrow_mut().push(key);
        self.entries.get(key)
    }

    /// Whether the key stands there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Where the key stands, or else where the section does.
    pub(super) fn origin_of(&self, key: &str) -> Origin {
        self.entries.get(key).map_or(self.origin.clone(), |entry| entry.origin.clone())
    }

    /// Says that something is wrong with a key.
    pub(super) fn problem(&self, key: &str, message: impl Display) {
        self.reading.problem(&self.origin_of(key), &self.path_of(key), message);
    }

    /// A value that `read` understands; what is not understood is reported with `allowed`.
    fn read<T>(
        &self,
        key: &'static str,
        allowed: &str,
        read: impl FnOnce(&Node, &Origin) -> Option<T>,
        show: impl FnOnce(&T) -> String,
    ) -> Option<Found<T>> {
        let entry = self.ask(key)?;
        let path = self.path_of(key);
        let Some(value) = read(&entry.node, &entry.origin) else {
            self.reading.problem(&entry.origin, &path, format!("must be {allowed}"));
            return None;
        };
        self.reading.show(&entry.origin, path.clone(), show(&value));
        Some(Found { value, origin: entry.origin.clone(), path })
    }

    /// Shows a default that took effect. A key that stands there, and could not be read, has been reported.
    pub(super) fn or_default<T>(&self, key: &str, found: Option<Found<T>>, default: T, shown: String) -> T {
        if let Some(found) = found {
            return found.value;
        }
        if !self.has(key) {
            self.reading.show(&Origin::Default, self.path_of(key), shown);
        }
        default
    }

    pub(super) fn text(&self, key: &'static str) -> Option<Found<String>> {
        self.read(key, "a text", |node, _| text(node), |text| quote(text))
    }

    pub(super) fn text_or(&self, key: &'static str, default: &str) -> String {
        let found = self.text(key);
        self.or_default(key, found, default.to_owned(), quote(default))
    }

    pub(super) fn boolean(&self, key: &'static str, default: bool) -> bool {
        let found = self.read_boolean(key);
        self.or_default(key, found, default, default.to_string())
    }

    /// A truth, if it stands there.
    pub(super) fn boolean_given(&self, key: &'static str) -> Option<bool> {
        self.read_boolean(key).map(|found| found.value)
    }

    fn read_boolean(&self, key: &'static str) -> Option<Found<bool>> {
        let read = |node: &Node, _: &Origin| match node {
            Node::Boolean(boolean) => Some(*boolean),
            Node::Raw(text) => text.trim().parse().ok(),
            _ => None,
        };
        self.read(key, "true or false", read, ToString::to_string)
    }

    /// A whole number from `min` to `max`.
    pub(super) fn number(&self, key: &'static str, min: u64, max: u64) -> Option<Found<u64>> {
        let read = |node: &Node, _: &Origin| {
            let number = match node {
                Node::Integer(integer) => u64::try_from(*integer).ok(),
                Node::Raw(text) => text.trim().parse().ok(),
                _ => None,
            };
            number.filter(|number| (min..=max).contains(number))
        };
        self.read(key, &format!("a whole number from {min} to {max}"), read, ToString::to_string)
    }

    pub(super) fn number_or(&self, key: &'static str, min: u64, max: u64, default: u64) -> u64 {
        let found = self.number(key, min, max);
        self.or_default(key, found, default, default.to_string())
    }

    pub(super) fn size_or(&self, key: &'static str, min: usize, max: usize, default: usize) -> usize {
        let wide = |size: usize| u64::try_from(size).unwrap_or(u64::MAX);
        let number = self.number_or(key, wide(min), wide(max), wide(default));
        usize::try_from(number).unwrap_or(max)
    }

    pub(super) fn duration(&self, key: &'static str) -> Option<Found<Duration>> {
        let read = |node: &Node, _: &Origin| text(node).and_then(|text| duration::parse(&text));
        self.read(key, duration::ALLOWED, read, |length| quote(&duration::show(*length)))
    }

    pub(super) fn duration_or(&self, key: &'static str, default: Duration) -> Duration {
        let found = self.duration(key);
        self.or_default(key, found, default, quote(&duration::show(default)))
    }

    /// A moment: a date and a time with its offset, as TOML has it or as a text.
    pub(super) fn instant(&self, key: &'static str) -> Option<Found<Time>> {
        let read = |node: &Node, _: &Origin| match node {
            Node::Datetime(written) => Time::parse(written),
            other => Time::parse(&text(other)?),
        };
        self.read(key, "a moment such as 2026-12-31T23:59:59Z", read, ToString::to_string)
    }

    pub(super) fn address_or(&self, key: &'static str, default: SocketAddr) -> Found<SocketAddr> {
        let read = |node: &Node, _: &Origin| text(node).and_then(|text| text.trim().parse().ok());
        let allowed = "an address and a port such as \"127.0.0.1:8080\" or \"[::1]:8080\"";
        let found = self.read(key, allowed, read, |address: &SocketAddr| quote(&address.to_string()));
        let origin = found.as_ref().map_or(Origin::Default, |found| found.origin.clone());
        let value = self.or_default(key, found, default, quote(&default.to_string()));
        Found { value, origin, path: self.path_of(key) }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, words: &[(&'static str, T)]) -> Option<Found<T>> {
        let list: Vec<String> = words.iter().map(|(word, _)| quote(word)).collect();
        let read = |node: &Node, _: &Origin| {
            let text = text(node)?;
            words.iter().find(|(word, _)| *word == text).copied()
        };
        let found = self.read(key, &format!("one of {}", list.join(", ")), read, |(word, _)| quote(word))?;
        Some(Found { value: found.value.1, origin: found.origin, path: found.path })
    }

    pub(super) fn choice_or<T: Copy>(
        &self,
        key: &'static str,
        words: &[(&'static str, T)],
        default: (&'static str, T),
    ) -> T {
        let found = self.choice(key, words);
        self.or_default(key, found, default.1, quote(default.0))
    }

    pub(super) fn path_to(&self, key: &'static str) -> Option<PathBuf> {
        self.text(key).map(|found| PathBuf::from(found.value))
    }

    /// Numbers of an array.
    pub(super) fn numbers(&self, key: &'static str, min: u16, max: u16) -> Vec<u16> {
        let found = self.read_numbers(key, min, max);
        self.or_default(key, found, Vec::new(), "[]".to_owned())
    }

    /// As [`numbers`](Self::numbers), if they stand there: none are not the same as nothing said.
    pub(super) fn numbers_given(&self, key: &'static str, min: u16, max: u16) -> Option<Vec<u16>> {
        self.read_numbers(key, min, max).map(|found| found.value)
    }

    fn read_numbers(&self, key: &'static str, min: u16, max: u16) -> Option<Found<Vec<u16>>> {
        let read = |node: &Node, origin: &Origin| {
            array(node, origin)?
                .iter()
                .map(|entry| match &entry.node {
                    Node::Integer(integer) => u16::try_from(*integer).ok(),
                    _ => None,
                })
                .map(|number| number.filter(|number| (min..=max).contains(number)))
                .collect::<Option<Vec<u16>>>()
        };
        let allowed = format!("an array of whole numbers from {min} to {max}");
        self.read(key, &allowed, read, |numbers| format!("{numbers:?}"))
    }

    /// Texts of an array.
    pub(super) fn texts(&self, key: &'static str) -> Vec<String> {
        let found = self.read_texts(key);
        self.or_default(key, found, Vec::new(), "[]".to_owned())
    }

    /// As [`texts`](Self::texts), if they stand there: none are not the same as nothing said.
    pub(super) fn texts_given(&self, key: &'static str) -> Option<Vec<String>> {
        self.read_texts(key).map(|found| found.value)
    }

    fn read_texts(&self, key: &'static str) -> Option<Found<Vec<String>>> {
        let read = |node: &Node, origin: &Origin| {
            array(node, origin)?.iter().map(|entry| text(&entry.node)).collect::<Option<Vec<String>>>()
        };
        self.read(key, "an array of texts", read, |texts| format!("{texts:?}"))
    }

    /// Names with texts, such as `{ order_id = "/order_id" }`.
    pub(super) fn names(&self, key: &'static str) -> Vec<(String, String)> {
        let read = |node: &Node, origin: &Origin| {
            table(node, origin)?
                .into_iter()
                .map(|(name, entry)| text(&entry.node).map(|text| (name, text)))
                .collect::<Option<Vec<_>>>()
        };
        let show = |names: &Vec<(String, String)>| {
            let pairs: Vec<String> =
                names.iter().map(|(name, value)| format!("{} = {}", bare(name), quote(value))).collect();
            if pairs.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", pairs.join(", ")) }
        };
        let found = self.read(key, "a table of texts such as { order_id = \"/order_id\" }", read, show);
        self.or_default(key, found, Vec::new(), "{}".to_owned())
    }

    /// A table below this one, whether it stands there or not.
    pub(super) fn section(&self, key: &'static str) -> Section<'a> {
        Section::of(self.reading, self.path_of(key), self.ask(key).cloned())
    }

    /// A table below this one, if it stands there.
    pub(super) fn optional(&self, key: &'static str) -> Option<Section<'a>> {
        let entry = self.ask(key)?.clone();
        Some(Section::of(self.reading, self.path_of(key), Some(entry)))
    }

    /// Names with whatever they stand for, each to be read by `as_secret`.
    pub(super) fn named(&self, key: &'static str) -> Vec<(String, Entry)> {
        let Some(entry) = self.ask(key) else { return Vec::new() };
        table(&entry.node, &entry.origin).map_or_else(
            || {
                self.problem(key, "must be a table of names and what they stand for");
                Vec::new()
            },
            |table| table.into_iter().collect(),
        )
    }

    /// The entries of an array.
    pub(super) fn entries(&self, key: &'static str) -> Vec<Entry> {
        let Some(entry) = self.ask(key) else { return Vec::new() };
        let entries = array(&entry.node, &entry.origin);
        entries.unwrap_or_else(|| {
            self.problem(key, "must be an array");
            Vec::new()
        })
    }

    /// The tables of an array, such as `[[operations]]`.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Section<'a>> {
        let entries = self.entries(key).into_iter().enumerate();
        let path = self.path_of(key);
        entries
            .map(|(place, entry)| Section::of(self.reading, format!("{path}[{place}]"), Some(entry)))
            .collect()
    }

    /// Remembers the address under a key, for requests to go to.
    pub(super) fn names_address(&self, key: &str, address: &Uri) {
        self.reading.name(&self.origin_of(key), self.path_of(key), address);
    }

    /// A text as it stands there, whatever else is wrong with it: for what is compared with others. Reports nothing.
    pub(super) fn written(&self, key: &str) -> Option<String> {
        self.entries.get(key).and_then(|entry| text(&entry.node))
    }

    /// A secret under a key of this section.
    pub(super) fn secret(&self, key: &'static str, literal: bool) -> Option<Found<Secret>> {
        let entry = self.ask(key)?.clone();
        secret(self.reading, self.path_of(key), &entry, literal)
    }

    /// A store's URL: a text, or where the whole of it is to be found. It is shown without its password.
    pub(super) fn store_url(&self, key: &'static str, literal: bool) -> Option<Found<StoreUrl>> {
        let entry = self.ask(key)?.clone();
        let Some(text) = text(&entry.node).filter(|text| !text.trim_start().starts_with('{')) else {
            let Found { value, origin, path } = secret(self.reading, self.path_of(key), &entry, literal)?;
            return Some(Found { value: StoreUrl::new(value.expose()), origin, path });
        };
        let url = StoreUrl::new(&text);
        if url.has_password() && !literal && matches!(entry.origin, Origin::File(_)) {
            let message = "a password may stand in the file itself only in development; the whole URL may come from \
                           { env = \"NAME\" } or { file = \"PATH\" }";
            self.problem(key, message);
            return None;
        }
        self.reading.show(&entry.origin, self.path_of(key), quote(&url.to_string()));
        Some(Found { value: url, origin: entry.origin.clone(), path: self.path_of(key) })
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        let mut asked = self.asked.into_inner();
        asked.sort_unstable();
        asked.dedup();
        for (key, entry) in &self.entries {
            if asked.contains(&key.as_str()) {
                continue;
            }
            let path = if self.path.is_empty() { bare(key) } else { format!("{}.{}", self.path, bare(key)) };
            let near = asked.iter().find(|known| is_near(known, key));
            let hint = near.map_or_else(|| ";".to_owned(), |near| format!("; did you mean `{near}`?"));
            let allowed = asked.join(", ");
            self.reading.problem(&entry.origin, &path, format!("unknown key{hint} allowed here: {allowed}"));
        }
    }
}

/// Says of each section which has the name of one above it, whatever else is wrong with either. `what` is what they are.
pub(super) fn named_once(sections: &[Section<'_>], key: &str, what: &str) {
    let mut names = BTreeSet::new();
    for section in sections {
        let Some(name) = section.written(key) else { continue };
        let message = format!("there is {what} `{name}` above");
        if !names.insert(name) {
            section.reading.problem(&section.origin, &section.path_of(key), message);
        }
    }
}

/// `{ env = "…" }`, `{ file = "…" }`, or in development the text itself.
pub(super) fn secret(reading: &Reading, path: String, entry: &Entry, literal: bool) -> Option<Found<Secret>> {
    let origin = entry.origin.clone();
    let allowed = if literal {
        "must be { env = \"NAME\" }, { file = \"PATH\" } or, in development, a text"
    } else {
        "must be { env = \"NAME\" } or { file = \"PATH\" }; a secret may stand in the file itself only in development"
    };
    let node = match &entry.node {
        Node::Raw(text) => parse_value(text, &origin).unwrap_or_else(|| entry.node.clone()),
        other => other.clone(),
    };
    let (text, shown) = match node {
        // A variable's own text is no secret in a file.
        Node::Raw(text) => (text, "(hidden)".to_owned()),
        Node::Text(text) if literal => (text, "(hidden)".to_owned()),
        Node::Table(table) => {
            let section = Section::of(
                reading,
                path.clone(),
                Some(Entry { node: Node::Table(table), origin: origin.clone() }),
            );
            let (name, file) = (section.ask("env").cloned(), section.ask("file").cloned());
            section.finish();
            match (name, file) {
                (Some(name), None) => from_environment(reading, &origin, &path, &name.node)?,
                (None, Some(file)) => from_file(reading, &origin, &path, &file.node)?,
                _ => {
                    reading.problem(&origin, &path, allowed);
                    return None;
                }
            }
        }
        _ => {
            reading.problem(&origin, &path, allowed);
            return None;
        }
    };
    if text.is_empty() {
        reading.problem(&origin, &path, "the secret is empty: an empty secret would let everybody in");
        return None;
    }
    reading.show(&origin, path.clone(), shown);
    Some(Found { value: Secret::new(&text), origin, path })
}

fn from_environment(reading: &Reading, origin: &Origin, path: &str, name: &Node) -> Option<(String, String)> {
    let Some(name) = text(name) else {
        reading.problem(origin, path, "env must be the name of a variable");
        return None;
    };
    let Some(text) = reading.environment.get(&name) else {
        reading.problem(origin, path, format!("the environment has no variable {name}"));
        return None;
    };
    Some((text.clone(), format!("(hidden) from {{ env = {} }}", quote(&name))))
}

fn from_file(reading: &Reading, origin: &Origin, path: &str, file: &Node) -> Option<(String, String)> {
    let Some(file) = text(file) else {
        reading.problem(origin, path, "file must be a path");
        return None;
    };
    match std::fs::read_to_string(&file) {
        // Editors and `echo` end a file with a line break that is no part of the secret.
        Ok(text) => {
            let text = text.trim_end_matches(['\r', '\n']).to_owned();
            Some((text, format!("(hidden) from {{ file = {} }}", quote(&file))))
        }
        Err(error) => {
            reading.problem(origin, path, format!("cannot read {file}: {error}"));
            None
        }
    }
}

pub(super) fn text(node: &Node) -> Option<String> {
    match node {
        Node::Text(text) | Node::Raw(text) => Some(text.clone()),
        _ => None,
    }
}

pub(super) fn array(node: &Node, origin: &Origin) -> Option<Vec<Entry>> {
    match node {
        Node::Array(array) => Some(array.clone()),
        Node::Raw(text) => match parse_value(text, origin) {
            Some(Node::Array(array)) => Some(array),
            _ => None,
        },
        _ => None,
    }
}

fn table(node: &Node, origin: &Origin) -> Option<BTreeMap<String, Entry>> {
    match node {
        Node::Table(table) => Some(table.clone()),
        Node::Raw(text) => match parse_value(text, origin) {
            Some(Node::Table(table)) => Some(table),
            _ => None,
        },
        _ => None,
    }
}

pub(super) fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

pub(super) fn bare(name: &str) -> String {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if plain { name.to_owned() } else { quote(name) }
}

/// Whether one is the other with two changes at most (insertions, removals, replacements), and one at most of a short
/// word: of three letters, two others are another word.
fn is_near(known: &str, given: &str) -> bool {
    let given: Vec<char> = given.chars().collect();
    let mut row: Vec<usize> = (0..=given.len()).collect();
    for (i, a) in known.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in given.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().is_some_and(|changes| *changes <= 2 && *changes * 3 <= given.len())
}

//! Values before anybody knows what they are for: a tree laid together from the file, the environment and flags,
//! each value with where it came from.

use std::collections::BTreeMap;
use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of the file, from 1.
    File(usize),
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(&'static str),
    /// Nobody said anything.
    Default,
}

impl Origin {
    /// As it stands before a message: `semel.toml:12`, or the variable or flag.
    pub(super) fn place(&self, file: &str) -> String {
        match self {
            Self::File(line) => format!("{file}:{line}"),
            Self::Environment(name) => format!("environment {name}"),
            Self::Flag(name) => format!("flag {name}"),
            Self::Default => "default".to_owned(),
        }
    }
}

/// A value, not yet understood.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Table(BTreeMap<String, Entry>),
    Array(Vec<Entry>),
    Text(String),
    Integer(i64),
    Float,
    Boolean(bool),
    /// As it was written.
    Datetime(String),
    /// Text of a variable: it is what its reader takes it for.
    Raw(String),
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Table(_) => "a table",
            Self::Array(_) => "an array",
            Self::Text(_) | Self::Raw(_) => "a text",
            Self::Integer(_) => "an integer",
            Self::Float => "a number with a fraction",
            Self::Boolean(_) => "true or false",
            Self::Datetime(_) => "a date",
        })
    }
}

/// A value with its origin.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) node: Node,
    pub(super) origin: Origin,
}

/// Something that stops the start: where it stands, which key, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The place, such as `semel.toml:12`.
    pub place: String,
    /// The key, such as `server.listen`.
    pub path: String,
    /// What is wrong, and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Reads a TOML text.
///
/// # Errors
/// It is no TOML: where, and why.
pub(super) fn parse(text: &str, file: &str) -> Result<Entry, Problem> {
    match DeTable::parse(text) {
        Ok(table) => {
            let lines = Lines::of(text);
            Ok(Entry { node: table_node(table.into_inner(), &lines), origin: Origin::File(1) })
        }
        Err(error) => {
            let line = error.span().map_or(1, |span| Lines::of(text).line(span.start));
            let message = error.message().replace('\n', " ");
            Err(Problem {
                place: Origin::File(line).place(file),
                path: String::new(),
                message: format!("this is not TOML: {message}"),
            })
        }
    }
}

/// Reads a value as it stands on the right of `=`, for variables that hold more than a text.
pub(super) fn parse_value(text: &str, origin: &Origin) -> Option<Node> {
    let text = format!("value = {text}");
    let mut table = DeTable::parse(&text).ok()?.into_inner().into_iter();
    // A second entry would be a text with a line break that smuggles in another key.
    let ((_, value), None) = (table.next()?, table.next()) else { return None };
    let mut node = value_node(value.into_inner(), &Lines::of(&text));
    relabel(&mut node, origin);
    Some(node)
}

fn relabel(node: &mut Node, origin: &Origin) {
    let entries: Vec<&mut Entry> = match node {
        Node::Table(table) => table.values_mut().collect(),
        Node::Array(array) => array.iter_mut().collect(),
        _ => return,
    };
    for entry in entries {
        entry.origin = origin.clone();
        relabel(&mut entry.node, origin);
    }
}

/// Where each line of a text begins.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    fn line(&self, at: usize) -> usize {
        self.0.partition_point(|start| *start <= at)
    }
}

fn entry(value: Spanned<DeValue<'_>>, lines: &Lines) -> Entry {
    let origin = Origin::File(lines.line(value.span().start));
    Entry { node: value_node(value.into_inner(), lines), origin }
}

fn table_node(table: DeTable<'_>, lines: &Lines) -> Node {
    let entries = table.into_iter().map(|(name, value)| {
        let line = lines.line(name.span().start);
        let mut entry = entry(value, lines);
        // A table's own span may begin elsewhere than the line that names it.
        entry.origin = Origin::File(line);
        (name.into_inner().into_owned(), entry)
    });
    Node::Table(entries.collect())
}

fn value_node(value: DeValue<'_>, lines: &Lines) -> Node {
    match value {
        DeValue::String(text) => Node::Text(text.into_owned()),
        DeValue::Integer(integer) => {
            let digits = integer.as_str().replace('_', "");
            match i64::from_str_radix(&digits, integer.radix()) {
                Ok(integer) => Node::Integer(integer),
                Err(_) => Node::Raw(integer.as_str().to_owned()),
            }
        }
        DeValue::Float(_) => Node::Float,
        DeValue::Boolean(boolean) => Node::Boolean(boolean),
        DeValue::Datetime(datetime) => Node::Datetime(datetime.to_string()),
        DeValue::Array(array) => Node::Array(array.into_iter().map(|value| entry(value, lines)).collect()),
        DeValue::Table(table) => table_node(table, lines),
    }
}

/// Puts a value where `path` says, over what is there. A number in the path is a place in an array.
///
/// # Errors
/// Something on the way is neither a table nor an array that has this place or is to grow by it.
pub(super) fn put(root: &mut Entry, path: &[String], value: Entry) -> Result<(), String> {
    let Some((first, rest)) = path.split_first() else {
        *root = value;
        return Ok(());
    };
    if first.is_empty() {
        return Err("an empty name between two `__`".to_owned());
    }
    let empty = || Entry { node: Node::Table(BTreeMap::new()), origin: value.origin.clone() };
    if first.parse::<usize>().is_ok()
        && let Node::Table(table) = &root.node
        && table.is_empty()
    {
        root.node = Node::Array(Vec::new());
    }
    let next = match &mut root.node {
        Node::Table(table) => table.entry(first.clone()).or_insert_with(empty),
        Node::Array(array) => {
            let place: usize = first.parse().map_err(|_| format!("`{first}` is no place in an array"))?;
            if place == array.len() {
                array.push(empty());
            }
            let places = array.len();
            array.get_mut(place).ok_or(format!("there is no place {place}: the array has {places}"))?
        }
        other => return Err(format!("`{first}` cannot be in {other}")),
    };
    put(next, rest, value)
}

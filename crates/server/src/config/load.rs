//! Lays the layers over each other (file, environment, flags) and reads the whole.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use super::reader::{Read, Reading, Section, Shown};
use super::tree::{Entry, Node, Origin, Problem, parse, put};
use super::{Config, check, sections};

/// What begins every variable that is a key: `SEMEL__SERVER__LISTEN`.
const PREFIX: &str = "SEMEL__";
/// The file that is taken where it stands, if none is named.
const USUAL_FILE: &str = "semel.toml";

/// Where a configuration is read from. Kept by the server, so that it can read again.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file; `None`: `./semel.toml` if there is one, else none.
    pub file: Option<PathBuf>,
    /// The variables of the environment.
    pub environment: BTreeMap<String, String>,
    /// Flags that set keys: the flag, the key's path, the value.
    pub flags: Vec<(&'static str, &'static str, String)>,
}

impl Sources {
    /// The environment of this process, and nothing else. Variables that are not Unicode are left out.
    pub fn of_process() -> Self {
        let unicode = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self { environment: std::env::vars_os().filter_map(unicode).collect(), ..Self::default() }
    }
}

/// A configuration with the origin of each value.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Each value, with where it came from.
    pub shown: Vec<Shown>,
    /// The file, if there was one.
    pub file: Option<PathBuf>,
}

/// What became of examining a configuration.
#[derive(Clone, Debug)]
pub struct Examined {
    /// As far as it could be read. Where there are problems it is for nothing but the search for more.
    pub loaded: Loaded,
    /// Everything that is wrong with it.
    pub problems: Vec<Problem>,
}

/// Everything that is wrong with a configuration, not only the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// One after the other.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, problem) in self.problems.iter().enumerate() {
            if place > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl Error for ConfigError {}

/// Reads and checks a configuration, and says of one that cannot be used all that is wrong.
///
/// # Errors
/// There is nothing to look at: the file cannot be read, or is no TOML.
pub fn examine(sources: &Sources) -> Result<Examined, ConfigError> {
    let file = sources.file.clone().or_else(|| Path::new(USUAL_FILE).exists().then(|| USUAL_FILE.into()));
    let name = file.as_ref().map_or_else(|| "no file".to_owned(), |file| file.display().to_string());
    let text = match &file {
        None => String::new(),
        Some(file) => std::fs::read_to_string(file).map_err(|error| ConfigError {
            problems: vec![Problem {
                place: name.clone(),
                path: String::new(),
                message: format!("cannot read the configuration: {error}"),
            }],
        })?,
    };
    let Survey { config, shown, problems } = survey(&text, &name, file.is_none(), sources)?;
    Ok(Examined { loaded: Loaded { config, shown, file }, problems })
}

/// Reads and checks a configuration.
///
/// # Errors
/// Unknown keys, wrong types, values out of range, contradictions: all of them, each with its place and with what is
/// allowed.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let Examined { loaded, problems } = examine(sources)?;
    if problems.is_empty() { Ok(loaded) } else { Err(ConfigError { problems }) }
}

/// What became of reading a configuration.
struct Survey {
    config: Config,
    shown: Vec<Shown>,
    problems: Vec<Problem>,
}

/// Reads a configuration from its text; `without_file` makes development mode the default.
fn survey(text: &str, name: &str, without_file: bool, sources: &Sources) -> Result<Survey, ConfigError> {
    let mut root = parse(text, name).map_err(|problem| ConfigError { problems: vec![problem] })?;
    let reading = Reading::new(name.to_owned(), sources.environment.clone());
    for (variable, value) in &sources.environment {
        let Some(rest) = variable.strip_prefix(PREFIX) else { continue };
        let path: Vec<String> = rest.to_lowercase().split("__").map(str::to_owned).collect();
        lay(&reading, &mut root, &path, value, &Origin::Environment(variable.clone()));
    }
    for (flag, path, value) in &sources.flags {
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        lay(&reading, &mut root, &path, value, &Origin::Flag(flag));
    }
    let draft = sections::config(Section::of(&reading, String::new(), Some(root)), without_file);
    check::contradictions(&reading, &draft);
    let Read { mut problems, warnings, shown } = reading.finish();
    problems.dedup();
    if problems.is_empty() && !draft.is_whole {
        // Whoever leaves something out says why; if not, the server still must not start without it.
        let message = "something of it cannot be used".to_owned();
        problems.push(Problem { place: name.to_owned(), path: String::new(), message });
    }
    Ok(Survey { config: Config { warnings, ..draft.config }, shown, problems })
}

/// As [`load`], from a text.
#[cfg(test)]
pub(super) fn read(
    text: &str,
    name: &str,
    without_file: bool,
    sources: &Sources,
) -> Result<(Config, Vec<Shown>), ConfigError> {
    let Survey { config, shown, problems } = survey(text, name, without_file, sources)?;
    if problems.is_empty() { Ok((config, shown)) } else { Err(ConfigError { problems }) }
}

fn lay(reading: &Reading, root: &mut Entry, path: &[String], value: &str, origin: &Origin) {
    let entry = Entry { node: Node::Raw(value.to_owned()), origin: origin.clone() };
    if let Err(message) = put(root, path, entry) {
        reading.problem(origin, &path.join("."), message);
    }
}

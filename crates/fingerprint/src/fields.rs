//! Which fields of a JSON payload count, named by JSON Pointer (RFC 6901).
//!
//! The pointers become a small tree that the scan walks along with the document, so a choice of fields costs no second
//! pass and no copy of the document.

/// Which fields of a JSON payload count towards its fingerprint.
///
/// ```
/// use semel_fingerprint::{Fields, FingerprintBuilder};
///
/// let fields = Fields::except(["/sent_at", "/meta/trace"])?;
/// let first = FingerprintBuilder::new().fields(&fields).json(br#"{"amount":5,"sent_at":"10:00"}"#).finish();
/// let again = FingerprintBuilder::new().fields(&fields).json(br#"{"amount":5,"sent_at":"10:01"}"#).finish();
/// assert_eq!(first, again);
/// # Ok::<(), semel_fingerprint::PointerError>(())
/// ```
///
/// A payload that cannot be canonicalised is compared whole, byte by byte, whatever was chosen.
/// A changed choice changes the fingerprints of keys in use: those answer as a mismatch until they expire.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    mode: Mode,
    root: Branch,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    All,
    Only,
    Except,
}

/// A place that a pointer leads through or to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Branch {
    /// A pointer ends here.
    named: bool,
    children: Vec<(String, Branch)>,
}

/// Why a JSON Pointer cannot be used to choose fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointerError {
    pointer: String,
    reason: &'static str,
}

impl std::fmt::Display for PointerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JSON Pointer {:?}: {}", self.pointer, self.reason)
    }
}

impl std::error::Error for PointerError {}

impl Fields {
    /// Every field counts.
    pub fn all() -> Self {
        Self::default()
    }

    /// Only what the pointers name counts, with everything below it. Containers on the way there count as empty ones,
    /// so that a field's place counts with it; scalars on the way do not count.
    ///
    /// # Errors
    /// When a pointer is not one of RFC 6901, or none is given: then no two payloads would differ.
    pub fn only<'a>(pointers: impl IntoIterator<Item = &'a str>) -> Result<Self, PointerError> {
        let fields = Self { mode: Mode::Only, root: tree(pointers)? };
        if fields.root.named || !fields.root.children.is_empty() {
            return Ok(fields);
        }
        Err(PointerError { pointer: String::new(), reason: "at least one field must count" })
    }

    /// Everything counts except what the pointers name. An element that is left out of an array is left out as if the
    /// array were shorter.
    ///
    /// # Errors
    /// When a pointer is not one of RFC 6901, or names the whole document: then no two payloads would differ.
    pub fn except<'a>(pointers: impl IntoIterator<Item = &'a str>) -> Result<Self, PointerError> {
        let fields = Self { mode: Mode::Except, root: tree(pointers)? };
        if fields.root.named {
            return Err(PointerError {
                pointer: String::new(),
                reason: "the whole document cannot be left out",
            });
        }
        Ok(fields)
    }

    pub(crate) fn root(&self) -> Keep<'_> {
        match self.mode {
            Mode::All => Keep::All,
            Mode::Only | Mode::Except => Keep::at(self.mode, Some(&self.root)),
        }
    }
}

fn tree<'a>(pointers: impl IntoIterator<Item = &'a str>) -> Result<Branch, PointerError> {
    let mut root = Branch::default();
    for pointer in pointers {
        let refuse = |reason| PointerError { pointer: pointer.to_owned(), reason };
        let mut branch = &mut root;
        if !pointer.is_empty() {
            let tokens =
                pointer.strip_prefix('/').ok_or_else(|| refuse("must be empty or begin with a slash"))?;
            for token in tokens.split('/') {
                branch =
                    branch.child(unescape(token).ok_or_else(|| refuse("`~` must be followed by 0 or 1"))?);
            }
        }
        branch.named = true;
    }
    Ok(root)
}

impl Branch {
    fn child(&mut self, token: String) -> &mut Branch {
        let position = self.children.iter().position(|(name, _)| *name == token).unwrap_or_else(|| {
            self.children.push((token, Branch::default()));
            self.children.len() - 1
        });
        &mut self.children[position].1
    }
}

/// RFC 6901, section 4: `~1` is `/`, and then `~0` is `~`.
fn unescape(token: &str) -> Option<String> {
    let mut pieces = token.split('~');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (escaped, rest) = match piece.as_bytes().first()? {
            b'0' => ('~', &piece[1..]),
            b'1' => ('/', &piece[1..]),
            _ => return None,
        };
        text.push(escaped);
        text.push_str(rest);
    }
    Some(text)
}

/// What the choice says about one value of the document.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keep<'a> {
    /// The value counts, with everything in it.
    All,
    /// The value does not count.
    Nothing,
    /// Pointers lead further into the value: what they name is all that counts in it.
    OnlyBelow(&'a Branch),
    /// Pointers lead further into the value: what they name does not count.
    ExceptBelow(&'a Branch),
}

impl<'a> Keep<'a> {
    fn at(mode: Mode, branch: Option<&'a Branch>) -> Self {
        match (mode, branch) {
            (Mode::Only, None) => Self::Nothing,
            (Mode::Only, Some(branch)) if !branch.named => Self::OnlyBelow(branch),
            (Mode::Except, Some(branch)) if branch.named => Self::Nothing,
            (Mode::Except, Some(branch)) => Self::ExceptBelow(branch),
            (Mode::All | Mode::Only, Some(_)) | (Mode::All | Mode::Except, None) => Self::All,
        }
    }

    /// Whether nothing in the value is left out.
    pub(crate) fn keeps_all(self) -> bool {
        matches!(self, Self::All)
    }

    /// Whether the value counts if it is neither array nor object.
    pub(crate) fn keeps_scalars(self) -> bool {
        matches!(self, Self::All | Self::ExceptBelow(_))
    }

    /// What is said about a member of this object; `is` compares its name.
    pub(crate) fn member(self, is: impl Fn(&str) -> bool) -> Self {
        self.child(|token| is(token))
    }

    /// What is said about an element of this array.
    pub(crate) fn element(self, index: usize) -> Self {
        self.child(|token| is_index(token, index))
    }

    fn child(self, is: impl Fn(&str) -> bool) -> Self {
        let find =
            |branch: &'a Branch| branch.children.iter().find(|(token, _)| is(token)).map(|(_, child)| child);
        match self {
            Self::All | Self::Nothing => self,
            Self::OnlyBelow(branch) => Self::at(Mode::Only, find(branch)),
            Self::ExceptBelow(branch) => Self::at(Mode::Except, find(branch)),
        }
    }
}

/// An index has one spelling: digits without leading zeros (RFC 6901, section 4).
fn is_index(token: &str, index: usize) -> bool {
    token.parse() == Ok(index) && token.len() == index.checked_ilog10().unwrap_or(0) as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::canonicalise_into;

    fn check(fields: &Fields, document: &str, expected: &str) {
        let mut form = Vec::new();
        canonicalise_into(document.as_bytes(), fields, &mut form).unwrap();
        assert_eq!(String::from_utf8(form).unwrap(), expected, "of {document} with {fields:?}");
    }

    #[test]
    fn what_is_excepted_does_not_count() {
        let fields = Fields::except(["/b", "/c/d", "/e/1", "/x~1y/~0"]).unwrap();
        check(&fields, r#"{"b":{"z":[]},"c":{"d":1,"e":2},"a":0}"#, r#"{"a":0,"c":{"e":2}}"#);
        check(&fields, r#"{"e":["p","q","r"]}"#, r#"{"e":["p","r"]}"#);
        check(&fields, r#"{"x/y":{"~":1,"~0":2}}"#, r#"{"x/y":{"~0":2}}"#);
        check(&fields, r#"{"\u0062":1,"c":5}"#, r#"{"c":5}"#);
        check(&fields, "[1,{\"b\":1}]", "[1,{\"b\":1}]");
    }

    #[test]
    fn only_what_is_named_counts_with_its_place() {
        let fields = Fields::only(["/order/id", "/lines/0/sku"]).unwrap();
        check(
            &fields,
            r#"{"note":"x","lines":[{"qty":2,"sku":"A"},{"sku":"B"}],"order":{"id":{"b":1,"a":2},"at":"now"}}"#,
            r#"{"lines":[{"sku":"A"}],"order":{"id":{"a":2,"b":1}}}"#,
        );
        check(&fields, r#"{"order":5}"#, "{}");
        check(&fields, "7", "");
    }

    #[test]
    fn an_index_has_one_spelling() {
        check(&Fields::except(["/00", "/+1", "/-"]).unwrap(), "[1,2]", "[1,2]");
        check(&Fields::except(["/10"]).unwrap(), "[0,1,2,3,4,5,6,7,8,9,10,11]", "[0,1,2,3,4,5,6,7,8,9,11]");
    }

    #[test]
    fn a_name_twice_is_refused_where_it_does_not_count_as_well() {
        let fields = Fields::except(["/a"]).unwrap();
        let found = canonicalise_into(br#"{"a":1,"a":2}"#, &fields, &mut Vec::new());
        assert!(found.is_err());
        let found = canonicalise_into(br#"{"a":{"x":1,"x":2}}"#, &fields, &mut Vec::new());
        assert!(found.is_err());
    }

    #[test]
    fn a_choice_that_leaves_nothing_is_refused() {
        assert_eq!(
            Fields::except(["/a", ""]).unwrap_err().to_string(),
            "JSON Pointer \"\": the whole document cannot be left out"
        );
        assert!(Fields::only([]).is_err());
        assert!(Fields::only([""]).is_ok());
        for broken in ["a", "/~", "/~2", "/a~"] {
            assert!(Fields::only([broken]).is_err(), "{broken}");
        }
    }
}

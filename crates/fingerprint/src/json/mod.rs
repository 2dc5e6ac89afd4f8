//! Canonical JSON: one spelling for every document that means the same.
//!
//! The form is that of RFC 8785 (names in order of their UTF-16 code units, no white space, shortest escapes) with one
//! deliberate difference: numbers are exact decimals, never rounded to an IEEE double, laid out as RFC 8785 would lay
//! them out. So `1`, `1.0` and `10e-1` are one number, while 9007199254740992 and 9007199254740993 are two.
//!
//! Two passes, both linear in the document. [`scan`] checks the grammar and finds what is out of order; [`emit`]
//! writes. A document that is in order already costs no more memory than its canonical form.

mod emit;
mod number;
mod scan;
mod string;

use crate::fields::Fields;

/// The canonical form of a JSON document.
///
/// Equal for two documents exactly when they mean the same: order of members, white space, escapes and spelling of
/// numbers do not matter; everything else does.
///
/// ```
/// use semel_fingerprint::canonical_json;
///
/// let form = canonical_json(br#" { "b" : 1.50, "a" : "\u0041\/" } "#)?;
/// assert_eq!(form, br#"{"a":"A/","b":1.5}"#);
/// # Ok::<(), semel_fingerprint::JsonError>(())
/// ```
///
/// A lone surrogate (`"\ud800"`) is grammatical JSON (RFC 8259, section 8.2) that no UTF-8 text can hold; it stays an
/// escape in lower case. RFC 8785 would refuse it.
///
/// # Errors
/// When the document is not JSON, names a member twice, or is beyond a limit of [`crate::limits`]; see
/// [`JsonErrorKind`]. The same document fails again: a retry does not help.
pub fn canonical_json(document: &[u8]) -> Result<Vec<u8>, JsonError> {
    let mut form = Vec::with_capacity(document.len());
    canonicalise_into(document, &Fields::all(), &mut form)?;
    Ok(form)
}

/// Appends the canonical form of the chosen fields of `document` to `form`; on an error `form` is as it was.
pub(crate) fn canonicalise_into(
    document: &[u8],
    fields: &Fields,
    form: &mut Vec<u8>,
) -> Result<(), JsonError> {
    let scanned = scan::scan(document, fields)?;
    emit::emit(&scanned, form);
    Ok(())
}

/// Why a document has no canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError {
    kind: JsonErrorKind,
    offset: usize,
}

/// The kinds of [`JsonError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum JsonErrorKind {
    /// The text does not follow the grammar of RFC 8259, or is not UTF-8.
    Syntax,
    /// An object has two members of one name; parsers disagree on which of them counts.
    DuplicateName,
    /// Arrays and objects nest deeper than [`JSON_DEPTH_MAX`](crate::limits::JSON_DEPTH_MAX).
    TooDeep,
    /// The document is larger than [`JSON_BYTES_MAX`](crate::limits::JSON_BYTES_MAX).
    TooLarge,
    /// A number's exponent is beyond ± [`JSON_EXPONENT_MAX`](crate::limits::JSON_EXPONENT_MAX), so that its exact value cannot be written down.
    NumberRange,
}

impl JsonError {
    pub(crate) const fn new(kind: JsonErrorKind, offset: usize) -> Self {
        Self { kind, offset }
    }

    /// What is wrong.
    pub const fn kind(&self) -> JsonErrorKind {
        self.kind
    }

    /// Where it was found, in bytes from the start.
    pub const fn offset(&self) -> usize {
        self.offset
    }
}

// Says where, never what stands there: a payload may be secret, and errors end up in logs.
impl std::fmt::Display for JsonError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.kind {
            JsonErrorKind::Syntax => "not valid JSON",
            JsonErrorKind::DuplicateName => "a name occurs twice in one object",
            JsonErrorKind::TooDeep => "nested too deeply",
            JsonErrorKind::TooLarge => "document too large",
            JsonErrorKind::NumberRange => "a number's exponent is out of range",
        };
        write!(f, "{what}, at byte {}", self.offset)
    }
}

impl std::error::Error for JsonError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(document: &str, expected: &str) {
        let form = canonical_json(document.as_bytes()).unwrap_or_else(|error| panic!("{document}: {error}"));
        assert_eq!(String::from_utf8(form).unwrap(), expected, "of {document}");
        assert_eq!(canonical_json(expected.as_bytes()).unwrap(), expected.as_bytes(), "canonical twice");
    }

    fn refused(document: &[u8], kind: JsonErrorKind) {
        let found = canonical_json(document).expect_err(&String::from_utf8_lossy(document)).kind();
        assert_eq!(found, kind, "{}", String::from_utf8_lossy(document));
    }

    #[test]
    fn members_are_ordered_at_every_depth() {
        check(r#"{"b":1,"a":2}"#, r#"{"a":2,"b":1}"#);
        check(r#"{"b":{"d":[],"c":{}},"a":[{"z":1,"y":2}]}"#, r#"{"a":[{"y":2,"z":1}],"b":{"c":{},"d":[]}}"#);
        check(
            r#"[1, {"b":1,"a":2} , "x",{"a":0} ,[ {"d":1,"c":[{"f":1,"e":2}]} ],{"h":1,"g":2}]"#,
            r#"[1,{"a":2,"b":1},"x",{"a":0},[{"c":[{"e":2,"f":1}],"d":1}],{"g":2,"h":1}]"#,
        );
        check(r#"{"a":{"c":1,"b":2},"d":0}"#, r#"{"a":{"b":2,"c":1},"d":0}"#);
    }

    #[test]
    fn names_are_ordered_by_utf16_units_as_rfc_8785_says() {
        check(
            r#"{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7}"#,
            "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"ö\":7,\"€\":1,\"😀\":5,\"\u{fb33}\":3}",
        );
        check(r#"{"aa":1,"a":2,"":3,"A":4}"#, r#"{"":3,"A":4,"a":2,"aa":1}"#);
        check(r#"{"b":1,"\u0061":2}"#, r#"{"a":2,"b":1}"#);
    }

    #[test]
    fn strings_have_one_spelling() {
        check(
            r#""\u0041\/\u000a\n\u0022\"\\\u005c\u001F\u007f\b\f\r\t""#,
            "\"A/\\n\\n\\\"\\\"\\\\\\\\\\u001f\u{7f}\\b\\f\\r\\t\"",
        );
        check(r#""\ud83d\ude00""#, "\"😀\"");
        check("\"e\u{301}\"", "\"e\u{301}\"");
    }

    #[test]
    fn a_lone_surrogate_stays_an_escape() {
        check(r#""\uD800""#, r#""\ud800""#);
        check(r#""\udC00\uD800x""#, r#""\udc00\ud800x""#);
        check(r#""\ud800\ud83d\ude00""#, "\"\\ud800😀\"");
        check(r#"{"\ud800":1,"\ud7ff":2}"#, "{\"\u{d7ff}\":2,\"\\ud800\":1}");
        assert_ne!(canonical_json(br#""\ud800""#), canonical_json(br#""\\ud800""#));
    }

    #[test]
    fn numbers_are_exact_decimals() {
        for one in ["1", "1.0", "1e0", "10e-1", "0.1E+1", "1.000", "100E-2", "0.00001e5"] {
            check(one, "1");
        }
        for zero in ["0", "-0", "0.0", "-0.0e99", "0e99999999999999999999999999", "0e-5"] {
            check(zero, "0");
        }
        check("9007199254740993", "9007199254740993");
        check("9007199254740992.0", "9007199254740992");
        check("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827");
        check("-1.50e2", "-150");
        check("12345678901234567890123", "1.2345678901234567890123e+22");
    }

    #[test]
    fn numbers_are_laid_out_as_ecmascript_does() {
        check("1e20", "100000000000000000000");
        check("1e21", "1e+21");
        check("100000000000000000000000", "1e+23");
        check("123e-8", "0.00000123");
        check("1e-6", "0.000001");
        check("1e-7", "1e-7");
        check("-12.5e-9", "-1.25e-8");
        check("333333333.33333329", "333333333.33333329");
        check("0.0000001234", "1.234e-7");
        check("1.7976931348623157e308", "1.7976931348623157e+308");
    }

    /// The numbers of RFC 8785, appendix B, as ECMAScript writes those doubles.
    #[test]
    fn numbers_as_rfc_8785_writes_them_stay_as_they_are() {
        for number in [
            "0",
            "5e-324",
            "-5e-324",
            "1.7976931348623157e+308",
            "-1.7976931348623157e+308",
            "9007199254740992",
            "-9007199254740992",
            "295147905179352830000",
            "9.999999999999997e+22",
            "1e+23",
            "1.0000000000000001e+23",
            "999999999999999700000",
            "999999999999999900000",
            "1e+21",
            "9.999999999999997e-7",
            "0.000001",
            "333333333.3333332",
            "333333333.33333325",
            "333333333.3333333",
            "333333333.3333334",
            "333333333.33333343",
            "-0.0000033333333333333333",
            "1424953923781206.2",
        ] {
            check(number, number);
        }
    }

    #[test]
    fn exponents_that_cannot_be_counted_are_refused() {
        check("10e999999999999999", "1e+1000000000000000");
        check("0.001e-999999999999997", "1e-1000000000000000");
        check("0.00001e1000000000000005", "1e+1000000000000000");
        refused(b"10e1000000000000000", JsonErrorKind::NumberRange);
        refused(b"1e1000000000000001", JsonErrorKind::NumberRange);
        refused(b"1e-1000000000000001", JsonErrorKind::NumberRange);
        refused(b"[-1e-99999999999999999999999999]", JsonErrorKind::NumberRange);
    }

    #[test]
    fn white_space_goes_and_literals_stay() {
        check(" [ true , false , null , { } , [ ] , \"\" ] \r\n\t", r#"[true,false,null,{},[],""]"#);
        check("\"  \"", "\"  \"");
    }

    #[test]
    fn what_is_not_json_is_refused() {
        let broken: &[&[u8]] = &[
            b"",
            b" ",
            b"{",
            b"}",
            b"[1,]",
            b"[,1]",
            b"{\"a\"}",
            b"{\"a\":}",
            b"{\"a\":1,}",
            b"{a:1}",
            b"[1 2]",
            b"01",
            b"-",
            b"+1",
            b"1.",
            b".5",
            b"1e",
            b"1e+",
            b"0x1",
            b"1.e1",
            b"NaN",
            b"tru",
            b"nulll",
            b"true false",
            b"\"",
            b"\"\\x\"",
            b"\"\\u12\"",
            b"\"\\u12g4\"",
            b"\"\n\"",
            b"\"\x00\"",
            b"'a'",
            b"\"a\\\"",
            b"\xff",
            b"\"\xc3\x28\"",
            b"\xef\xbb\xbf{}",
            b"{}{}",
            b"[1}",
            b"{\"a\":1]",
            b"// x\n1",
            b"--1",
            b"1\x00",
        ];
        for document in broken {
            refused(document, JsonErrorKind::Syntax);
        }
    }

    #[test]
    fn a_name_twice_is_refused_however_it_is_spelled_or_nested() {
        for document in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"b":1,"a":2,"b":3}"#,
            r#"[{"x":{"b":1,"a":2,"c":0,"a":3}}]"#,
            r#"{"\ud83d\ude00":1,"😀":2}"#,
            r#"{"":1,"":2}"#,
        ] {
            refused(document.as_bytes(), JsonErrorKind::DuplicateName);
        }
        check(r#"[{"a":1},{"a":1}]"#, r#"[{"a":1},{"a":1}]"#);
        check(r#"{"a":{"a":{"a":1}}}"#, r#"{"a":{"a":{"a":1}}}"#);
    }

    #[test]
    fn nesting_is_bounded_and_never_overflows_the_stack() {
        let nested = |levels: usize| [vec![b'['; levels], vec![b']'; levels]].concat();
        assert!(canonical_json(&nested(crate::limits::JSON_DEPTH_MAX)).is_ok());
        refused(&nested(crate::limits::JSON_DEPTH_MAX + 1), JsonErrorKind::TooDeep);
        refused(&vec![b'['; 10_000_000], JsonErrorKind::TooDeep);
        refused(&br#"{"a":"#.repeat(1_000_000), JsonErrorKind::TooDeep);
    }

    #[test]
    fn an_error_says_where_but_never_what() {
        let error = canonical_json(br#"{"password":"hunter2","password":"hunter3"}"#).unwrap_err();
        assert_eq!(error.to_string(), "a name occurs twice in one object, at byte 0");
        assert_eq!(canonical_json(b"[1, x]").unwrap_err().offset(), 4);
    }
}

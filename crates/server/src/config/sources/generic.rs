//! How a partner signs that Semel does not know by name: a table of its own, or a token in a header.

use semel_webhook::{Algorithm, Encoding, KeyEncoding, Scheme, SourceBuilder, Template, Unit};

use super::super::reader::Section;
use super::secrets::bare;

const ALGORITHMS: [(&str, Algorithm); 3] =
    [("sha256", Algorithm::HmacSha256), ("sha512", Algorithm::HmacSha512), ("sha1", Algorithm::HmacSha1)];
const ENCODINGS: [(&str, Encoding); 3] =
    [("hex", Encoding::Hex), ("base64", Encoding::Base64), ("base64url", Encoding::Base64Url)];
const KEYS: [(&str, KeyEncoding); 4] = [
    ("utf8", KeyEncoding::Utf8),
    ("hex", KeyEncoding::Hex),
    ("base64", KeyEncoding::Base64),
    ("base64url", KeyEncoding::Base64Url),
];
const UNITS: [(&str, Unit); 2] = [("s", Unit::Seconds), ("ms", Unit::Milliseconds)];

/// The builder with what the section says of signing; `None` where something of it cannot be read.
pub(super) fn signing(section: &Section<'_>, builder: SourceBuilder) -> Option<SourceBuilder> {
    let builder = match section.optional("scheme") {
        Some(table) => scheme(table, builder)?,
        None => builder,
    };
    let Some(table) = section.optional("token") else { return Some(builder) };
    if section.has("scheme") {
        section.problem("token", "is given beside `scheme`: a delivery is proved by one of them");
        return None;
    }
    let header = header(&table);
    let prefix = table.text_or("prefix", "");
    table.finish();
    Some(builder.token(&header?, &prefix))
}

fn header(table: &Section<'_>) -> Option<String> {
    let header = table.text("header");
    if header.is_none() && !table.has("header") {
        table.problem("header", "is missing: the header that proves where a delivery comes from");
    }
    header.map(|found| found.value)
}

fn scheme(table: Section<'_>, builder: SourceBuilder) -> Option<SourceBuilder> {
    let header = header(&table);
    let template = table.text_or("template", "{body}");
    let template = Template::parse(&template).map_err(|error| table.problem("template", bare(&error))).ok();
    let algorithm = table.choice_or("algorithm", &ALGORITHMS, ALGORITHMS[0]);
    let prefix = table.text_or("prefix", "");
    let encoding = table.choice_or("encoding", &ENCODINGS, ENCODINGS[0]);
    let keys = table.choice_or("key_encoding", &KEYS, KEYS[0]);
    let separator = table.text("separator").map(|found| found.value);
    let unit = table.choice_or("timestamp_unit", &UNITS, UNITS[0]);
    let stamp = table.text("timestamp_header").map(|found| found.value);
    let item = table.text("timestamp_prefix").map(|found| found.value);
    let both = stamp.is_some() && item.is_some();
    if both {
        table.problem("timestamp_prefix", "is given beside `timestamp_header`: there is one time stamp");
    }
    let one = |text: &String| {
        let mut all = text.chars();
        all.next().filter(|_| all.next().is_none())
    };
    let mark = separator.as_ref().and_then(one);
    let wrong = separator.is_some() && mark.is_none();
    if wrong {
        table.problem("separator", "must be one character, such as \",\"");
    }
    table.finish();
    let mut scheme = Scheme::new(&header?, template?).signature(&prefix, algorithm).encoding(encoding);
    if let Some(mark) = mark {
        scheme = scheme.separator(mark);
    }
    if let Some(header) = &stamp {
        scheme = scheme.timestamp_header(header, unit);
    } else if let Some(prefix) = &item {
        scheme = scheme.timestamp_item(prefix, unit);
    }
    (!both && !wrong).then(|| builder.scheme(scheme).key_encoding(keys))
}

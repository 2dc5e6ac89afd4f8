//! MongoDB's keys of `[store]`.

use semel_stores::mongodb::Options;

use super::Problem;
use crate::config::StoreConfig;

/// What the URL and the keys beside it say. Where both say the same thing, one of them would be ignored: that is refused.
pub(super) fn options(config: &StoreConfig) -> Result<Options, Vec<Problem>> {
    let url = config.url.expose();
    let timeout = config.connect_timeout.map(|length| length.as_millis().to_string());
    let keys = [
        ("pool", "maxPoolSize", config.pool.map(|size| size.to_string())),
        ("connect_timeout", "connectTimeoutMS", timeout),
    ];
    let mut problems = Vec::new();
    for (key, given) in [
        ("listen_url", config.listen_url.is_some()),
        ("statement_timeout", config.statement_timeout.is_some()),
    ] {
        if given {
            problems.push((key, format!("means nothing for `{}:`", config.url.scheme())));
        }
    }
    let mut whole = url.to_owned();
    for (key, word, value) in keys {
        let Some(value) = value else { continue };
        if says(url, word) {
            problems.push((key, format!("the URL says `{word}`, too; say it once")));
        }
        // The driver wants a `/` before the query, whether or not a database stands there.
        let bare = !url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        let and = if whole.contains('?') {
            "&"
        } else if bare {
            "/?"
        } else {
            "?"
        };
        whole.extend([and, word, "=", &value]);
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Options::parse(&whole).map_err(|error| vec![("url", error.to_string())])
}

fn says(url: &str, word: &str) -> bool {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    query.split('&').any(|pair| pair.split('=').next().is_some_and(|key| key.eq_ignore_ascii_case(word)))
}

//! PostgreSQL's keys of `[store]`.

use semel_stores::postgres::{InvalidUrl, Options};

use super::Problem;
use crate::config::StoreConfig;

/// What the URL and the keys beside it say. Where both say the same thing, one of them would be ignored: that is refused.
pub(super) fn options(config: &StoreConfig) -> Result<Options, Vec<Problem>> {
    let url = config.url.expose();
    let timeout = config.statement_timeout.map(|length| length.as_millis().to_string());
    let keys = [
        ("pool", "pool", config.pool.map(|size| size.to_string())),
        ("statement_timeout", "statement_timeout_ms", timeout),
    ];
    let mut problems = Vec::new();
    let mut whole = url.to_owned();
    for (key, word, value) in keys {
        let Some(value) = value else { continue };
        if says(url, word) {
            problems.push((key, format!("the URL says `{word}`, too; say it once")));
        }
        let and = if whole.contains('?') { "&" } else { "?" };
        whole.extend([and, word, "=", &value]);
    }
    if config.connect_timeout.is_some() && says(url, "connect_timeout") {
        problems.push(("connect_timeout", "the URL says `connect_timeout`, too; say it once".to_owned()));
    }
    let wrong = |key: &'static str| move |error: InvalidUrl| vec![(key, error.to_string())];
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut options = Options::parse(&whole).map_err(wrong("url"))?;
    if let Some(within) = config.connect_timeout {
        options = options.connect_timeout(within);
    }
    if let Some(listen) = &config.listen_url {
        if !matches!(listen.scheme(), "postgres" | "postgresql") {
            return Err(vec![("listen_url", "must begin with `postgres://`, too".to_owned())]);
        }
        options = options.listen_url(listen.expose()).map_err(wrong("listen_url"))?;
    }
    Ok(options)
}

fn says(url: &str, word: &str) -> bool {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    query.split('&').any(|pair| pair.split('=').next() == Some(word))
}

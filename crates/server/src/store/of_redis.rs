//! Redis's keys of `[store]`.

use semel_stores::redis::Options;

use super::Problem;
use crate::config::StoreConfig;

/// What the URL says. The keys beside it are of another kind of server; where Redis has the like, the URL has a word for it.
pub(super) fn options(config: &StoreConfig) -> Result<Options, Vec<Problem>> {
    let given = [
        ("listen_url", config.listen_url.is_some(), "nodes hear of each other over the URL itself"),
        ("pool", config.pool.is_some(), "say `connections` in the URL"),
        ("connect_timeout", config.connect_timeout.is_some(), "say `timeout_ms` in the URL"),
        ("statement_timeout", config.statement_timeout.is_some(), "say `timeout_ms` in the URL"),
    ];
    let problems: Vec<_> = given
        .into_iter()
        .filter(|(_, is_given, _)| *is_given)
        .map(|(key, _, instead)| (key, format!("means nothing for Redis; {instead}")))
        .collect();
    if !problems.is_empty() {
        return Err(problems);
    }
    Options::parse(config.url.expose()).map_err(|error| vec![("url", error.to_string())])
}

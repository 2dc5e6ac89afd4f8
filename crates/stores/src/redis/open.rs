//! What a server must be to keep records, what is said about it, and how a prefix is laid out.

use redis::{Value, cmd};

use super::database::{Database, bytes, items, one, text};
use super::error::{Failure, Kind};
use super::keys::{layout, slot};
use super::node::Node;
use super::options::Options;
use crate::limits;
use crate::remote::open::OpenError;

fn failed(message: &str, failure: Failure) -> OpenError {
    OpenError::because(message, failure.into_error(Kind::Read, "open"))
}

/// What a server says of itself.
struct Info(String);

impl Info {
    async fn of(node: &Node) -> Result<Self, OpenError> {
        let said = one(node, &cmd("INFO")).await;
        let said = said.map_err(|failure| failed("cannot connect to Redis", failure))?;
        Ok(Self(text(&said).unwrap_or_default()))
    }

    fn get(&self, name: &str) -> &str {
        let value = |line: &'_ str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'));
        let line = self.0.lines().find(|line| value(line)).unwrap_or_default();
        line.get(name.len() + 1..).unwrap_or_default().trim()
    }

    /// Such as 7.2.
    fn version(&self) -> (u32, u32) {
        let mut parts = self.get("redis_version").split('.').map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }
}

/// Looks at every server; what operators should know of them.
///
/// # Errors
/// One cannot be reached, is too old, or would throw records away.
pub(super) async fn examine(database: &Database, options: &Options) -> Result<Vec<String>, OpenError> {
    let info = Info::of(database.first()).await?;
    if info.get("cluster_enabled") == "1" {
        let no_map = |failure| failed("cannot read the map of the cluster", failure);
        database.use_cluster().await.map_err(no_map)?;
    }
    let mut warnings = Vec::new();
    if options.is_open_to_the_network() {
        warnings.push("what is sent to Redis is not encrypted: use rediss://".to_owned());
    }
    for node in database.servers() {
        let info = Info::of(&node).await?;
        refuse(&info, options)?;
        let mut say = |warning: String| {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        };
        warn_of(&info, options).into_iter().for_each(&mut say);
        synced(&node, &info).await.into_iter().for_each(&mut say);
    }
    Ok(warnings)
}

fn refuse(info: &Info, options: &Options) -> Result<(), OpenError> {
    if info.get("redis_mode") == "sentinel" {
        return Err(OpenError::new(
            "this is a Sentinel, which keeps no records: the URL must lead to the server that takes writes, such as by a \
             name that follows it",
        ));
    }
    let (major, minor) = info.version();
    if major < limits::REDIS_VERSION_MIN {
        let found = info.get("redis_version");
        return Err(OpenError::new(format!(
            "Redis has version `{found}`; {} or later is needed",
            limits::REDIS_VERSION_MIN
        )));
    }
    if options.wait.is_some_and(|wait| wait.synced) && (major, minor) < limits::REDIS_WAITAOF_VERSION {
        let found = info.get("redis_version");
        return Err(OpenError::new(format!(
            "`wait_aof` needs Redis 7.2 or later; this one has version `{found}`"
        )));
    }
    if options.wait.is_some_and(|wait| wait.synced) && info.get("aof_enabled") == "0" {
        return Err(OpenError::new(
            "`wait_aof` waits for a log that this Redis does not write: set `appendonly yes`",
        ));
    }
    let policy = info.get("maxmemory_policy");
    if policy.starts_with("allkeys") {
        return Err(OpenError::new(format!(
            "Redis has `maxmemory-policy {policy}` and would throw records away when its memory is full; \
             set it to `noeviction`"
        )));
    }
    Ok(())
}

fn warn_of(info: &Info, options: &Options) -> Vec<String> {
    let mut warnings = Vec::new();
    let policy = info.get("maxmemory_policy");
    if policy.starts_with("volatile") {
        warnings.push(format!(
            "Redis has `maxmemory-policy {policy}`: records have no time to live and are spared, but set it to \
             `noeviction`"
        ));
    }
    if info.get("aof_enabled") == "0" {
        warnings.push(
            "Redis has `appendonly no`: when it is started anew, it has lost what came after its last snapshot"
                .to_owned(),
        );
    }
    if !matches!(info.get("connected_slaves"), "" | "0") && options.wait.is_none() {
        warnings.push(
            "Redis has replicas, which follow behind: a failover loses claims that were granted; \
             `wait_replicas` makes that rarer"
                .to_owned(),
        );
    }
    warnings
}

/// What the server's log misses when the machine goes down. Where nobody may ask, nothing is said.
async fn synced(node: &Node, info: &Info) -> Option<String> {
    if info.get("aof_enabled") == "0" {
        return None;
    }
    let said = one(node, cmd("CONFIG").arg("GET").arg("appendfsync")).await.ok()?;
    let value = match &said {
        Value::Map(pairs) => pairs.first().and_then(|(_, value)| text(value))?,
        other => items(other).get(1).and_then(text)?,
    };
    (value != "always").then(|| {
        format!(
            "Redis has `appendfsync {value}`: when its machine goes down, the last second or more is lost"
        )
    })
}

/// The version of the layout that this program works with.
const LAYOUT: usize = 1;

/// How many shards a prefix has: as many as whoever opened it first has said.
///
/// # Errors
/// It was laid out otherwise, or the server takes no writes.
pub(super) async fn shards(database: &Database, options: &Options) -> Result<usize, OpenError> {
    let key = layout(&options.prefix);
    let slot = slot(key.as_bytes());
    let default = if database.is_cluster() { limits::REDIS_SHARDS_OF_CLUSTER } else { 1 };
    let wanted = options.shards.unwrap_or(default);
    for (field, value) in [("layout", LAYOUT), ("shards", wanted)] {
        let set = database.command(slot, cmd("HSETNX").arg(&key).arg(field).arg(value)).await;
        set.map_err(|failure| failed("Redis takes no writes", failure))?;
    }
    let found = database.command(slot, cmd("HMGET").arg(&key).arg("layout").arg("shards")).await;
    let found = found.map_err(|failure| failed("cannot read the layout", failure))?;
    let number = |at: usize| {
        let digits = items(&found).get(at).and_then(bytes)?;
        std::str::from_utf8(digits).ok()?.parse::<usize>().ok()
    };
    let prefix = &options.prefix;
    match (number(0), number(1)) {
        (Some(LAYOUT), Some(shards)) if (1..=limits::REDIS_SHARDS_MAX).contains(&shards) => {
            match options.shards.filter(|wanted| *wanted != shards) {
                Some(wanted) => Err(OpenError::new(format!(
                    "the prefix `{prefix}` has {shards} shards, not {wanted}; that cannot be changed"
                ))),
                None => Ok(shards),
            }
        }
        (Some(other), _) if other > LAYOUT => Err(OpenError::new(format!(
            "the prefix `{prefix}` has layout {other}, made by a newer program; this one knows {LAYOUT}"
        ))),
        _ => Err(OpenError::new(format!("the layout of the prefix `{prefix}` cannot be read"))),
    }
}

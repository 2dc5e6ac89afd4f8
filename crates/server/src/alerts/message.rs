//! What an alert says, and the record that delivers it.

use bytes::Bytes;
use semel_api::Time;
use semel_core::error::Invalid;
use semel_core::id::{Namespace, Subject, Tag, TagName, TagValue, Tenant};
use semel_core::outcome::{Header, Headers};
use semel_core::request::Input;
use semel_core::{Key, RecordId, Request, Scope, Timestamp};
use serde_json::json;

use crate::config::{ALERTS, AlertFormat, AlertKind, AlertsConfig};
use crate::engine::fingerprint;

/// The tenant of what belongs to nobody in particular.
const TENANT: &str = "default";

/// What is to be told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) service: &'a str,
    pub(super) kind: AlertKind,
    pub(super) source: &'a str,
    pub(super) count: u64,
    /// Whether there may be more than were counted.
    pub(super) or_more: bool,
    pub(super) record: Option<RecordId>,
    pub(super) since: Timestamp,
    pub(super) until: Timestamp,
}

impl Message<'_> {
    /// The record of it, in the time of this name: another one of the same kind and source in that time has its key.
    pub(super) fn request(&self, config: &AlertsConfig, window: &str) -> Result<Request, Invalid> {
        let operation = &config.operation;
        let key = self.key(window)?;
        let scope = Scope {
            namespace: Namespace::Webhook,
            tenant: Tenant::try_new(TENANT)?,
            subject: Some(Subject::try_new(ALERTS)?),
        };
        // Nodes that see different parts of one storm tell different counts, and all the same it is one alert.
        let fingerprint = fingerprint(ALERTS, json!(key.as_str()).to_string().as_bytes());
        let tag = |name: &str, value: &str| {
            Some(Tag { name: TagName::try_new(name).ok()?, value: TagValue::try_new(value).ok()? })
        };
        let tags = [tag("alert", self.kind.as_str()), tag("source", self.source)];
        let header = |name: &str, value: &str| Header {
            name: name.into(),
            value: Bytes::copy_from_slice(value.as_bytes()),
        };
        let headers = Headers::try_new(vec![
            header("content-type", "application/json"),
            header("semel-event-id", key.as_str()),
            header("semel-event-source", ALERTS),
        ])?;
        let input = Input::try_new("POST", "", headers, self.body(config.format).into())?;
        let request = Request::new(scope, key, operation.name.clone(), fingerprint, operation.policy);
        let request = request.try_with_tags(tags.into_iter().flatten().collect())?;
        Ok(request.in_lane(operation.lane.clone()).with_input(input))
    }

    fn key(&self, window: &str) -> Result<Key, Invalid> {
        let kind = self.kind.as_str();
        let source = self.source;
        let is_plain = source.bytes().all(|byte| byte.is_ascii_graphic());
        Key::try_new(&format!("{kind}/{source}/{window}")).ok().filter(|_| is_plain).map_or_else(
            || Key::try_new(&format!("{kind}/#{}/{window}", blake3::hash(source.as_bytes()).to_hex())),
            Ok,
        )
    }

    fn body(&self, format: AlertFormat) -> String {
        let time = |time: Timestamp| Time::from_millis(time.as_millis()).to_string();
        let (since, until) = (time(self.since), time(self.until));
        match format {
            AlertFormat::StandardWebhooks => {
                let mut data = json!({
                    "service": self.service,
                    "kind": self.kind.as_str(),
                    "source": self.source,
                    "count": self.count,
                    "since": since,
                    "until": until,
                    "text": self.text(),
                });
                if self.or_more {
                    data["orMore"] = json!(true);
                }
                if let Some(record) = self.record {
                    data["recordId"] = json!(record.to_string());
                }
                let kind = self.kind.as_str();
                json!({ "type": format!("semel.alert.{kind}"), "timestamp": until, "data": data }).to_string()
            }
            AlertFormat::Slack => {
                let record =
                    self.record.map(|record| format!(", first: record {record}")).unwrap_or_default();
                // What a name holds is text, and no link and no mention of anybody.
                let text = format!("[{}] {} since {since}{record}", self.service, self.text());
                let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                json!({ "text": text }).to_string()
            }
        }
    }

    /// In one sentence.
    fn text(&self) -> String {
        let (count, source) = (self.count, self.source);
        let s = if count == 1 { "" } else { "s" };
        let more = if self.or_more { " or more" } else { "" };
        match self.kind {
            AlertKind::Duplicates => format!("{count} duplicate{s}{more} at {source}"),
            AlertKind::Conflicts => {
                format!("{count} conflict{s}{more} at {source}: a known identity with another body")
            }
            AlertKind::DeadLetters => format!("{count} dead letter{s}{more} of {source}"),
            AlertKind::Circuits => {
                format!("the circuit of a target of {source} has opened, {count} time{s}{more}")
            }
            AlertKind::Unknown => format!("{count} unknown outcome{s}{more} of {source}"),
        }
    }
}

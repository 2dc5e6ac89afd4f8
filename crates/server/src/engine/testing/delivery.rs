//! Deliveries for tests: an operation that delivers, and events as a door takes them in.

use std::sync::Arc;

use bytes::Bytes;
use http::Uri;
use semel_core::command::Accept;
use semel_core::id::{Key, Lane, Namespace, Subject, Tag, TagName, TagValue, Tenant};
use semel_core::outcome::{Header, Headers};
use semel_core::policy::OnLapse;
use semel_core::request::{Fingerprint, Input};
use semel_core::{RecordId, Request, Scope};
use semel_webhook::{SecretValue, Signer, Statuses};

use super::{config, hasty_policy};
use crate::config::{DeliveryTarget, ORDER_TAG, OperationConfig, Target};

/// The secret of every target here.
pub(in crate::engine) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Delivers events of `billing` to this address, with tries ten milliseconds apart.
pub(in crate::engine) fn delivery(url: &Uri, ordered: bool) -> OperationConfig {
    let signer = Signer::try_new(&[SecretValue::new("main", SECRET)]).unwrap();
    let target = DeliveryTarget {
        source: "billing".into(),
        name: "default".into(),
        url: url.clone(),
        signer: Some(Arc::new(signer)),
        statuses: Statuses::permanent(&[422]),
        ordered,
    };
    let mut config = config(OnLapse::Resume, Target::Delivery(Arc::new(target)));
    config.policy = hasty_policy(OnLapse::Resume);
    config.name = semel_core::Operation::try_new("webhook:billing/default").unwrap();
    config.lane = Lane::try_new("webhook:billing/default").unwrap();
    config
}

fn scope() -> Scope {
    Scope {
        namespace: Namespace::Webhook,
        tenant: Tenant::try_new("default").unwrap(),
        subject: Some(Subject::try_new("billing/default").unwrap()),
    }
}

/// The record of the event with this name.
pub(in crate::engine) fn event_id(key: &str) -> RecordId {
    RecordId::of(&scope(), &Key::try_new(key).unwrap())
}

/// Takes an event in, of this value if its target keeps an order.
pub(in crate::engine) fn event(
    operation: &OperationConfig,
    key: &str,
    body: &'static [u8],
    order: Option<&str>,
) -> Accept {
    let header = |name: &str, value: &'static str| Header {
        name: name.into(),
        value: Bytes::from_static(value.as_bytes()),
    };
    let named = Header { name: "semel-event-id".into(), value: Bytes::copy_from_slice(key.as_bytes()) };
    let headers = Headers::try_new(vec![
        header("content-type", "application/json; charset=utf-8"),
        header("x-correlation-id", "c-1"),
        named,
        header("semel-event-source", "billing"),
    ]);
    let tag = |name: &str, value: &str| Tag {
        name: TagName::try_new(name).unwrap(),
        value: TagValue::try_new(value).unwrap(),
    };
    let mut tags = vec![tag("source", "billing"), tag("target", "default")];
    tags.extend(order.map(|value| tag(ORDER_TAG, value)));
    let digest = *blake3::hash(body).as_bytes();
    let request = Request::new(
        scope(),
        Key::try_new(key).unwrap(),
        operation.name.clone(),
        Fingerprint { version: 1, digest },
        operation.policy,
    );
    let input = Input::try_new("POST", "", headers.unwrap(), Bytes::from_static(body)).unwrap();
    let request = request.try_with_tags(tags).unwrap().in_lane(operation.lane.clone()).with_input(input);
    Accept::try_new(Arc::new(request)).unwrap()
}

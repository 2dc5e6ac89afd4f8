//! The reader of events, over whatever a message can hold.

use bytes::Bytes;
use proptest::prelude::*;
use semel_kafka::{CloudEvent, Identity, Message, Mode};

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        "[ -~]{0,64}".prop_map(String::into_bytes),
        Just(
            br#"{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"a":[1,2,{"b":null}]}}"#
                .to_vec()
        ),
        Just(br#"{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"AAE="}"#.to_vec()),
        Just(b"{\"id\":{}}".to_vec()),
        (1..2_000_usize).prop_map(|depth| "[".repeat(depth).into_bytes()),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("content-type".to_owned()),
        Just("Content-Type".to_owned()),
        "(ce_|CE_|Ce_)(id|source|type|specversion|ID|time|datacontenttype|é)?",
        "semel-dlq-(topic|group|partition|offset)",
        "\\PC{0,12}",
    ]
}

fn value() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![
        Just(None),
        Just(Some(b"1.0".to_vec())),
        Just(Some(b"application/cloudevents+json".to_vec())),
        Just(Some(b"Application/CloudEvents-Batch+json; charset=x".to_vec())),
        Just(Some(b"application/cloudevents\xff".to_vec())),
        bytes().prop_map(Some),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let headers = prop::collection::vec((name(), value()), 0..8);
    (headers, prop::option::of(bytes()), any::<i32>(), any::<i64>()).prop_map(
        |(headers, payload, partition, offset)| {
            let mut message = Message::new("orders", partition, offset);
            message.payload = payload.map(Bytes::from);
            message.headers =
                headers.into_iter().map(|(name, value)| (name.into(), value.map(Bytes::from))).collect();
            message
        },
    )
}

fn identities() -> [Identity; 5] {
    [
        Identity::SourceAndId,
        Identity::Id,
        Identity::Header("ce_id".to_owned()),
        Identity::Pointer("/id".to_owned()),
        Identity::Offset,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_and_an_event_has_all_that_it_needs(message in message()) {
        match CloudEvent::read(&message) {
            Ok(event) => {
                for required in [event.id(), event.source(), event.event_type(), event.spec_version()] {
                    prop_assert!(!required.is_empty());
                }
                prop_assert!(event.spec_version().starts_with("1."));
            }
            Err(malformed) => prop_assert!(!malformed.to_string().is_empty()),
        }
        for identity in identities() {
            // What has an identity has a key that is no other message's for want of anything.
            if let Ok(identified) = identity.of(&message, "group") {
                prop_assert!(!identified.key.as_str().is_empty());
                prop_assert_eq!(identity.of(&message, "group").unwrap(), identified);
            }
        }
    }

    #[test]
    fn an_event_that_is_written_reads_as_itself(
        [id, source, kind] in ["\\PC{1,40}", "\\PC{1,40}", "\\PC{1,40}"],
        extension in "\\PC{0,40}",
        data in prop::option::of(prop::collection::vec(any::<u8>(), 0..64)),
    ) {
        let mut event = CloudEvent::new(&id, &source, &kind).unwrap().with_attribute("tenant", &extension);
        if let Some(data) = data {
            event = event.with_data("application/octet-stream", data);
        }
        let message = event.to_message("orders");
        prop_assert_eq!(CloudEvent::read(&message).unwrap(), event.clone());
        let structured = Message::new("orders", 0, 0)
            .with_header("content-type", "application/cloudevents+json")
            .with_payload(event.to_structured());
        let read = CloudEvent::read(&structured).unwrap();
        prop_assert_eq!((read.id(), read.source(), read.event_type()), (event.id(), event.source(), event.event_type()));
        prop_assert_eq!((read.data(), read.attribute("tenant")), (event.data(), event.attribute("tenant")));
    }

    #[test]
    fn both_modes_have_one_identity(id in "\\PC{1,300}", source in "\\PC{1,300}") {
        let binary = CloudEvent::new(&id, &source, "placed").unwrap().to_message("orders");
        let json = serde_json::json!({ "specversion": "1.0", "id": id, "source": source, "type": "placed" });
        let structured = Message::new("orders", 0, 0)
            .with_header("Content-Type", "application/cloudevents+json; charset=utf-8")
            .with_payload(json.to_string());
        prop_assert_eq!(CloudEvent::read(&structured).unwrap().mode(), Mode::Structured);
        for identity in [Identity::SourceAndId, Identity::Id] {
            let key = |message| identity.of(message, "group").unwrap().key;
            prop_assert_eq!(key(&binary), key(&structured));
        }
    }
}

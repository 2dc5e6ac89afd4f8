//! What breaks a client when one OpenAPI document takes the place of another.
//!
//! Removed or renamed: paths, methods, parameters, statuses, media types, properties, values of an enumeration.
//! Changed: types and formats. Newly required of a request; no longer promised in a response. Whatever is only added
//! passes.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Whose hands a schema is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// The client writes it: nothing may become required, nothing may be refused that was taken.
    Request,
    /// The client reads it: nothing may be missing that was promised.
    Response,
}

/// What breaks, each as a place and what happened there.
pub(crate) fn breaking(old: &Value, new: &Value) -> Vec<String> {
    let mut differ = Differ { old, new, found: Vec::new(), visited: BTreeSet::new() };
    for (path, methods) in object(&old["paths"]) {
        for (method, before) in object(methods) {
            let place = format!("{} {path}", method.to_uppercase());
            match new["paths"][path].get(method) {
                Some(after) => differ.operation(&place, before, after),
                None => differ.say(&place, "was removed"),
            }
        }
    }
    differ.found
}

struct Differ<'a> {
    old: &'a Value,
    new: &'a Value,
    found: Vec<String>,
    /// Pairs of references that were compared, so that a schema that holds itself ends.
    visited: BTreeSet<(String, String, bool)>,
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn texts(value: &Value) -> BTreeSet<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn resolve<'v>(document: &'v Value, schema: &'v Value) -> &'v Value {
    match schema["$ref"].as_str().and_then(|at| document.pointer(at.trim_start_matches('#'))) {
        Some(target) => resolve(document, target),
        None => schema,
    }
}

impl<'a> Differ<'a> {
    fn say(&mut self, place: &str, what: impl AsRef<str>) {
        self.found.push(format!("{place}: {}", what.as_ref()));
    }

    fn operation(&mut self, place: &str, before: &'a Value, after: &'a Value) {
        self.parameters(place, before, after);
        let (body_before, body_after) = (&before["requestBody"], &after["requestBody"]);
        if body_after["required"] == true && body_before["required"] != true {
            self.say(place, "the body became required");
        }
        self.content(
            &format!("{place} request"),
            &body_before["content"],
            &body_after["content"],
            Side::Request,
        );
        for (status, response) in object(&before["responses"]) {
            let place = format!("{place} {status}");
            let Some(now) = after["responses"].get(status) else {
                self.say(&place, "was removed");
                continue;
            };
            self.content(&place, &response["content"], &now["content"], Side::Response);
            for (name, _) in object(&response["headers"]) {
                if now["headers"].get(name).is_none() {
                    self.say(&format!("{place} header {name}"), "was removed");
                }
            }
        }
    }

    fn parameters(&mut self, place: &str, before: &'a Value, after: &'a Value) {
        let list = |operation: &'a Value| operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
        let same = |one: &Value, other: &Value| one["name"] == other["name"] && one["in"] == other["in"];
        for parameter in list(before) {
            let place = format!("{place} parameter {}", parameter["name"].as_str().unwrap_or("?"));
            match list(after).iter().find(|now| same(parameter, now)) {
                None => self.say(&place, "was removed"),
                Some(now) => {
                    if now["required"] == true && parameter["required"] != true {
                        self.say(&place, "became required");
                    }
                    self.schema(&place, &parameter["schema"], &now["schema"], Side::Request);
                }
            }
        }
        for now in list(after) {
            if now["required"] == true && !list(before).iter().any(|parameter| same(parameter, now)) {
                let name = now["name"].as_str().unwrap_or("?");
                self.say(&format!("{place} parameter {name}"), "is new and required");
            }
        }
    }

    fn content(&mut self, place: &str, before: &'a Value, after: &'a Value, side: Side) {
        for (media, content) in object(before) {
            match after.get(media) {
                None => self.say(place, format!("{media} was removed")),
                Some(now) => self.schema(place, &content["schema"], &now["schema"], side),
            }
        }
    }

    fn schema(&mut self, place: &str, before: &'a Value, after: &'a Value, side: Side) {
        if let (Some(from), Some(to)) = (before["$ref"].as_str(), after["$ref"].as_str())
            && !self.visited.insert((from.to_owned(), to.to_owned(), side == Side::Request))
        {
            return;
        }
        let (before, after) = (resolve(self.old, before), resolve(self.new, after));
        self.kind(place, before, after, side);
        self.values(place, before, after, side);
        self.properties(place, before, after, side);
        for part in ["items", "additionalProperties"] {
            if before[part].is_object() {
                self.schema(&format!("{place}[]"), &before[part], &after[part], side);
            }
        }
        for several in ["allOf", "oneOf", "anyOf"] {
            let list = |schema: &'a Value| schema[several].as_array().map_or(&[][..], Vec::as_slice);
            for (number, (was, is)) in list(before).iter().zip(list(after)).enumerate() {
                self.schema(&format!("{place} {several}[{number}]"), was, is, side);
            }
            if list(after).len() < list(before).len() {
                self.say(place, format!("a part of {several} was removed"));
            }
        }
    }

    fn kind(&mut self, place: &str, before: &Value, after: &Value, side: Side) {
        let kinds = |schema: &Value| match &schema["type"] {
            Value::String(one) => BTreeSet::from([one.clone()]),
            several => texts(several).into_iter().map(str::to_owned).collect(),
        };
        let (was, is) = (kinds(before), kinds(after));
        // Without a type anything goes: a request that takes it may, a response that says it may not.
        let fits = match side {
            Side::Request => is.is_empty() || (!was.is_empty() && was.is_subset(&is)),
            Side::Response => was.is_empty() || (!is.is_empty() && is.is_subset(&was)),
        };
        if !fits {
            self.say(place, format!("the type changed from {was:?} to {is:?}"));
        } else if before["format"] != after["format"] {
            self.say(place, format!("the format changed from {} to {}", before["format"], after["format"]));
        }
        for (limit, tighter) in [("maxLength", -1), ("maximum", -1), ("minLength", 1), ("minimum", 1)] {
            let (was, is) = (before[limit].as_f64(), after[limit].as_f64());
            let tightened = match (was, is) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(was), Some(is)) => (is - was) * f64::from(tighter) > 0.0,
            };
            if side == Side::Request && tightened {
                self.say(place, format!("{limit} became tighter"));
            }
        }
    }

    fn values(&mut self, place: &str, before: &Value, after: &Value, side: Side) {
        let (was, is) = (texts(&before["enum"]), texts(&after["enum"]));
        let missing: Vec<&&str> = was.iter().filter(|value| !is.contains(*value)).collect();
        if !missing.is_empty() && !is.is_empty() {
            self.say(place, format!("the values {missing:?} were removed"));
        }
        if side == Side::Request && was.is_empty() && !is.is_empty() {
            self.say(place, "only some values are taken now");
        }
    }

    fn properties(&mut self, place: &str, before: &'a Value, after: &'a Value, side: Side) {
        for (name, property) in object(&before["properties"]) {
            let place = format!("{place}.{name}");
            match after["properties"].get(name) {
                None => self.say(&place, "was removed"),
                Some(now) => self.schema(&place, property, now, side),
            }
        }
        let (was, is) = (texts(&before["required"]), texts(&after["required"]));
        match side {
            Side::Request => {
                for name in is.difference(&was) {
                    self.say(&format!("{place}.{name}"), "became required");
                }
            }
            Side::Response => {
                for name in was.difference(&is).filter(|name| after["properties"].get(**name).is_some()) {
                    self.say(&format!("{place}.{name}"), "is no longer always there");
                }
            }
        }
    }
}

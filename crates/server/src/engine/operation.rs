//! What can be run: a configured operation in the form that the engine uses.

use std::collections::HashMap;
use std::sync::Arc;

use semel_core::id::{Lane, Tag, TagValue};
use semel_core::policy::{OnLapse, Policy};
use serde_json::Value;

use crate::config::{OperationConfig, Target};

/// One operation.
#[derive(Debug)]
pub(crate) struct Operation {
    config: OperationConfig,
}

impl Operation {
    /// The operation as it is configured.
    pub(crate) const fn new(config: OperationConfig) -> Self {
        Self { config }
    }

    /// As it is configured.
    pub(crate) const fn config(&self) -> &OperationConfig {
        &self.config
    }

    /// Its name.
    pub(crate) const fn name(&self) -> &semel_core::Operation {
        &self.config.name
    }

    /// What holds for its records.
    pub(crate) const fn policy(&self) -> &Policy {
        &self.config.policy
    }

    /// The queue of its due records.
    pub(crate) const fn lane(&self) -> &Lane {
        &self.config.lane
    }

    /// What does it.
    pub(crate) const fn target(&self) -> &Target {
        &self.config.target
    }

    /// Whether somebody else goes on where an attempt was lost.
    pub(super) fn resumes(&self) -> bool {
        self.config.policy.on_lapse() == OnLapse::Resume
    }

    /// The tags that this payload gives a record. What is not there, or is no short text, number or boolean, gives
    /// none: tags are for finding, and no reason to refuse.
    pub(crate) fn tags_of(&self, payload: &[u8]) -> Vec<Tag> {
        if self.config.tags.is_empty() {
            return Vec::new();
        }
        let Ok(payload) = serde_json::from_slice::<Value>(payload) else { return Vec::new() };
        let tag = |(name, pointer): &(_, String)| {
            let text = match payload.pointer(pointer)? {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Bool(flag) => flag.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => return None,
            };
            Some(Tag { name: Clone::clone(name), value: TagValue::try_new(&text).ok()? })
        };
        self.config.tags.iter().filter_map(tag).collect()
    }
}

/// All operations, by name.
#[derive(Debug, Default)]
pub(super) struct Operations(HashMap<Box<str>, Arc<Operation>>);

impl Operations {
    /// The operations that are configured.
    pub(super) fn new(configured: &[OperationConfig]) -> Self {
        let named = |config: &OperationConfig| {
            (config.name.as_str().into(), Arc::new(Operation::new(config.clone())))
        };
        Self(configured.iter().map(named).collect())
    }

    /// The operation of that name.
    pub(super) fn get(&self, name: &str) -> Option<Arc<Operation>> {
        self.0.get(name).cloned()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Operation>> {
        self.0.values()
    }
}

//! What can be run: a configured operation in the form that the engine uses.

use std::collections::HashMap;
use std::sync::Arc;

use semel_core::Record;
use semel_core::id::{Lane, Tag, TagName, TagValue};
use semel_core::policy::{OnLapse, Policy};

use super::payload;
use crate::config::{OperationConfig, Target};

/// One operation.
#[derive(Debug)]
pub(crate) struct Operation {
    config: OperationConfig,
    #[cfg(test)]
    script: Option<super::testing::Script>,
}

impl Operation {
    /// The operation as it is configured.
    pub(crate) const fn new(config: OperationConfig) -> Self {
        Self {
            config,
            #[cfg(test)]
            script: None,
        }
    }

    /// As it is configured, but with work that a test wants.
    #[cfg(test)]
    pub(super) const fn scripted(config: OperationConfig, script: super::testing::Script) -> Self {
        Self { config, script: Some(script) }
    }

    /// The work that a test wants.
    #[cfg(test)]
    pub(super) const fn script(&self) -> Option<&super::testing::Script> {
        self.script.as_ref()
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

    /// The key that the target is sent with every try of this record.
    pub(super) fn target_key(&self, record: &Record) -> String {
        if self.config.forward_key {
            record.request().key().as_str().to_owned()
        } else {
            record.id().downstream_key(None)
        }
    }

    /// Whether somebody else goes on where an attempt of a new record is lost.
    pub(super) fn resumes(&self) -> bool {
        self.config.policy.on_lapse() == OnLapse::Resume
    }

    /// The tags that this payload gives a record. What is not there, or is no short text, number or boolean, gives
    /// none: tags are for finding, and no reason to refuse.
    pub(crate) fn tags_of(&self, payload: &[u8]) -> Vec<Tag> {
        if self.config.tags.is_empty() {
            return Vec::new();
        }
        let tag = |(name, pointer): &(TagName, String)| {
            let value = TagValue::try_new(&payload::pointed_at(payload, pointer)?).ok()?;
            Some(Tag { name: name.clone(), value })
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

    /// These operations.
    #[cfg(test)]
    pub(super) fn of(operations: Vec<Operation>) -> Self {
        Self(operations.into_iter().map(|one| (one.name().as_str().into(), Arc::new(one))).collect())
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

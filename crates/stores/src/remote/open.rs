//! Why a store over a network does not open: its URL says what cannot be, or its server is not as it should be, and then
//! whether somebody who waits may see it open.

use std::error::Error;
use std::fmt;

use semel_core::StoreError;

/// A URL that says something else than it should. Nothing of the URL itself is in it: that holds a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidUrl(String);

impl InvalidUrl {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for InvalidUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for InvalidUrl {}

/// Why a store does not open.
#[derive(Debug)]
pub struct OpenError {
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl OpenError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }

    pub(crate) fn because(
        message: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { message: message.into(), source: Some(source.into()) }
    }

    /// Whether the same can succeed later without anybody changing something here: the server is not there yet, starts, or
    /// takes no writes for now. A wrong password, a missing database or a schema of a newer program stay as they are.
    pub fn retry_helps(&self) -> bool {
        self.causes()
            .find_map(|cause| cause.downcast_ref::<StoreError>())
            .is_some_and(StoreError::retry_helps)
    }

    /// What lies behind it, the nearest first.
    pub(crate) fn causes(&self) -> impl Iterator<Item = &(dyn Error + 'static)> {
        std::iter::successors(self.source(), |cause| (*cause).source())
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        // What an operator needs is at the bottom: what the server says, or what is wrong with its certificate.
        match self.causes().last() {
            Some(bottom) => write!(f, ": {bottom}"),
            None => Ok(()),
        }
    }
}

impl Error for OpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_is_at_the_bottom_and_whether_waiting_helps() {
        let refused = || std::io::Error::other("connection refused");
        let of = |retry_helps| {
            let store =
                StoreError::not_applied("open", retry_helps, "nobody answered").with_source(refused());
            OpenError::because("cannot connect", store)
        };
        assert_eq!(of(true).to_string(), "cannot connect: connection refused");
        assert!(of(true).retry_helps() && !of(false).retry_helps());
        assert!(!OpenError::new("the encoding must be UTF8").retry_helps());
        assert!(
            !OpenError::because("cannot read the certificates", refused()).retry_helps(),
            "a file of ours"
        );
    }
}

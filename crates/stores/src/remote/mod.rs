//! What the stores over a network share, whatever they talk to: [`calls`] what is due and who waits · [`draft`] writes as what a
//! back end is given · `kept` a
//! record as a server keeps it · [`open`] why a store does not open · [`pages`] of a list · [`time`] the back end's clock, as far as it is known here · [`wake`]
//! waiters of this node.

pub(crate) mod calls;
pub(crate) mod draft;
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) mod kept;
pub(crate) mod open;
pub(crate) mod pages;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod time;
pub(crate) mod wake;

/// Whether a command changes something: only then is there a doubt when it has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
}

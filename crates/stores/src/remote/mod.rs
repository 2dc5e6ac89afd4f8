//! What the stores over a network share, whatever they talk to: [`draft`] writes as what a back end is given · [`time`] the
//! back end's clock, as far as it is known here · [`wake`] waiters of this node.

pub(crate) mod draft;
pub(crate) mod time;
pub(crate) mod wake;

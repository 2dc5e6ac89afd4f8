//! Between door and ledger: claims, runs the work apart from the connection, settles.

mod ask;

pub use ask::{Ask, EngineError, EngineErrorKind, Execution};

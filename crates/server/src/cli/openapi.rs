//! `semel openapi`: the OpenAPI document, for generators and reviews.

use std::io::Write as _;

use super::{exit, fail};

pub(super) fn openapi() -> u8 {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(semel_api::openapi::document().as_bytes()).and_then(|()| out.flush());
    match written {
        Ok(()) => exit::DONE,
        Err(error) => fail(exit::FAILED, format!("cannot write: {error}")),
    }
}

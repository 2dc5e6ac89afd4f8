//! Random bits, from the operating system by way of a generator that nobody can predict.

use rand::Rng;
use semel_core::Token;
use semel_core::ledger::Entropy;

/// Tokens from a generator for secrets, one for each thread, seeded by the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn token(&self) -> Token {
        Token::from_bytes(rand::rng().random())
    }
}

/// A random part of `u64::MAX`, for jitter.
pub fn jitter() -> u64 {
    rand::rng().random()
}

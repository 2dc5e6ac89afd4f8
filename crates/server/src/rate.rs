//! How often somebody may come: a bucket of tokens, and what is said about it.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use http::{HeaderMap, HeaderName, HeaderValue};
use semel_api::{ApiError, ErrorCode};

use crate::config::RateLimit;

pub(crate) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(crate) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

type Bucket = RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>;

/// A bucket, and what is said about it. A clone is the same bucket.
#[derive(Clone)]
pub(crate) struct Limit {
    rate: RateLimit,
    /// Whom it is for, as the headers have it.
    whose: &'static str,
    bucket: Arc<Bucket>,
    policy: HeaderValue,
}

impl Limit {
    /// A full bucket; `None` for a rate of nothing, which cannot be configured.
    pub(crate) fn new(rate: RateLimit, whose: &'static str) -> Option<Self> {
        let per_second = NonZeroU32::new(rate.requests_per_second)?;
        let quota = Quota::per_second(per_second).allow_burst(NonZeroU32::new(rate.burst)?);
        let bucket = RateLimiter::direct(quota).with_middleware::<StateInformationMiddleware>();
        let window = rate.burst.div_ceil(rate.requests_per_second);
        let policy = HeaderValue::from_str(&format!("\"{whose}\";q={};w={window}", rate.burst)).ok()?;
        Some(Self { rate, whose, bucket: Arc::new(bucket), policy })
    }

    /// How it is filled.
    pub(crate) const fn rate(&self) -> RateLimit {
        self.rate
    }

    /// Takes one from the bucket; what is to be said about it goes into `told`.
    ///
    /// # Errors
    /// The bucket is empty.
    pub(crate) fn admit(&self, told: &mut HeaderMap) -> Result<(), ApiError> {
        told.insert(RATE_LIMIT_POLICY, self.policy.clone());
        let (remaining, wait) = match self.bucket.check() {
            Ok(snapshot) => (snapshot.remaining_burst_capacity(), None),
            Err(until) => (0, Some(until.wait_time_from(DefaultClock::default().now()))),
        };
        // One more is there after one part of a second, or the wait; whole seconds are all the header can say.
        let seconds = wait.map_or(1, |wait| wait.as_secs() + 1);
        if let Ok(value) = HeaderValue::from_str(&format!("\"{}\";r={remaining};t={seconds}", self.whose)) {
            told.insert(RATE_LIMIT, value);
        }
        match wait {
            None => Ok(()),
            Some(wait) => {
                let wait = wait.max(Duration::from_millis(1));
                Err(ApiError::new(ErrorCode::RateLimited).with_retry_after(wait))
            }
        }
    }
}

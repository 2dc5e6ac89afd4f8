//! Profiles: one word sets a consistent group of rules, and every rule can be overridden.

use http::Method;
use semel_api::Form;
use semel_core::policy::Keep;

use crate::key::KeyAlphabet;

/// A consistent group of rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    /// The IETF's draft (draft-ietf-httpapi-idempotency-key-header-07), and what this project would do by itself.
    #[default]
    Ietf,
    /// As the clients of the WMS guide expect it: flat errors, an optional key, replays of a success as 200.
    Wms,
    /// As Stripe's clients expect it: POST only, everything kept that has begun, a mismatch is 400.
    Stripe,
    /// As the Agentic Commerce Protocol has it: POST only, the key is required, its own error codes.
    Acp,
}

/// The status of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplayStatus {
    /// That of the first answer.
    Original,
    /// 200 where the first answer was any success, else that of the first answer.
    Ok,
}

/// The names of codes in errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codes {
    /// Those of the catalogue.
    Catalogue,
    /// Those of the Agentic Commerce Protocol, where it has one.
    Acp,
}

/// What a profile says.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a rule that is configured by its own")]
pub(crate) struct Row {
    pub(crate) methods: &'static [Method],
    pub(crate) alphabet: KeyAlphabet,
    pub(crate) require_key: bool,
    pub(crate) mismatch_status: u16,
    pub(crate) keep: Keep,
    pub(crate) replay_status: ReplayStatus,
    pub(crate) form: Form,
    pub(crate) codes: Codes,
    /// Whether the service's name is part of the scope, beside the tenant and the caller.
    pub(crate) scope_service: bool,
    /// Whether the path is.
    pub(crate) scope_path: bool,
    /// Whether answers repeat the key.
    pub(crate) echo_key: bool,
}

const MUTATING: &[Method] = &[Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
const POST: &[Method] = &[Method::POST];

impl Profile {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ietf, Self::Wms, Self::Stripe, Self::Acp];

    /// The name in configurations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ietf => "ietf",
            Self::Wms => "wms",
            Self::Stripe => "stripe",
            Self::Acp => "acp",
        }
    }

    /// The profile of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.as_str() == name)
    }

    pub(crate) const fn row(self) -> Row {
        let ietf = Row {
            methods: MUTATING,
            alphabet: KeyAlphabet::Printable,
            require_key: false,
            mismatch_status: 422,
            keep: Keep::Deterministic,
            replay_status: ReplayStatus::Original,
            form: Form::Problem,
            codes: Codes::Catalogue,
            scope_service: false,
            scope_path: false,
            echo_key: false,
        };
        match self {
            Self::Ietf => ietf,
            Self::Wms => Row {
                alphabet: KeyAlphabet::Token,
                replay_status: ReplayStatus::Ok,
                form: Form::Flat,
                scope_service: true,
                ..ietf
            },
            Self::Stripe => Row {
                methods: POST,
                alphabet: KeyAlphabet::PrintableBare,
                mismatch_status: 400,
                keep: Keep::Everything,
                form: Form::Envelope,
                ..ietf
            },
            Self::Acp => Row {
                methods: POST,
                alphabet: KeyAlphabet::PrintableBare,
                require_key: true,
                keep: Keep::AllButServerErrors,
                form: Form::Envelope,
                codes: Codes::Acp,
                scope_path: true,
                echo_key: true,
                ..ietf
            },
        }
    }
}

/// Statuses that say "not now" or "not you" and not "no": another try may end otherwise.
const PASSING: [u16; 7] = [401, 407, 408, 409, 423, 425, 429];
/// Statuses of a request that failed before anything began.
const INVALID: [u16; 2] = [400, 422];

/// Whether a reply of this status, received whole, is kept.
pub(crate) fn keeps(keep: Keep, status: u16) -> bool {
    match keep {
        Keep::Everything => !INVALID.contains(&status),
        // The two differ for work that a server runs; of replies both keep what would come again.
        Keep::Deterministic | Keep::AllButServerErrors => status < 500 && !PASSING.contains(&status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_would_come_again_and_under_stripe_all_that_began() {
        for status in 200..=599 {
            let usual = match status {
                401 | 407 | 408 | 409 | 423 | 425 | 429 => false,
                _ => status < 500,
            };
            for profile in [Profile::Ietf, Profile::Wms, Profile::Acp] {
                assert_eq!(keeps(profile.row().keep, status), usual, "{status} under {}", profile.as_str());
            }
            assert_eq!(keeps(Profile::Stripe.row().keep, status), !matches!(status, 400 | 422), "{status}");
        }
    }

    #[test]
    fn a_profile_is_found_by_its_name() {
        for profile in Profile::ALL {
            assert_eq!(Profile::parse(profile.as_str()), Some(profile));
        }
        assert_eq!(Profile::parse("IETF"), None);
    }
}

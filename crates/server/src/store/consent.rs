//! *At most once* rests on claims that outlive what may happen to the store. Where they may not, an operator has to say
//! that this is known (`store.accept_claim_loss`).

use std::fmt;

use semel_core::policy::OnLapse;

use crate::config::Config;

/// *At most once* was asked for, on a store that may lose acknowledged claims, and nobody has consented.
#[derive(Debug)]
pub(crate) struct ClaimLoss {
    what: Vec<String>,
}

impl fmt::Display for ClaimLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a failover of the store may lose claims that were granted, and at most once would not hold for {}; \
             store.accept_claim_loss = true says that this is known, and semantics = \"resume\" does without it",
            self.what.join(", ")
        )
    }
}

impl std::error::Error for ClaimLoss {}

/// Whether *at most once* may be promised at all: the store keeps its claims, or an operator has consented.
///
/// # Errors
/// The configuration promises it, and may not.
pub(crate) fn at_most_once(config: &Config, survives_failover: bool) -> Result<bool, ClaimLoss> {
    // Whoever writes `memory:` has said that all of it may go.
    if survives_failover || config.store.accept_claim_loss || config.store.url.scheme() == "memory" {
        return Ok(true);
    }
    let once = OnLapse::AtMostOnce;
    let operations = config.operations.iter().filter(|operation| operation.policy.on_lapse() == once);
    let mut what: Vec<_> = operations.map(|operation| format!("operation {}", operation.name)).collect();
    if config.server.claims.on_lapse() == once {
        what.push("server.claims".to_owned());
    }
    if let Some(gateway) = &config.gateway {
        if gateway.usual.is_protected_at_most_once() {
            what.push("gateway".to_owned());
        }
        let routes = gateway.routes.iter().filter(|route| route.rules.is_protected_at_most_once());
        what.extend(routes.map(|route| format!("gateway route {}", route.name)));
    }
    if what.is_empty() { Ok(false) } else { Err(ClaimLoss { what }) }
}

//! Which route and which upstream a request goes to.

use std::sync::Arc;

use http::Method;

use super::GatewayError;
use super::guard::{Guard, Rule};
use super::upstream::{Connector, Upstream};
use crate::config::gateway::{GatewayConfig, RouteConfig, RouteRules, UpstreamConfig};
use crate::telemetry::metrics::{Metrics, OperationMetrics, RouteKeys};

/// The name of what no route matches, in metrics and logs.
const UNMATCHED: &str = "(unmatched)";

/// All routes and upstreams of one reading of the configuration.
pub(super) struct Table {
    pub(super) config: GatewayConfig,
    upstreams: Vec<Arc<Upstream>>,
    routes: Vec<Route>,
    unmatched: Route,
}

/// What holds for some requests.
pub(super) struct Route {
    matches: Option<RouteConfig>,
    /// Where it leads, if that does not depend on host and path.
    upstream: Option<Arc<Upstream>>,
    pub(super) name: Arc<str>,
    pub(super) rules: Arc<RouteRules>,
    /// The contract, where there is one.
    pub(super) rule: Option<Rule>,
    pub(super) metrics: Arc<OperationMetrics>,
    pub(super) keys: RouteKeys,
}

impl Table {
    /// A table as it is configured. Upstreams of the table before, whose configuration has not changed, stay, with
    /// their connections and what is known of them.
    ///
    /// # Errors
    /// A contract is beyond the limits of its layer, or a certificate for an upstream cannot be used.
    pub(super) fn new(
        config: &GatewayConfig,
        connector: &Arc<Connector>,
        guard: &Guard,
        before: Option<&Self>,
        metrics: &Metrics,
    ) -> Result<Self, GatewayError> {
        let kept = |config: &UpstreamConfig| {
            let upstreams = before.map_or(&[][..], |before| &before.upstreams[..]);
            upstreams.iter().find(|upstream| upstream.config() == config).cloned()
        };
        let start = |config: &UpstreamConfig| {
            let own = config.tls.as_ref().map(|own| connector.with(own)).transpose();
            let own = own.map_err(GatewayError::Trust)?;
            Ok(Upstream::start(config, own.as_ref().unwrap_or(connector), metrics))
        };
        let upstreams = config.upstreams.iter().map(|config| kept(config).map_or_else(|| start(config), Ok));
        let upstreams: Vec<_> = upstreams.collect::<Result<_, GatewayError>>()?;
        let names = config.routes.iter().map(|route| route.name.as_str()).chain([UNMATCHED]);
        metrics.configured_names(names);
        let route = |name: &str, rules: &RouteRules, matches: Option<&RouteConfig>| {
            let wanted = matches.and_then(|route| route.upstream.as_ref());
            let by_name = |wanted: &String| {
                upstreams.iter().find(|upstream| upstream.config().name == *wanted).cloned()
            };
            Ok(Route {
                upstream: wanted.and_then(by_name),
                name: name.into(),
                rule: guard
                    .rule(name, matches.map(|route| route.name.as_str()), rules)
                    .map_err(GatewayError::Contract)?,
                rules: Arc::new(rules.clone()),
                metrics: metrics.operation(name),
                keys: metrics.gateway().keys(name),
                matches: matches.cloned(),
            })
        };
        let routes = config.routes.iter().map(|config| route(&config.name, &config.rules, Some(config)));
        Ok(Self {
            routes: routes.collect::<Result<_, GatewayError>>()?,
            unmatched: route(UNMATCHED, &config.usual, None)?,
            config: config.clone(),
            upstreams,
        })
    }

    /// The route of a request, and its upstream, if there is one for it.
    pub(super) fn find(&self, method: &Method, host: &str, path: &str) -> (&Route, Option<&Arc<Upstream>>) {
        let matching = |route: &&Route| {
            route.matches.as_ref().is_some_and(|config| {
                config.host.as_ref().is_none_or(|pattern| pattern.matches(host))
                    && config.pattern.matches(method, path)
            })
        };
        let route = self.routes.iter().find(matching).unwrap_or(&self.unmatched);
        let upstream = route.upstream.as_ref().or_else(|| self.upstream(host, path));
        (route, upstream)
    }

    /// The upstream for a host and path: one that names the host before one that does not, the longest path of
    /// those, and the first of what is left.
    fn upstream(&self, host: &str, path: &str) -> Option<&Arc<Upstream>> {
        if let [only] = &self.upstreams[..]
            && only.config().hosts.is_empty()
            && only.config().paths.is_empty()
        {
            return Some(only);
        }
        let rank = |upstream: &Arc<Upstream>| {
            let config = upstream.config();
            let host = match &config.hosts[..] {
                [] => false,
                hosts => hosts.iter().any(|pattern| pattern.matches(host)).then_some(true)?,
            };
            let path = match &config.paths[..] {
                [] => 0,
                paths => {
                    let below = |prefix: &&String| is_below(path, prefix);
                    paths.iter().filter(below).map(|prefix| prefix.len() + 1).max()?
                }
            };
            Some((host, path))
        };
        let ranked = self.upstreams.iter().enumerate().filter_map(|(place, upstream)| {
            rank(upstream).map(|rank| ((rank, std::cmp::Reverse(place)), upstream))
        });
        ranked.max_by_key(|(rank, _)| *rank).map(|(_, upstream)| upstream)
    }
}

/// Whether a path is this one, or below it.
fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::testing::config_of;

    fn table(text: &str) -> Table {
        let config = config_of(text);
        let connector = Connector::new(&config.targets).unwrap();
        let metrics = Metrics::new("semel", []);
        let guard = crate::gateway::testing::guard(&config, &metrics);
        Table::new(config.gateway.as_ref().unwrap(), &connector, &guard, None, &metrics).unwrap()
    }

    #[tokio::test]
    async fn the_first_route_that_matches_counts_and_the_upstream_that_says_most() {
        let table = table(
            r#"
[gateway]
upstream = "http://127.0.0.1:1"
[[gateway.upstreams]]
name = "orders"
url = "http://127.0.0.1:2"
paths = ["/orders"]
[[gateway.upstreams]]
name = "archive"
url = "http://127.0.0.1:3"
paths = ["/orders/archive"]
[[gateway.upstreams]]
name = "partner"
url = "http://127.0.0.1:4"
hosts = ["*.partner.example"]
[[gateway.routes]]
match = "POST /orders/{id}/pay"
[[gateway.routes]]
match = "/orders/{*rest}"
upstream = "partner"
"#,
        );
        let check = |method: Method, host: &str, path: &str, expected: (&str, &str)| {
            let (route, upstream) = table.find(&method, host, path);
            let upstream = upstream.map_or("none", |upstream| upstream.config().name.as_str());
            assert_eq!((&*route.name, upstream), expected, "{method} {host}{path}");
        };
        check(Method::POST, "a", "/orders/7/pay", ("POST /orders/{id}/pay", "orders"));
        check(Method::POST, "x.partner.example", "/orders/7/pay", ("POST /orders/{id}/pay", "partner"));
        check(Method::GET, "a", "/orders/7/pay", ("/orders/{*rest}", "partner"));
        check(Method::GET, "a", "/orders", ("(unmatched)", "orders"));
        check(Method::GET, "a", "/ordersx", ("(unmatched)", "upstream"));
        check(Method::POST, "a", "/orders/archive/pay", ("POST /orders/{id}/pay", "archive"));
        check(Method::GET, "a", "/", ("(unmatched)", "upstream"));
    }

    #[tokio::test]
    async fn what_no_upstream_serves_goes_nowhere() {
        let table = table(
            "[gateway]\n[[gateway.upstreams]]\nname = \"a\"\nurl = \"http://127.0.0.1:1\"\nhosts = [\"a\"]\n",
        );
        assert!(table.find(&Method::GET, "b", "/").1.is_none());
        assert!(table.find(&Method::GET, "A", "/").1.is_some());
    }
}

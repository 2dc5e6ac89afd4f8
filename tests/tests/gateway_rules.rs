//! What a route of the gateway says against its profile: each option by what it changes.

use serde_json::Value;

use crate::http::Answer;
use crate::server::Server;
use crate::upstream::Upstream;

const JSON: (&str, &str) = ("content-type", "application/json");

/// A server with these rules for everything.
async fn with(upstream: &Upstream, rules: &str) -> Server {
    Server::start(&upstream.gateway(rules)).await
}

async fn post(server: &Server, path: &str, key: &str, body: &str, more: &[(&str, &str)]) -> Answer {
    let mut headers = vec![JSON, ("idempotency-key", key)];
    headers.extend(more);
    server.http().post(&format!("{}{path}", server.gateway_url()), &headers, body.to_owned()).await.unwrap()
}

/// The status of the first request, that of the second, and how often it ran.
async fn twice(upstream: &Upstream, server: &Server, path: &str) -> (u16, u16, usize) {
    let before = upstream.seen().len();
    let key = path.replace('/', "-");
    let first = post(server, path, &key, "{}", &[]).await.status;
    let again = post(server, path, &key, "{}", &[]).await.status;
    (first, again, upstream.seen().len() - before)
}

#[tokio::test]
async fn the_status_and_the_headers_of_a_replay_are_a_routes_own() {
    let upstream = Upstream::start().await;
    let rules = "replay_status = \"ok\"\nreplay_headers = [\"location\"]\n\
                 [[gateway.routes]]\nmatch = \"POST /as-it-was\"\nreplay_status = \"original\"\nreplay_headers = [\"x-kept\"]\n";
    let server = with(&upstream, rules).await;
    for (path, status, kept) in [("/orders", 200, 0), ("/as-it-was", 201, 2)] {
        let first = post(&server, path, path.trim_start_matches('/'), "{}", &[]).await;
        let again = post(&server, path, path.trim_start_matches('/'), "{}", &[]).await;
        assert_eq!((first.status, again.status, &again.body), (201, status, &first.body), "{path}");
        assert_eq!(again.headers.get_all("x-kept").iter().count(), kept, "{path}");
        assert_eq!(
            again.header("content-type"),
            Some("application/json"),
            "a body without its type is another"
        );
    }
}

#[tokio::test]
async fn errors_have_the_form_and_the_codes_that_a_route_says() {
    let upstream = Upstream::start().await;
    let routes = "require_key = true\nerror_form = \"flat\"\n\
                  [[gateway.routes]]\nmatch = \"/envelope\"\nerror_form = \"envelope\"\n\
                  [[gateway.routes]]\nmatch = \"/acp\"\nerror_form = \"envelope\"\nerror_codes = \"acp\"\n";
    let server = with(&upstream, routes).await;
    let refused = async |path: &str| {
        let url = format!("{}{path}", server.gateway_url());
        let answer = server.http().post(&url, &[JSON], "{}").await.unwrap();
        assert_eq!(answer.status, 400);
        answer.json()
    };
    assert_eq!(refused("/orders").await["code"], "IDEMPOTENCY_KEY_REQUIRED");
    assert_eq!(refused("/envelope").await["error"]["code"], "IDEMPOTENCY_KEY_REQUIRED");
    assert_eq!(refused("/acp").await["error"]["code"], "idempotency_key_required");
    // What the gateway says itself has the route's form as well.
    let url = format!("{}/a/../envelope", server.gateway_url());
    let answer = server.http().get(&url, &[("accept", "*/*")]).await.unwrap();
    assert_eq!((answer.status, answer.json()["code"].is_string()), (400, true), "{}", answer.text());
}

#[tokio::test]
async fn a_key_may_have_the_characters_that_a_route_says() {
    let upstream = Upstream::start().await;
    let routes = "key_alphabet = \"token\"\n\
                  [[gateway.routes]]\nmatch = \"/printable\"\nkey_alphabet = \"printable\"\n\
                  [[gateway.routes]]\nmatch = \"/bare\"\nkey_alphabet = \"printable-bare\"\n";
    let server = with(&upstream, routes).await;
    for (path, dotted, quoted, bare) in
        [("/orders", 400, 400, 400), ("/printable", 201, 201, 400), ("/bare", 201, 201, 201)]
    {
        // A key of its own for each route: a path is no part of a key's scope here.
        let mark = path.len();
        for (key, status) in
            [(format!("a.{mark}"), dotted), (format!("\"a {mark}\""), quoted), (format!("b {mark}"), bare)]
        {
            assert_eq!(post(&server, path, &key, "{}", &[]).await.status, status, "{path} {key}");
        }
    }
}

#[tokio::test]
async fn what_is_kept_is_what_a_route_says() {
    let upstream = Upstream::start().await;
    let rules = "keep = \"everything\"\nkeep_statuses = [422]\nrelease_statuses = [404]\n\
                 [[gateway.routes]]\nmatch = \"POST /status/501\"\nkeep = \"all-but-server-errors\"\n\
                 [[gateway.routes]]\nmatch = \"POST /status/429\"\nkeep = \"deterministic\"\n\
                 [[gateway.routes]]\nmatch = \"POST /status/502\"\non_5xx = \"release\"\nkeep_statuses = [502]\n\
                 [[gateway.routes]]\nmatch = \"POST /status/503\"\non_5xx = \"keep\"\nrelease_statuses = [503]\n";
    let server = with(&upstream, rules).await;
    for (status, runs) in [(500, 1), (422, 1), (400, 2), (404, 2), (501, 2), (429, 2), (502, 1), (503, 2)] {
        let expected = (status, status, runs);
        assert_eq!(twice(&upstream, &server, &format!("/status/{status}")).await, expected);
    }
}

#[tokio::test]
async fn a_mismatch_has_the_status_that_a_route_says() {
    let upstream = Upstream::start().await;
    let server = with(&upstream, "mismatch_status = 409").await;
    post(&server, "/orders", "k-1", "{}", &[]).await;
    let other = post(&server, "/orders", "k-1", "{\"a\":1}", &[]).await;
    let code = other.json()["code"].clone();
    assert_eq!((other.status, code), (409, Value::from("IDEMPOTENCY_PARAMETER_MISMATCH")));
}

#[tokio::test]
async fn a_duplicate_waits_no_longer_than_its_route_lets_it() {
    let upstream = Upstream::start().await;
    let routes = "max_wait = \"0s\"\n[[gateway.routes]]\nmatch = \"POST /gated\"\nmax_wait = \"1s\"\n";
    let server = with(&upstream, routes).await;
    upstream.close();
    let first = post(&server, "/gated", "k-1", "{}", &[]);
    let others = async {
        upstream.arrived(1).await;
        let waited = post(&server, "/gated", "k-1", "{}", &[("prefer", "wait=600")]).await;
        upstream.open();
        waited
    };
    let (first, waited) = tokio::join!(first, others);
    assert_eq!((first.status, waited.status), (201, 409), "a second, and not ten minutes");
    assert_eq!(waited.header("preference-applied"), Some("wait=1"));
}

#[tokio::test]
async fn a_key_belongs_to_its_path_and_its_service_where_a_route_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start().await;
    let server = Server::start_in(folder.path(), &upstream.gateway("scope_by_path = true")).await;
    assert_eq!(post(&server, "/orders", "k-1", "{}", &[]).await.json()["run"], 1);
    assert_eq!(
        post(&server, "/refunds", "k-1", "{}", &[]).await.json()["run"],
        2,
        "another path, another key"
    );
    assert_eq!(post(&server, "/orders", "k-1", "{}", &[]).await.json()["run"], 1);
    server.stop().await;
    // Two services over one store: the same key, under each name another one.
    for (service, by_service, run) in
        [("a", true, 3), ("b", true, 4), ("a", true, 3), ("b", false, 5), ("a", false, 5)]
    {
        let rules = format!("scope_by_service = {by_service}\n[server]\nservice_name = \"{service}\"\n");
        let server = Server::start_in(folder.path(), &upstream.gateway(&rules)).await;
        let answer = post(&server, "/carts", "k-1", "{}", &[]).await;
        assert_eq!(answer.json()["run"], run, "{service} {by_service}");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_claim_of_the_bearer_token_tells_callers_apart_and_a_forged_one_is_nobodys() {
    // HS256 with the secret below.
    let (one, renewed, two, expired) = (
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJvbmUiLCJleHAiOjk5OTk5OTk5OTk5fQ.cxGuo4-mZQNBHDadW2FhVA6kTWtGjpAaTqr-NRFMffg",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJvbmUiLCJleHAiOjk5OTk5OTk5OTk4fQ.vrjP0W6sdcpsjftz8GrFx9RyNSokN82s2enKn9n0i48",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ0d28iLCJleHAiOjk5OTk5OTk5OTk5fQ.SsfzwaPOE3b0raau4XiRD9DXwCzPaB7Oe05o95AqBTE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJvbmUiLCJleHAiOjF9.6c6dX1KqQgFQUUmjMMsIdgIEJztLd5VXo30zaJg-G-U",
    );
    let upstream = Upstream::start().await;
    let rules = "scope = [\"jwt:sub\"]\n[server]\ndevelopment = true\n[gateway.jwt]\nsecret = \"a secret of thirty-two characters\"\n";
    let server = with(&upstream, rules).await;
    let ask = async |token: &str| {
        let bearer = format!("Bearer {token}");
        post(&server, "/orders", "k-1", "{}", &[("authorization", &bearer)]).await
    };
    assert_eq!(ask(one).await.json()["run"], 1);
    let again = ask(renewed).await;
    let replayed = again.header("idempotent-replayed");
    assert_eq!(
        (replayed, &again.json()["run"]),
        (Some("true"), &1.into()),
        "a token that is renewed is the same caller"
    );
    assert_eq!(ask(two).await.json()["run"], 2);
    // The claims of one with the signature of another.
    let (claims, _) = one.rsplit_once('.').unwrap();
    let (_, signature) = two.rsplit_once('.').unwrap();
    for token in [expired, "", "a.b.c", &format!("{claims}.{signature}"), &format!("{claims}.")] {
        let nobody = ask(token).await;
        assert_eq!((nobody.status, &nobody.json()["code"]), (401, &"UNAUTHENTICATED".into()), "{token}");
        assert!(nobody.text().contains("authorization"), "what is needed is named: {}", nobody.text());
    }
    assert_eq!(upstream.seen().len(), 2);
    assert!(!server.log().contains(claims), "a token is in no log");
}

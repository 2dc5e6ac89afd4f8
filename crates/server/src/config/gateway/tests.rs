//! The gateway's part of the configuration as its users meet it: texts in, values or messages out.

use std::time::Duration;

use semel_core::policy::OnLapse;
use semel_tower::ReplayStatus;

use super::super::load::read;
use super::super::{ConfigError, Sources};
use super::{Contract, GatewayConfig, Identity, On5xx, ProfileName, Protocol};

fn take(text: &str) -> GatewayConfig {
    let (config, _) =
        read(text, "semel.toml", false, &Sources::default()).map_err(|e| e.to_string()).unwrap();
    config.gateway.unwrap()
}

fn refused(text: &str) -> String {
    let error: ConfigError = read(text, "semel.toml", false, &Sources::default()).map(|_| ()).unwrap_err();
    error.to_string()
}

#[test]
fn a_line_is_enough_and_what_is_not_said_is_careful() {
    let gateway = take("[gateway]\nupstream = \"http://127.0.0.1:9000\"\n");
    assert_eq!(gateway.listen, "127.0.0.1:8082".parse().unwrap());
    assert_eq!((gateway.upstreams.len(), gateway.upstreams[0].name.as_str()), (1, "upstream"));
    assert_eq!(gateway.upstreams[0].protocol, Protocol::Auto);
    let usual = &gateway.usual;
    assert_eq!(
        (usual.contract, usual.profile, usual.on_5xx),
        (Contract::Kept, ProfileName::Ietf, On5xx::Profile)
    );
    assert_eq!(usual.on_lapse, OnLapse::AtMostOnce, "what may have happened is not repeated by itself");
    assert!(gateway.trusted_proxies.is_empty(), "nobody is believed");
}

#[test]
fn a_route_says_what_is_its_own_and_takes_the_rest_from_the_gateway() {
    let gateway = take(
        "[gateway]\nupstream = \"http://a\"\nprofile = \"wms\"\nenforce = false\nretention = \"2d\"\n\
         [[gateway.routes]]\nmatch = \"/a\"\nenforce = true\nretention = \"7d\"\n\
         [[gateway.routes]]\nmatch = \"/b\"\nprotect = false\n[[gateway.routes]]\nmatch = \"/c\"\nprofile = \"acp\"\n",
    );
    let [a, b, c] = &gateway.routes[..] else { panic!("three routes") };
    assert_eq!((a.rules.contract, a.rules.profile), (Contract::Kept, ProfileName::Wms));
    assert_eq!(a.rules.retention, Duration::from_secs(7 * 24 * 60 * 60));
    assert_eq!((b.rules.contract, c.rules.contract), (Contract::Off, Contract::Reported));
    assert_eq!((c.rules.require_key, a.rules.require_key), (true, false), "this profile needs a key");
    assert_eq!(c.rules.retention, gateway.usual.retention);
}

#[test]
fn a_default_of_the_profile_is_found_last() {
    let with = |head: &str, route: &str| {
        let text = format!(
            "[gateway]\nupstream = \"http://a\"\n{head}\n[[gateway.routes]]\nmatch = \"/a\"\n{route}\n"
        );
        take(&text).routes.remove(0).rules
    };
    assert!(
        !with("profile = \"acp\"", "profile = \"ietf\"").require_key,
        "nobody has said that a key is needed"
    );
    assert!(with("profile = \"acp\"\nrequire_key = true", "profile = \"ietf\"").require_key);
    assert!(!with("profile = \"ietf\"\nrequire_key = false", "profile = \"acp\"").require_key);
    assert!(with("profile = \"ietf\"", "profile = \"acp\"").require_key);
    let contract = |head, route| with(head, route).contract;
    assert_eq!(contract("protect = false\nenforce = false", "protect = true"), Contract::Reported);
    assert_eq!(contract("protect = false", "protect = true"), Contract::Kept);
    assert_eq!(contract("enforce = false", "protect = false"), Contract::Off);
}

#[test]
fn what_is_said_against_a_profile_is_inherited_and_what_nobody_says_stays_the_profiles() {
    let head = "[gateway]\nupstream = \"http://a\"\nreplay_status = \"ok\"\nmismatch_status = 409\nkeep_statuses = [404]\n\
                scope_by_path = true\n";
    let gateway = take(&format!(
        "{head}[[gateway.routes]]\nmatch = \"/a\"\nreplay_status = \"original\"\nkeep_statuses = []\nscope_by_path = false\n\
         replay_headers = []\nmax_wait = \"0s\"\n[[gateway.routes]]\nmatch = \"/b\"\nprofile = \"stripe\"\n"
    ));
    let [a, b] = &gateway.routes[..] else { panic!("two routes") };
    let (usual, a, b) = (&gateway.usual.overrides, &a.rules.overrides, &b.rules.overrides);
    assert_eq!(usual, b, "another profile takes away nothing that was said");
    assert_eq!(
        (usual.replay_status, a.replay_status),
        (Some(ReplayStatus::Ok), Some(ReplayStatus::Original))
    );
    assert_eq!(
        (a.mismatch_status, &usual.keep_statuses[..], &a.keep_statuses[..]),
        (Some(409), &[404][..], &[][..])
    );
    assert_eq!((usual.scope_by_path, a.scope_by_path), (Some(true), Some(false)));
    assert_eq!((usual.replay_headers.clone(), a.replay_headers.clone()), (None, Some(Vec::new())));
    assert_eq!((usual.max_wait, a.max_wait), (None, Some(Duration::ZERO)));
    assert_eq!(
        (usual.keep, usual.key_alphabet, usual.error_form, usual.error_codes),
        (None, None, None, None)
    );
}

#[test]
fn what_cannot_be_said_against_a_profile_is_told_with_what_can() {
    let check = |more: &str, expected: &str| {
        let said = refused(&format!("[gateway]\nupstream = \"http://a\"\n{more}\n"));
        assert!(said.contains(expected), "{said}\ndoes not say\n{expected}");
    };
    check("replay_status = 200", "semel.toml:3: gateway.replay_status: must be one of \"original\", \"ok\"");
    check("replay_headers = [\"Set-Cookie\"]", "gateway.replay_headers: `Set-Cookie` belongs to one answer");
    check("replay_headers = [\"a b\"]", "`a b` is no name of a header");
    check("error_form = \"html\"", "must be one of \"envelope\", \"flat\", \"problem\"");
    check("error_codes = \"mine\"", "must be one of \"catalogue\", \"acp\"");
    check("key_alphabet = \"all\"", "must be one of \"token\", \"printable\", \"printable-bare\"");
    check("keep = \"2xx\"", "must be one of \"deterministic\", \"all-but-server-errors\", \"everything\"");
    check("keep_statuses = [99]", "an array of whole numbers from 200 to 599");
    check("mismatch_status = 500", "a whole number from 400 to 499");
    check("max_wait = \"1h\"", "gateway.max_wait: must be from 0s to 10m");
    check("scope_by_path = 1", "must be true or false");
    check(
        "keep_statuses = [404, 410]\nrelease_statuses = [410]",
        "semel.toml:4: gateway.release_statuses: 410 is in keep_statuses and in release_statuses",
    );
    check("keep_statuses = [503]\nnot_executed = [503]", "not_executed says that nothing was done");
    // What is inherited contradicts as well, and is told where it can be mended.
    check(
        "keep_statuses = [404]\n[[gateway.routes]]\nmatch = \"/a\"\nrelease_statuses = [404]",
        "semel.toml:6: gateway.routes[0].release_statuses: 404 is in keep_statuses",
    );
}

#[test]
fn a_scope_and_shared_keys_switch_each_other_off() {
    let with = |head: &str, route: &str| {
        format!("[gateway]\nupstream = \"http://a\"\n{head}\n[[gateway.routes]]\nmatch = \"/a\"\n{route}\n")
    };
    let callers = |head: &str, route: &str| {
        let rules = take(&with(head, route)).routes.remove(0).rules;
        (rules.shared_keys, rules.scope.len())
    };
    let scope = "scope = [\"header:x-account\"]";
    assert_eq!(callers("shared_keys = true", scope), (false, 1), "no caller is given another's answer");
    assert_eq!(callers(scope, "shared_keys = true"), (true, 0));
    assert_eq!(callers(scope, ""), (false, 1));
    assert_eq!(callers("shared_keys = true", ""), (true, 0));
    assert_eq!(callers("shared_keys = true", &format!("{scope}\nshared_keys = false")), (false, 1));
    let both = format!("{scope}\nshared_keys = true");
    for (text, place) in [
        (with(&both, ""), "semel.toml:4: gateway.shared_keys: contradicts scope"),
        (with("", &both), "semel.toml:7: gateway.routes[0].shared_keys: contradicts scope"),
    ] {
        let said = refused(&text);
        assert!(said.contains(place), "{said}");
    }
}

#[test]
fn what_is_wrong_with_a_gateway_is_said_with_its_line_its_key_and_what_is_allowed() {
    let check = |text: &str, expected: &str| {
        let said = refused(text);
        assert!(said.contains(expected), "{said}\ndoes not say\n{expected}");
    };
    let with = |more: &str| format!("[gateway]\nupstream = \"http://127.0.0.1:9000\"\n{more}\n");
    check("[gateway]\n", "semel.toml:1: gateway.upstream: is missing");
    check(
        "[gateway]\nupstream = \"ftp://a\"\n",
        "semel.toml:2: gateway.upstream: must begin with http:// or https://",
    );
    check("[gateway]\nupstream = \"http://a/b\"\n", "must have no path");
    check("[gateway]\nupstream = \"http://169.254.169.254\"\n", "where no upstream has any business");
    check(&with("protectt = true"), "semel.toml:3: gateway.protectt: unknown key; did you mean `protect`?");
    check(&with("profile = \"mine\""), "one of \"ietf\", \"wms\", \"stripe\", \"acp\"");
    check(&with("scope = [\"x-account\"]"), "\"header:x-account-id\"");
    check(&with("scope = [\"header:Authorization\"]"), "a credential that rotates makes duplicates");
    check(&with("trusted_proxies = [\"10.0.0.0/99\"]"), "an address or a network such as");
    check(&with("fingerprint_exclude = [\"sent_at\"]"), "is no JSON Pointer");
    check(
        &with("fingerprint_select = [\"/a\"]\nfingerprint_exclude = [\"/b\"]"),
        "semel.toml:4: gateway.fingerprint_exclude: contradicts fingerprint_select",
    );
    check(&with("methods = [\"post\"]"), "methods are written in capitals");
    for wrong in ["PSOT", "", "POST PUT", "CONNECT", "PRI"] {
        let methods = format!("methods = [\"DELETE\", \"{wrong}\"]");
        let said = format!("semel.toml:3: gateway.methods: `{wrong}`: no method that is passed on");
        check(&with(&methods), &said);
        let route = format!("[[gateway.routes]]\nmatch = \"/a\"\n{methods}");
        check(&with(&route), "semel.toml:5: gateway.routes[0].methods: ");
    }
    check(
        &with("[[gateway.routes]]\nmatch = \"POST|PSOT /a\""),
        "semel.toml:4: gateway.routes[0].match: `PSOT`: no method that is passed on; methods are written in capitals: GET",
    );
    take(&with("methods = [\"POST\", \"QUERY\", \"PROPPATCH\"]"));
    for header in
        ["via", "Forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id"]
    {
        let upstream = format!(
            "[server]\ndevelopment = true\n[gateway]\n[[gateway.upstreams]]\nname = \"a\"\nurl = \"http://a\"\nheaders = {{ {header} = \"x\" }}\n"
        );
        check(&upstream, "is sent by Semel itself; it cannot be set");
    }
    check(&with("lease = \"1ms\""), "gateway.lease");
    check(&with("listen = \"127.0.0.1:8080\""), "127.0.0.1:8080 is server.listen, too");
    check(
        &with("[[gateway.routes]]\nmatch = \"POST orders\""),
        "gateway.routes[0].match: a path must begin with `/`",
    );
    check(&with("[[gateway.routes]]\nmatch = \"/a\"\nupstream = \"b\""), "there is no upstream `b`");
    check(
        &with("[[gateway.routes]]\nmatch = \"/a\"\n[[gateway.routes]]\nmatch = \"/a\""),
        "so this one is never taken",
    );
    check(&with("[[gateway.upstreams]]\nname = \"a b\"\nurl = \"http://a\""), "gateway.upstreams[0].name");
    check(&with("[[gateway.upstreams]]\nname = \"a\""), "gateway.upstreams[0].url: is missing");
    check(
        &with("[[gateway.upstreams]]\nname = \"upstream\"\nurl = \"http://a\""),
        "there is an upstream `upstream` above",
    );
    check(
        &with("[[gateway.upstreams]]\nname = \"a\"\nurl = \"http://a\"\nhosts = [\"*a\"]"),
        "a host is a name such as",
    );
}

#[test]
fn an_address_that_strangers_reach_needs_a_word_about_whose_keys_they_are() {
    let open = "[gateway]\nlisten = \"0.0.0.0:8082\"\nupstream = \"http://127.0.0.1:9000\"\n";
    assert!(
        refused(open)
            .contains("semel.toml:2: gateway.listen: 0.0.0.0:8082 is not loopback: needs gateway.scope")
    );
    for enough in ["scope = [\"header:x-account-id\"]", "shared_keys = true", "protect = false"] {
        take(&format!("{open}{enough}\n"));
    }
    let route = format!("{open}protect = false\n[[gateway.routes]]\nmatch = \"/a\"\nprotect = true\n");
    assert!(refused(&route).contains("needs gateway.scope"), "a route is as open as the whole");
    assert!(
        refused(&format!("[server]\ndevelopment = true\n{open}shared_keys = true\n"))
            .contains("only for loopback")
    );
}

#[test]
fn an_upstream_that_is_the_gateway_itself_is_refused() {
    let check = |listen: &str, upstream: &str, refused_as: Option<&str>| {
        let text =
            format!("[gateway]\nlisten = \"{listen}\"\nshared_keys = true\nupstream = \"{upstream}\"\n");
        match refused_as {
            Some(expected) => assert!(refused(&text).contains(expected), "{text}"),
            None => drop(take(&text)),
        }
    };
    let circle = Some("127.0.0.1:8082 is gateway.listen: a request would go round in a circle");
    check("127.0.0.1:8082", "http://127.0.0.1:8082", circle);
    check("127.0.0.1:8082", "http://localhost:8082", circle);
    check("0.0.0.0:8082", "http://127.0.0.1:8082", Some("0.0.0.0:8082 is gateway.listen"));
    check("127.0.0.1:8082", "http://127.0.0.1:9000", None);
}

#[test]
fn a_claim_tells_callers_apart_where_somebody_is_said_to_verify_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let (jwks, none) = (folder.path().join("jwks.json"), folder.path().join("none.json"));
    std::fs::write(
        &jwks,
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
    )
    .unwrap();
    std::fs::write(&none, r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#).unwrap();
    let text = |scope: &str, jwt: &str| {
        format!(
            "[server]\ndevelopment = true\n[gateway]\nupstream = \"http://a\"\nscope = [\"{scope}\"]\n{jwt}\n"
        )
    };
    let file = |path: &std::path::Path| format!("[gateway.jwt]\njwks = \"{}\"", path.display());
    let secret = "[gateway.jwt]\nsecret = \"a secret of thirty-two characters\"";
    for jwt in
        [&file(&jwks), secret, "[gateway.jwt]\nverify = false\nissuer = \"us\"\naudience = [\"orders\"]"]
    {
        let usual = take(&text("jwt:sub", jwt)).usual;
        assert_eq!(usual.scope, [Identity::Claim("sub".to_owned())]);
        assert!(usual.tokens.is_some(), "{jwt}");
    }
    let check = |scope: &str, jwt: &str, expected: &str| {
        let said = refused(&text(scope, jwt));
        assert!(said.contains(expected), "{said}\ndoes not say\n{expected}");
    };
    check(
        "jwt:sub",
        "",
        "semel.toml:5: gateway.scope: reads a bearer token, and [gateway.jwt] must say who verifies it",
    );
    check("jwt:", secret, "names no claim");
    check("jwt:jti", secret, "is another one with every token");
    check("jwt:sub", "[gateway.jwt]", "one of them must say who judges tokens");
    check("jwt:sub", &format!("{secret}\nverify = false"), "one of them must say who judges tokens");
    check("jwt:sub", "[gateway.jwt]\nsecret = \"short\"", "must have at least 32 bytes");
    check("jwt:sub", &file(&none), "has no public key that signs");
    check("jwt:sub", &file(&folder.path().join("missing")), "cannot be read");
}

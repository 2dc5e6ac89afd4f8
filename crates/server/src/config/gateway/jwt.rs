//! Reads `[gateway.jwt]`: who says that a bearer token is genuine.

use super::super::reader::Section;
use crate::jwt::{Key, SECRET_BYTES_MIN, Tokens};

/// Claims that are others with every token: as an identity they would make duplicates.
const ROTATING: [&str; 4] = ["exp", "iat", "jti", "nbf"];

/// Which tokens are believed. Exactly one answer is needed to the question who judges them.
pub(super) fn tokens(section: Section<'_>, development: bool) -> Option<Tokens> {
    let file = section.path_to("jwks");
    let secret = section.secret("secret", development);
    let verify = section.boolean("verify", true);
    let answers =
        usize::from(section.has("jwks")) + usize::from(section.has("secret")) + usize::from(!verify);
    if answers != 1 {
        section.problem(
            "verify",
            "one of them must say who judges tokens: jwks (a file with public keys), secret (HS256), or verify = false, \
             where whoever stands before the gateway has verified them",
        );
    }
    let keys = match (&file, secret) {
        (Some(file), _) => match std::fs::read_to_string(file).map_err(|error| error.to_string()) {
            Ok(text) => Key::of_set(&text).map_err(str::to_owned),
            Err(error) => Err(format!("cannot be read: {error}")),
        }
        .map_err(|problem| section.problem("jwks", format!("{} {problem}", file.display())))
        .ok(),
        (None, Some(secret)) => {
            if secret.value.expose().len() < SECRET_BYTES_MIN {
                let problem = format!("must have at least {SECRET_BYTES_MIN} bytes (RFC 7518, section 3.2)");
                section.problem("secret", problem);
            }
            Some(vec![Key::shared(secret.value)])
        }
        (None, None) => None,
    };
    let issuer = section.text("issuer").map(|found| found.value);
    let audience = section.texts_given("audience").unwrap_or_default();
    section.finish();
    (keys.is_some() || !verify).then_some(Tokens { keys, issuer, audience })
}

/// The claim of `jwt:CLAIM`.
pub(super) fn claim(name: &str) -> Result<String, &'static str> {
    match name.trim() {
        "" => Err("names no claim; allowed is one that names a stable caller, such as \"jwt:sub\""),
        name if ROTATING.contains(&name) => {
            Err("is another one with every token, which makes duplicates; name a claim that says who it is")
        }
        name => Ok(name.to_owned()),
    }
}

//! How the service behind the layer says what its reply means for the key.

use http::{HeaderMap, HeaderName, Response};

/// The header that says the same as [`Steer`], for services that cannot set an extension. It never reaches a client.
pub const OUTCOME: HeaderName = HeaderName::from_static("semel-outcome");

/// What a reply means for the key, where its status does not say it: a response extension, or the header
/// `Semel-Outcome: keep | do-not-keep | release | unknown`. The extension goes before the header; neither reaches
/// the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Steer {
    /// It is the outcome: replayed, whatever its status.
    Keep,
    /// It is not the outcome, whatever its status: the next request with this key runs again.
    DoNotKeep,
    /// It is known that nothing was done: the next request with this key runs.
    Release,
    /// It may have been done, and nobody knows: nothing runs again by itself.
    Unknown,
}

impl Steer {
    /// The word in the header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::DoNotKeep => "do-not-keep",
            Self::Release => "release",
            Self::Unknown => "unknown",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        let all = [Self::Keep, Self::DoNotKeep, Self::Release, Self::Unknown];
        all.into_iter().find(|steer| steer.as_str().eq_ignore_ascii_case(word.trim()))
    }

    /// What the response says, which is taken out of it.
    pub(crate) fn take<B>(response: &mut Response<B>) -> Option<Self> {
        let header = take_header(response.headers_mut());
        response.extensions_mut().remove::<Self>().or(header)
    }
}

/// A response extension: the reply is a stream, and is passed on as it comes. It is recorded as done, without its body,
/// before its first byte goes out. (Server-sent events, gRPC and upgrades are known as such.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streamed;

/// A response extension beside a [`Steer`], for services that ask others, such as a gateway: what they pass on is not the
/// other's reply, since none came, or not whole. The record says so, in these words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerLost(pub &'static str);

/// Several headers, or a word that is none, say nothing: whoever wrote them is told so in the log.
fn take_header(headers: &mut HeaderMap) -> Option<Steer> {
    if headers.is_empty() {
        return None;
    }
    let mut words = headers.get_all(OUTCOME).iter();
    let word = match (words.next(), words.next()) {
        (Some(word), None) => word.to_str().ok().and_then(Steer::parse),
        (Some(_), Some(_)) | (None, _) => None,
    };
    if word.is_none() && headers.contains_key(OUTCOME) {
        let said: Vec<_> = headers.get_all(OUTCOME).iter().collect();
        tracing::warn!(?said, "a service's Semel-Outcome says nothing that is known; the status counts");
    }
    headers.remove(OUTCOME);
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_goes_before_the_header_and_neither_stays() {
        let response = |words: &[&'static str]| {
            let mut response = Response::new(());
            for word in words {
                response.headers_mut().append(OUTCOME, http::HeaderValue::from_static(word));
            }
            response
        };
        for (words, said) in [
            (&["keep"][..], Some(Steer::Keep)),
            (&[" Do-Not-Keep"], Some(Steer::DoNotKeep)),
            (&["release"], Some(Steer::Release)),
            (&["unknown"], Some(Steer::Unknown)),
            (&["perhaps"], None),
            (&["keep", "release"], None),
            (&[], None),
        ] {
            let mut response = response(words);
            assert_eq!(Steer::take(&mut response), said, "{words:?}");
            assert!(response.headers().is_empty());
        }
        let mut both = response(&["keep"]);
        both.extensions_mut().insert(Steer::Unknown);
        assert_eq!(Steer::take(&mut both), Some(Steer::Unknown));
        assert!(both.extensions().is_empty() && both.headers().is_empty());
    }
}

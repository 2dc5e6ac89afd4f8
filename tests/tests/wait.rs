//! Waiting for what happens in its own time: asked again and again, since it cannot be told; a hang is a failure.

use std::time::Duration;

/// Nothing that a test waits for takes longer than this, or the test has found a hang.
const WITHIN: Duration = Duration::from_secs(60);

/// The pause between two questions: short beside what is waited for, long beside the asking.
const PAUSE: Duration = Duration::from_millis(5);

/// Asks until there is an answer; `what` says for what, if there never is.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asked = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(WITHIN, asked).await.unwrap_or_else(|_| panic!("{what}: not within {WITHIN:?}"))
}

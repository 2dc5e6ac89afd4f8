//! How many requests are at work at once, and how the others are refused.

use std::sync::Arc;

use semel_api::{ApiError, ErrorCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits;

/// Room for so many requests. A clone is the same room.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    places: Arc<Semaphore>,
    /// Refusals that may be held back at once.
    held: Arc<Semaphore>,
}

impl Room {
    /// Room for so many at once.
    pub(crate) fn new(places: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            held: Arc::new(Semaphore::new(limits::REFUSALS_HELD_MAX)),
        }
    }

    /// A place for one more request. Nothing waits for one: a queue without an end is only a slower way to fail.
    ///
    /// A refusal costs almost what it refuses. Whoever asks again as soon as he is refused, over a thousand connections,
    /// would take the processor from those who are at work, so he is told a little later.
    ///
    /// # Errors
    /// All places are taken.
    pub(crate) async fn enter(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(place);
        }
        if let Ok(_held) = self.held.try_acquire() {
            // In a box: whoever finds room must not carry the room of a timer about.
            Box::pin(tokio::time::sleep(limits::REFUSAL_PAUSE)).await;
        }
        Err(ApiError::new(ErrorCode::Overloaded).with_retry_after(limits::RETRY_AFTER_OVERLOAD))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_finds_room_is_let_in_at_once_and_who_does_not_is_told_a_little_later() {
        let room = Room::new(1);
        let began = Instant::now();
        let place = room.enter().await.unwrap();
        assert_eq!(began.elapsed(), std::time::Duration::ZERO);
        let refused = room.enter().await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::Overloaded);
        assert!(began.elapsed() >= limits::REFUSAL_PAUSE, "it was held back");
        drop(place);
        assert!(room.enter().await.is_ok());
    }

    #[test]
    fn the_documents_say_how_long_a_refusal_is_held_back() {
        assert_eq!(limits::REFUSAL_PAUSE, std::time::Duration::from_millis(100), "a tenth of a second");
        let texts =
            [include_str!("config/example.toml"), include_str!("../../../docs/guide/configuration.md")];
        for text in texts {
            let mut lines = text.lines().filter(|line| line.contains("OVERLOADED")).peekable();
            assert!(lines.peek().is_some(), "who is refused is told why");
            assert!(lines.all(|line| line.contains("after a tenth of a second")), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_waits_for_room_however_soon_there_is_some() {
        let room = Room::new(1);
        let place = room.enter().await.unwrap();
        let (refused, ()) = tokio::join!(room.enter(), async { drop(place) });
        assert!(refused.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_refusals_are_held_back_and_the_next_is_sent_at_once() {
        let room = Room { places: Arc::new(Semaphore::new(0)), held: Arc::new(Semaphore::new(1)) };
        let began = Instant::now();
        let next = async {
            assert!(room.enter().await.is_err());
            assert_eq!(began.elapsed(), std::time::Duration::ZERO);
        };
        let (held, ()) = tokio::join!(biased; room.enter(), next);
        assert!(held.is_err() && began.elapsed() >= limits::REFUSAL_PAUSE);
        assert!(room.enter().await.is_err());
        assert!(began.elapsed() >= limits::REFUSAL_PAUSE * 2, "there is room to hold one back again");
    }
}

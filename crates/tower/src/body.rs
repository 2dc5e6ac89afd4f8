//! Bodies: what the layer hands to the service behind it and answers with, and how it reads one within a limit.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::limits;

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

type Stream = Pin<Box<dyn HttpBody<Data = Bytes, Error = BoxError> + Send>>;

/// The body of a request on its way in, and of a response on its way out: either whole, or the very stream that came.
#[derive(Default)]
pub struct Body {
    /// Read already; comes before the rest.
    read: VecDeque<Bytes>,
    rest: Rest,
}

#[derive(Default)]
enum Rest {
    #[default]
    Nothing,
    Trailers(HeaderMap),
    Stream(Stream),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("size", &self.size_hint()).finish_non_exhaustive()
    }
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A body that streams as this one does, unbuffered.
    pub fn stream<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let stream = Box::pin(Errors { body });
        Self { read: VecDeque::new(), rest: Rest::Stream(stream) }
    }

    /// A body that was read whole.
    pub(crate) fn whole(bytes: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self { rest: trailers.map_or(Rest::Nothing, Rest::Trailers), ..Self::from(bytes) }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        let read = if bytes.is_empty() { VecDeque::new() } else { VecDeque::from([bytes]) };
        Self { read, rest: Rest::Nothing }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(bytes) = self.read.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match &mut self.rest {
            Rest::Nothing => Poll::Ready(None),
            Rest::Stream(stream) => stream.as_mut().poll_frame(cx),
            Rest::Trailers(trailers) => {
                let trailers = std::mem::take(trailers);
                self.rest = Rest::Nothing;
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty()
            && match &self.rest {
                Rest::Nothing => true,
                Rest::Trailers(_) => false,
                Rest::Stream(stream) => stream.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        let read: u64 = self.read.iter().map(|bytes| bytes.len() as u64).sum();
        let Rest::Stream(stream) = &self.rest else { return SizeHint::with_exact(read) };
        let (rest, mut hint) = (stream.size_hint(), SizeHint::new());
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        hint.set_lower(rest.lower().saturating_add(read));
        hint
    }
}

pin_project_lite::pin_project! {
    /// A body whose errors are boxed.
    struct Errors<B> {
        #[pin]
        body: B,
    }
}

impl<B> HttpBody for Errors<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(self.project().body.poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What reading a body came to.
pub(crate) enum Read {
    /// All of it.
    Whole(Bytes, Option<HeaderMap>),
    /// More than may be read: all of it, what was read first and then the rest.
    TooLarge(Body),
    /// It broke off.
    Failed(BoxError),
}

/// Reads a body of at most so many bytes. Of one that says it is larger, nothing is read.
pub(crate) async fn read<B>(body: B, bytes_max: usize) -> Read
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut reading = match Reading::of(body, bytes_max) {
        ControlFlow::Continue(reading) => reading,
        ControlFlow::Break(known) => return known,
    };
    loop {
        if let Some(end) = poll_fn(|cx| reading.poll_step(cx)).await {
            return reading.ended(end);
        }
    }
}

/// The same of a body that is all there. One that has to be waited for is taken for too large: it stays whole.
pub(crate) async fn read_ready<B>(body: B, bytes_max: usize) -> Read
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut reading = match Reading::of(body, bytes_max) {
        ControlFlow::Continue(reading) => reading,
        ControlFlow::Break(known) => return known,
    };
    loop {
        match poll_fn(|cx| Poll::Ready(reading.poll_step(cx))).await {
            Poll::Ready(None) => {}
            Poll::Ready(Some(end)) => return reading.ended(end),
            Poll::Pending => return reading.ended(End::Open),
        }
    }
}

/// A body while it is read.
struct Reading {
    stream: Stream,
    read: VecDeque<Bytes>,
    size: usize,
    bytes_max: usize,
    trailers: Option<HeaderMap>,
}

/// How reading ended.
enum End {
    Whole,
    Open,
    Failed(BoxError),
}

impl Reading {
    /// Begins to read, unless there is nothing to read or too much.
    fn of<B>(body: B, bytes_max: usize) -> ControlFlow<Read, Self>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if body.size_hint().lower() > bytes_max as u64 {
            return ControlFlow::Break(Read::TooLarge(Body::stream(body)));
        }
        if body.is_end_stream() {
            return ControlFlow::Break(Read::Whole(Bytes::new(), None));
        }
        let stream: Stream = Box::pin(Errors { body });
        ControlFlow::Continue(Self { stream, read: VecDeque::new(), size: 0, bytes_max, trailers: None })
    }

    /// Reads one frame; whether that was the end.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        let frame = match ready!(self.stream.as_mut().poll_frame(cx)) {
            None => return Poll::Ready(Some(End::Whole)),
            Some(Err(error)) => return Poll::Ready(Some(End::Failed(error))),
            Some(Ok(frame)) => frame,
        };
        Poll::Ready(match frame.into_data() {
            Ok(bytes) => {
                self.size = self.size.saturating_add(bytes.len());
                self.read.push_back(bytes);
                (self.size > self.bytes_max).then_some(End::Open)
            }
            // Trailers end a message.
            Err(frame) => frame.into_trailers().ok().map(|trailers| {
                self.trailers = Some(trailers);
                End::Whole
            }),
        })
    }

    fn ended(self, end: End) -> Read {
        match end {
            End::Whole => Read::Whole(joined(self.read, self.size), self.trailers),
            End::Open => Read::TooLarge(Body { read: self.read, rest: Rest::Stream(self.stream) }),
            End::Failed(error) => Read::Failed(error),
        }
    }
}

fn joined(mut read: VecDeque<Bytes>, size: usize) -> Bytes {
    if read.len() <= 1 {
        return read.pop_front().unwrap_or_default();
    }
    let mut whole = BytesMut::with_capacity(size);
    for bytes in &read {
        whole.extend_from_slice(bytes);
    }
    whole.freeze()
}

/// The bytes as they are kept: not as a slice of something larger.
pub(crate) fn kept(bytes: &Bytes) -> Bytes {
    if bytes.len() <= limits::COPIED_BYTES_MAX { Bytes::copy_from_slice(bytes) } else { bytes.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body of these frames, of which nobody knows the length.
    struct Frames(VecDeque<Result<Frame<Bytes>, BoxError>>);

    impl HttpBody for Frames {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            Poll::Ready(self.0.pop_front())
        }
    }

    fn frames(texts: &[&'static str]) -> Frames {
        let frames = texts.iter().map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes()))));
        Frames(frames.collect())
    }

    async fn text(mut body: Body) -> String {
        let mut all = Vec::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            all.extend_from_slice(&frame.unwrap().into_data().unwrap_or_default());
        }
        String::from_utf8(all).unwrap()
    }

    #[tokio::test]
    async fn a_body_within_the_limit_is_read_whole_and_one_above_it_stays_whole() {
        let Read::Whole(bytes, None) = read(frames(&["ab", "", "cd"]), 4).await else { panic!("it fits") };
        assert_eq!(bytes, "abcd");
        let Read::TooLarge(body) = read(frames(&["ab", "cd", "ef"]), 3).await else { panic!("it does not") };
        assert_eq!(text(body).await, "abcdef", "nothing is lost");
        let Read::TooLarge(body) = read(Body::from("abcd"), 3).await else { panic!("it says so") };
        assert_eq!(text(body).await, "abcd");
    }

    #[tokio::test]
    async fn what_has_to_be_waited_for_is_not_read_to_its_end_and_stays_whole() {
        let Read::Whole(bytes, None) = read_ready(frames(&["ab", "cd"]), 4).await else {
            panic!("it is there")
        };
        assert_eq!(bytes, "abcd");
        let Read::TooLarge(body) = read_ready(frames(&["ab", "cd"]), 3).await else { panic!("too large") };
        assert_eq!(text(body).await, "abcd");
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let later = Later { first: frames(&["ab"]), rest: Some((receiver, frames(&["cd"]))) };
        let Read::TooLarge(body) = read_ready(later, 10).await else { panic!("it has to be waited for") };
        sender.send(()).unwrap();
        assert_eq!(text(body).await, "abcd");
    }

    /// A body whose rest comes when it is told to.
    struct Later {
        first: Frames,
        rest: Option<(tokio::sync::oneshot::Receiver<()>, Frames)>,
    }

    impl HttpBody for Later {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            if let Some(frame) = self.first.0.pop_front() {
                return Poll::Ready(Some(frame));
            }
            let Some((told, _)) = &mut self.rest else { return Poll::Ready(None) };
            ready!(Pin::new(told).poll(cx)).unwrap();
            self.first = self.rest.take().unwrap().1;
            self.poll_frame(cx)
        }
    }

    #[tokio::test]
    async fn trailers_stay_and_an_error_is_one() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        let mut body = frames(&["ab"]);
        body.0.push_back(Ok(Frame::trailers(trailers.clone())));
        let Read::Whole(bytes, seen) = read(body, 10).await else { panic!("it fits") };
        assert_eq!(seen.as_ref(), Some(&trailers));
        let mut whole = Body::whole(bytes, seen);
        let mut frames_seen = 0;
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut whole).poll_frame(cx)).await {
            frames_seen += usize::from(frame.unwrap().is_trailers());
        }
        assert_eq!((frames_seen, whole.is_end_stream()), (1, true));
        let mut broken = frames(&["ab"]);
        broken.0.push_back(Err("reset".into()));
        assert!(matches!(read(broken, 10).await, Read::Failed(_)));
    }
}

//! One event as one line: JSON for machines, or a form for people.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use crate::config::LogFormat;

/// Writes an event, with the end of its line.
pub(super) fn line(out: &mut Vec<u8>, format: LogFormat, colour: bool, at: &str, event: &Event<'_>) {
    match format {
        LogFormat::Json => json(out, at, event),
        LogFormat::Pretty => pretty(out, colour, at, event),
    }
    out.push(b'\n');
}

fn json(out: &mut Vec<u8>, at: &str, event: &Event<'_>) {
    let about = event.metadata();
    let head = [
        r#"{"timestamp":""#,
        at,
        r#"","level":""#,
        about.level().as_str(),
        r#"","target":""#,
        about.target(),
    ];
    for part in head {
        out.extend_from_slice(part.as_bytes());
    }
    out.push(b'"');
    event.record(&mut JsonFields { out });
    out.push(b'}');
}

/// Whether a text stands in JSON as it is.
fn is_plain(text: &[u8]) -> bool {
    text.iter().all(|byte| !matches!(byte, 0..0x20 | b'"' | b'\\'))
}

struct JsonFields<'a> {
    out: &'a mut Vec<u8>,
}

impl JsonFields<'_> {
    fn name(&mut self, field: &Field) {
        // Names are Rust's, so they need no escaping.
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(field.name().as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn text(&mut self, text: &str) {
        if !is_plain(text.as_bytes()) {
            // Writing into memory cannot fail.
            let _ = serde_json::to_writer(&mut *self.out, text);
            return;
        }
        self.out.push(b'"');
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(b'"');
    }
}

impl Visit for JsonFields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.name(field);
        self.text(value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.name(field);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.name(field);
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.name(field);
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.name(field);
        // JSON has no number for what is not finite.
        let _ = if value.is_finite() { write!(self.out, "{value}") } else { write!(self.out, "null") };
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.name(field);
        self.out.push(b'"');
        let start = self.out.len();
        let _ = write!(self.out, "{value:?}");
        // Mostly ids, which stand as they are.
        if is_plain(&self.out[start..]) {
            self.out.push(b'"');
            return;
        }
        let text = String::from_utf8_lossy(&self.out[start..]).into_owned();
        self.out.truncate(start - 1);
        self.text(&text);
    }
}

fn pretty(out: &mut Vec<u8>, colour: bool, at: &str, event: &Event<'_>) {
    let about = event.metadata();
    let (code, level) = match *about.level() {
        Level::ERROR => ("31", "ERROR"),
        Level::WARN => ("33", " WARN"),
        Level::INFO => ("32", " INFO"),
        Level::DEBUG => ("34", "DEBUG"),
        Level::TRACE => ("35", "TRACE"),
    };
    // The day is on the wall of whoever reads this.
    let time = at.get(11..23).unwrap_or(at);
    let _ = if colour {
        write!(out, "\x1b[2m{time}\x1b[0m \x1b[{code}m{level}\x1b[0m")
    } else {
        write!(out, "{time} {level}")
    };
    let mut message = Message(String::new());
    event.record(&mut message);
    let _ = write!(out, " {}", message.0);
    event.record(&mut PrettyFields { out, colour });
}

/// The message, which stands before the other fields.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}");
        }
    }
}

struct PrettyFields<'a> {
    out: &'a mut Vec<u8>,
    colour: bool,
}

impl Visit for PrettyFields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        // Quoted only where that says something: control characters stay escaped.
        if value.chars().all(|c| c.is_ascii_graphic() && c != '"' && c != '=') && !value.is_empty() {
            self.record_debug(field, &format_args!("{value}"));
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            return;
        }
        let name = field.name();
        let _ = if self.colour {
            write!(self.out, "  \x1b[2m{name}=\x1b[0m{value:?}")
        } else {
            write!(self.out, "  {name}={value:?}")
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::with_default;
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    use super::*;

    struct Capture(LogFormat, Arc<Mutex<Vec<u8>>>);

    impl<S: tracing::Subscriber> Layer<S> for Capture {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            line(&mut self.1.lock().unwrap(), self.0, false, "2026-11-21T04:30:00.007Z", event);
        }
    }

    fn said(format: LogFormat, say: impl FnOnce()) -> String {
        let out = Arc::new(Mutex::new(Vec::new()));
        let subscriber = tracing_subscriber::registry().with(Capture(format, Arc::clone(&out)));
        with_default(subscriber, say);
        String::from_utf8(out.lock().unwrap().clone()).unwrap()
    }

    fn event() {
        tracing::info!(
            target: "semel",
            order_id = "A\"\n1",
            isRetry = true,
            status = 200_u64,
            share = f64::NAN,
            event_id = None::<&str>,
            reason = ?Some("x"),
            "request",
        );
    }

    #[test]
    fn a_line_is_one_json_object_whatever_is_in_its_values() {
        assert_eq!(
            said(LogFormat::Json, event),
            "{\"timestamp\":\"2026-11-21T04:30:00.007Z\",\"level\":\"INFO\",\"target\":\"semel\",\
             \"message\":\"request\",\"order_id\":\"A\\\"\\n1\",\"isRetry\":true,\"status\":200,\"share\":null,\
             \"reason\":\"Some(\\\"x\\\")\"}\n"
        );
    }

    #[test]
    fn a_line_for_people_has_the_message_first_and_cannot_be_forged_by_a_value() {
        assert_eq!(
            said(LogFormat::Pretty, event),
            "04:30:00.007  INFO request  order_id=\"A\\\"\\n1\"  isRetry=true  status=200  share=NaN  \
             reason=Some(\"x\")\n"
        );
    }
}

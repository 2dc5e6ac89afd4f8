//! A glance at bytes: what lists need to know of a record or an audit entry, without making one and without allocating.
//!
//! A glance passes over what it does not need, within the bytes. So it takes what a whole reading refuses: names outside their
//! limits, parts that contradict each other, numbers that no policy has, and, where it looks at no text, bytes that are none.
//! It is for bytes that a checksum has vouched for: whoever then reads them whole is told that they are [`Corrupt`] (L13).
//! Versions of the format, parts and kinds that are not known are corrupt for a glance, too, since it could not tell where they end.

use semel_core::audit::Action;
use semel_core::id::{Fence, Namespace, RecordId};
use semel_core::limits;
use semel_core::record::{StateName, Times};
use semel_core::time::Timestamp;

use crate::codec::reader::{Read, Reader};
use crate::codec::{Corrupt, has};

/// What a glance at a record saw.
#[derive(Clone, Copy, Debug)]
pub struct RecordGlance<'a> {
    /// The family of doors that it came through.
    pub namespace: Namespace,
    tenant: &'a str,
    subject: Option<&'a str>,
    /// Its key.
    pub key: &'a str,
    /// Its operation.
    pub operation: &'a str,
    /// Its tags.
    pub tags: Tags<'a>,
    /// The fence of its last claim.
    pub fence: Fence,
    /// When things happened and will.
    pub times: Times,
    /// Where it stands.
    pub state: StateName,
}

impl RecordGlance<'_> {
    /// Its id, which costs a digest of scope and key.
    pub fn id(&self) -> RecordId {
        RecordId::of_parts(self.namespace, self.tenant, self.subject, self.key)
    }

    /// Whether it is at rest: completed or released.
    pub const fn is_settled(&self) -> bool {
        self.times.expires.is_some()
    }

    /// When it is due, as [`Record::due`](semel_core::Record::due) says it.
    pub const fn due(&self) -> Option<Timestamp> {
        match self.state {
            StateName::Pending | StateName::Running | StateName::Completed => self.times.wake,
            StateName::Released | StateName::Unknown | StateName::Dead => None,
        }
    }
}

/// What a glance at an audit entry saw.
#[derive(Clone, Copy, Debug)]
pub struct AuditGlance<'a> {
    /// Its number.
    pub sequence: u64,
    /// When it happened.
    pub at: Timestamp,
    /// What was done.
    pub action: Action,
    /// To which record.
    pub record: Option<RecordId>,
    /// By whom.
    pub actor: &'a str,
    /// What links it to a request.
    pub correlation_id: Option<&'a str>,
    /// The record's operation.
    pub operation: Option<&'a str>,
    /// The record's key.
    pub key: Option<&'a str>,
    /// The record's tags.
    pub tags: Tags<'a>,
}

/// Tags that lie in bytes, of which each was seen to be two texts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tags<'a>(&'a [u8]);

impl<'a> Tags<'a> {
    /// Names and values, in the order of the bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut from = Reader::new(self.0);
        std::iter::from_fn(move || if from.is_at_end() { None } else { from.tag_texts().ok() })
    }
}

/// Looks at the record at the begin of `bytes`, and gives what follows it.
///
/// # Errors
/// The bytes are no record of a known format. Not all that [`decode_record`](crate::codec::decode_record) refuses is refused:
/// values outside their limits, and parts that contradict each other, are not looked for.
pub fn glance_record(bytes: &[u8]) -> Result<(RecordGlance<'_>, &[u8]), Corrupt> {
    let mut from = Reader::new(bytes);
    from.format()?;
    let flags = from.flags()?;
    let (namespace, state) = from.kinds()?;
    let tenant = from.text()?;
    let subject = if flags & has::SUBJECT == 0 { None } else { Some(from.text()?) };
    let (key, operation) = (from.text()?, from.text()?);
    from.skip_fingerprint()?;
    from.skip_policy(flags)?;
    from.skip_counted_if(flags & has::LANE != 0)?;
    let tags = from.tags()?;
    if flags & has::INPUT != 0 {
        from.skip_input()?;
    }
    from.skip_id_if(flags & has::ORIGIN != 0)?;
    let fence = from.fence()?;
    from.number()?;
    let times = from.times(flags)?;
    from.skip_attempts(flags)?;
    // Token, digest of the last command, and by which asking it was taken in.
    for bit in [has::TOKEN, has::LAST, has::TAKEN_IN_BY] {
        from.skip_id_if(flags & bit != 0)?;
    }
    for _ in 0..from.count(limits::CHECKPOINTS_MAX)? {
        from.skip_named()?;
    }
    from.skip_state(state)?;
    let glance = RecordGlance { namespace, tenant, subject, key, operation, tags, fence, times, state };
    Ok((glance, &bytes[from.at()..]))
}

/// Looks at an audit entry.
///
/// # Errors
/// The bytes are no audit entry of a known format. Not all that [`decode_audit`](crate::codec::decode_audit) refuses is
/// refused: names outside their limits, and texts that are passed over, are not looked at.
pub fn glance_audit(bytes: &[u8]) -> Result<AuditGlance<'_>, Corrupt> {
    let mut from = Reader::new(bytes);
    let format = from.audit_format()?;
    let sequence = from.number()?;
    let at = Timestamp::from_millis(from.number()?);
    let action = from.action()?;
    let record = from.optional(Reader::id)?;
    from.optional_state()?;
    from.optional_state()?;
    let actor = from.short_text()?;
    from.optional(Reader::skip_counted)?;
    let correlation_id = from.optional(Reader::short_text)?;
    for _ in 0..from.number()? {
        from.skip_named()?;
    }
    let (mut operation, mut key, mut tags) = (None, None, Tags::default());
    if format >= 2 {
        operation = from.optional(Reader::text)?;
        key = from.optional(Reader::text)?;
        tags = from.tags()?;
    }
    from.end()?;
    Ok(AuditGlance { sequence, at, action, record, actor, correlation_id, operation, key, tags })
}

/// What a glance passes over: it lies within the bytes, and of known kinds.
impl<'a> Reader<'a> {
    fn skip_counted(&mut self) -> Read<()> {
        self.counted().map(drop)
    }

    fn skip_counted_if(&mut self, is_there: bool) -> Read<()> {
        if is_there { self.skip_counted() } else { Ok(()) }
    }

    /// A name and what it names: a header, a checkpoint, metadata.
    fn skip_named(&mut self) -> Read<()> {
        self.skip_counted()?;
        self.skip_counted()
    }

    /// Something of 16 bytes.
    fn skip_id_if(&mut self, is_there: bool) -> Read<()> {
        if is_there { self.next(16).map(drop) } else { Ok(()) }
    }

    fn skip_fingerprint(&mut self) -> Read<()> {
        self.next(33).map(drop)
    }

    fn skip_policy(&mut self, flags: u64) -> Read<()> {
        self.policy_kinds()?;
        // Lease and retention; attempts, the first and the longest wait between them; then what not every policy has.
        let lengths = 5 + (flags & (has::MAX_AGE | has::PAYLOAD_RETENTION)).count_ones();
        (0..lengths).try_for_each(|_| self.number().map(drop))
    }

    fn skip_attempts(&mut self, flags: u64) -> Read<()> {
        // Attempts and generation, and between them those that do not count.
        let numbers = 2 + (flags & has::UNCOUNTED).count_ones();
        (0..numbers).try_for_each(|_| self.number().map(drop))
    }

    fn tag_texts(&mut self) -> Read<(&'a str, &'a str)> {
        Ok((self.text()?, self.text()?))
    }

    fn tags(&mut self) -> Read<Tags<'a>> {
        let count = self.count(limits::TAGS_MAX)?;
        let from = self.at();
        for _ in 0..count {
            self.tag_texts()?;
        }
        Ok(Tags(self.since(from)))
    }

    fn skip_headers(&mut self) -> Read<()> {
        for _ in 0..self.count(limits::HEADERS_MAX)? {
            self.skip_named()?;
        }
        Ok(())
    }

    fn skip_input(&mut self) -> Read<()> {
        // Method and path.
        self.skip_named()?;
        self.skip_headers()?;
        self.skip_counted()
    }

    fn skip_state(&mut self, state: StateName) -> Read<()> {
        match state {
            StateName::Pending | StateName::Running => self.optional(Self::skip_counted).map(drop),
            StateName::Released | StateName::Dead => self.skip_counted(),
            StateName::Completed => {
                let (_, is_body_there) = self.outcome_kinds()?;
                self.status()?;
                self.skip_headers()?;
                self.skip_counted_if(is_body_there)
            }
            StateName::Unknown => {
                self.why()?;
                self.skip_counted()
            }
        }
    }
}

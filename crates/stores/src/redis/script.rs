//! The scripts, as they are sent: by digest, and whole to a server that has forgotten them.

/// The server's clock, in milliseconds and in microseconds.
const SERVER_CLOCK: &str = "local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000), t[1] * 1000000 + t[2]
end
";
/// The clock of a test, in the shard's own hash.
const STEPPED_CLOCK: &str = "local function clock()
  local ms = tonumber(redis.call('HGET', KEYS[1], 'clock'))
  return ms, ms * 1000
end
";
const PRELUDE: &str = include_str!("lua/prelude.lua");

/// One script.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) code: String,
    pub(super) digest: String,
    /// Whether what it does, or shows, has to be elsewhere, too, before anybody is told (L4).
    pub(super) waits: bool,
}

impl Script {
    /// Declared as reading where it does, so that the server lets it run when it refuses writes; and without leave to touch
    /// keys of other slots.
    fn new(clock: &str, reads: bool, body: &str) -> Self {
        let flags = if reads { " flags=no-writes" } else { "" };
        let code = format!("#!lua{flags}\n{clock}{PRELUDE}{body}");
        let digest = sha1_smol::Sha1::from(&code).digest().to_string();
        Self { code, digest, waits: !reads }
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) write: Script,
    pub(super) remove: Script,
    pub(super) load: Script,
    /// As `load`, and then the connection has something to wait for.
    pub(super) load_waiting: Script,
    pub(super) take_due: Script,
    pub(super) lanes: Script,
    pub(super) expired: Script,
    pub(super) oldest_pending: Script,
    pub(super) search: Script,
    pub(super) append_audit: Script,
    pub(super) audit: Script,
    pub(super) forget_audit: Script,
    pub(super) ready: Script,
}

impl Scripts {
    pub(super) fn new(stepped: bool) -> Self {
        let clock = if stepped { STEPPED_CLOCK } else { SERVER_CLOCK };
        let reads = |body: &str| Script::new(clock, true, body);
        let writes = |body: &str| Script::new(clock, false, body);
        Self {
            write: writes(include_str!("lua/write.lua")),
            remove: writes(include_str!("lua/remove.lua")),
            load: reads(include_str!("lua/load.lua")),
            load_waiting: writes(include_str!("lua/load.lua")),
            take_due: reads(include_str!("lua/take_due.lua")),
            lanes: reads(include_str!("lua/lanes.lua")),
            expired: reads(include_str!("lua/expired.lua")),
            oldest_pending: reads(include_str!("lua/oldest_pending.lua")),
            search: reads(include_str!("lua/search.lua")),
            append_audit: writes(include_str!("lua/append_audit.lua")),
            audit: reads(include_str!("lua/audit.lua")),
            forget_audit: writes(include_str!("lua/forget_audit.lua")),
            ready: writes(include_str!("lua/ready.lua")),
        }
    }

    /// Those that are in the way of a request.
    pub(super) fn frequent(&self) -> [&Script; 4] {
        [&self.write, &self.load, &self.load_waiting, &self.remove]
    }
}

//! Every statement of the store. Each is a transaction of its own.

use semel_core::RecordId;
use tokio_postgres::types::Type;

use super::batch_sql;
use super::pool::Statement;
use super::rows::hash;

/// The columns of a record `r`, as [`record`](super::rows::record) reads them.
pub(super) const RECORD: &str = "r.fence, r.sequence, r.created, r.written, r.wake, r.settled, r.expires, r.head, \
     r.sum = sha256(r.head), r.input";
/// The same without its input, which a listing does not show.
const HEAD: &str = "r.fence, r.sequence, r.created, r.written, r.wake, r.settled, r.expires, r.head, \
     r.sum = sha256(r.head), NULL::bytea";
const STAMPS: &str =
    "done.fence, done.sequence, done.created, done.written, done.wake, done.settled, done.expires";
/// What leaves the table leaves the tags and the counts, and raises the floor (L2).
const GONE: &str = "
    raised AS (
      UPDATE SCHEMA.floor SET fence = greatest(floor.fence, highest.fence)
      FROM (SELECT max(fence) AS fence FROM gone) highest WHERE highest.fence > floor.fence
    ),
    untagged AS (
      DELETE FROM SCHEMA.tags t USING gone, unnest(gone.names) AS of_gone (name)
      WHERE t.name = of_gone.name AND t.created = gone.created AND t.id = gone.id
    ),
    moved AS (
      INSERT INTO SCHEMA.moves (namespace, operation, was_state)
      SELECT namespace, operation, state FROM gone
    )";
/// The earliest wake of each lane, one look into the index for each.
const LANES: &str = "
    RECURSIVE lanes (lane, wake) AS (
      (SELECT lane, wake FROM SCHEMA.records WHERE wake IS NOT NULL ORDER BY lane, wake LIMIT 1)
      UNION ALL
      SELECT next.lane, next.wake FROM lanes, LATERAL (
        SELECT r.lane, r.wake FROM SCHEMA.records r
        WHERE r.wake IS NOT NULL AND r.lane > lanes.lane ORDER BY r.lane, r.wake LIMIT 1
      ) next
    )";

/// All of them, for one schema.
pub(super) struct Sql {
    pub(super) insert: Statement,
    pub(super) insert_audited: Statement,
    pub(super) replace: Statement,
    pub(super) replace_audited: Statement,
    pub(super) joins: Statement,
    pub(super) lock_joined: Statement,
    pub(super) insert_joined: Statement,
    pub(super) replace_joined: Statement,
    pub(super) insert_many: Statement,
    pub(super) insert_many_tagged: Statement,
    pub(super) replace_many: Statement,
    pub(super) load_many: Statement,
    pub(super) remove: Statement,
    pub(super) load: Statement,
    pub(super) take_due: Statement,
    pub(super) lanes: Statement,
    pub(super) oldest_pending: Statement,
    pub(super) counts: Statement,
    pub(super) fold: Statement,
    pub(super) sweep: Statement,
    pub(super) search: Statement,
    pub(super) search_key: Statement,
    pub(super) search_tag: Statement,
    pub(super) search_kinds: Statement,
    pub(super) append_audit: Statement,
    pub(super) audit: Statement,
    pub(super) audit_term: Statement,
    pub(super) forget_audit: Statement,
    pub(super) ready: Statement,
    pub(super) durability: Statement,
    pub(super) notify: Statement,
    locks: i64,
}

impl Sql {
    /// The number of the lock that somebody's own transaction takes on a key of this schema. It says nothing about who
    /// may do what: rows do. It says whom not to wait for.
    pub(super) fn lock_of(&self, id: RecordId) -> i64 {
        // The id is a digest, so that any part of it tells it apart.
        let part = id.as_bytes().first_chunk().copied().unwrap_or_default();
        i64::from_be_bytes(part) ^ self.locks
    }

    pub(super) fn new(schema: &str) -> Self {
        let make = |text: &str, types: &[Type]| Statement {
            text: text.replace("SCHEMA", schema),
            types: types.to_vec(),
        };
        let (int, text) = (Type::INT8, Type::TEXT);
        let place = [int.clone(), Type::UUID, int.clone(), int.clone(), int.clone()];
        let with = |more: &[Type]| [&place[..], more].concat();
        Self {
            insert: make(&insert(false, false), &insert_types(false)),
            insert_audited: make(&insert(true, false), &insert_types(true)),
            replace: make(&replace(false, false), &replace_types(false)),
            replace_audited: make(&replace(true, false), &replace_types(true)),
            joins: make("UPDATE SCHEMA.version SET joins = true WHERE NOT joins", &[]),
            lock_joined: make(
                "SELECT SCHEMA.now_ms() FROM pg_advisory_xact_lock($1)",
                std::slice::from_ref(&int),
            ),
            insert_joined: make(&insert(false, true), &insert_types(false)),
            replace_joined: make(&replace(false, true), &replace_types(false)),
            insert_many: make(&batch_sql::insert(false), &batch_sql::insert_types()),
            insert_many_tagged: make(&batch_sql::insert(true), &batch_sql::insert_types()),
            replace_many: make(&batch_sql::replace(), &batch_sql::replace_types()),
            load_many: make(&batch_sql::load(), &[Type::UUID_ARRAY]),
            remove: make(
                &format!(
                    "WITH gone AS (
                       DELETE FROM SCHEMA.records WHERE id = $1 AND fence = $2 AND sequence = $3
                       RETURNING id, fence, namespace, operation, state, created, names
                     ), {GONE} SELECT count(*) FROM gone"
                ),
                &[Type::UUID, int.clone(), int.clone()],
            ),
            load: make(
                &format!(
                    "SELECT greatest(clock.now, r.written), {RECORD} FROM (SELECT SCHEMA.now_ms() AS now) clock
                     LEFT JOIN SCHEMA.records r ON r.id = $1"
                ),
                &[Type::UUID],
            ),
            take_due: make(
                &format!(
                    "WITH clock AS MATERIALIZED (SELECT SCHEMA.now_ms() AS now)
                     SELECT clock.now, {RECORD} FROM clock LEFT JOIN LATERAL (
                       SELECT * FROM SCHEMA.records d WHERE d.lane = $1 AND d.wake <= clock.now
                       ORDER BY d.wake, d.id LIMIT $2
                     ) r ON true ORDER BY r.wake, r.id"
                ),
                &[text.clone(), int.clone()],
            ),
            lanes: make(
                &format!(
                    "WITH {LANES} SELECT SCHEMA.now_ms(), lane, wake FROM lanes
                     UNION ALL SELECT SCHEMA.now_ms(), NULL, NULL ORDER BY 3 NULLS LAST, 2 NULLS LAST"
                ),
                &[],
            ),
            oldest_pending: make(
                "SELECT SCHEMA.now_ms(), (SELECT created FROM SCHEMA.records WHERE state = 0
                 ORDER BY created LIMIT 1)",
                &[],
            ),
            counts: make(COUNTS, &[]),
            fold: make(FOLD, std::slice::from_ref(&int)),
            sweep: make(&sweep(), std::slice::from_ref(&int)),
            search: make(&search("", ""), &place),
            search_key: make(&search("", "AND p.key = $6"), &with(std::slice::from_ref(&int))),
            search_tag: make(&search("tag", "AND p.name = $6"), &with(std::slice::from_ref(&int))),
            search_kinds: make(&search_kinds(), &with(&[Type::INT2, Type::INT2_ARRAY, text.clone()])),
            append_audit: make(APPEND_AUDIT, &APPEND_AUDIT_TYPES),
            audit: make(AUDIT, &[Type::INT8; 3]),
            audit_term: make(AUDIT_TERM, &[&[Type::INT8; 6][..], &[Type::TEXT]].concat()),
            forget_audit: make(FORGET_AUDIT, &[int.clone(), int]),
            ready: make(
                "SELECT SCHEMA.now_ms(), pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on'",
                &[],
            ),
            durability: make(DURABILITY, &[]),
            notify: make(
                "SELECT pg_notify($1, payload) FROM unnest($2) AS payload",
                &[text, Type::TEXT_ARRAY],
            ),
            locks: hash(&[b"keys", schema.as_bytes()]),
        }
    }
}

/// The audit entry of a write, its first place being `$first`.
fn audit(first: usize) -> String {
    let place = |offset: usize| format!("${}", first + offset);
    let [cell, terms, entry, operation, actor, action] = [0, 1, 2, 3, 4, 5].map(place);
    format!(
        ",
    audited AS (
      INSERT INTO SCHEMA.audit (number, at, cell, terms, entry)
      SELECT (written << 21) | (nextval('SCHEMA.audit_counter') & 2097151), written, {cell}, {terms}, {entry}
      FROM done RETURNING number
    ),
    termed AS (
      INSERT INTO SCHEMA.audit_terms (term, cell, number)
      SELECT term, {cell}, audited.number FROM audited, unnest({terms}) AS term
    ),
    celled AS (
      INSERT INTO SCHEMA.audit_cells (cell, operation, actor, action)
      SELECT {cell}, {operation}, {actor}, {action} FROM audited ON CONFLICT DO NOTHING
    )"
    )
}

fn audit_types(audited: bool) -> Vec<Type> {
    let all = [Type::INT8, Type::INT8_ARRAY, Type::BYTEA, Type::INT8, Type::INT8, Type::TEXT];
    if audited { all.to_vec() } else { Vec::new() }
}

/// Gives the clock, the stamps if it was inserted, and else what is there, if this statement's snapshot has it.
fn insert(audited: bool, joined: bool) -> String {
    let audit = if audited { audit(14) } else { String::new() };
    let (column, running) = if joined { (", joined", ", nullif($7 = 1, false)") } else { ("", "") };
    format!(
        "WITH clock AS MATERIALIZED (SELECT SCHEMA.now_ms() AS now),
    done AS (
      INSERT INTO SCHEMA.records (id, fence, sequence, namespace, state, operation, key, lane, created, written, wake,
        settled, expires, names, head, sum, input{column})
      SELECT $1, greatest($2, (SELECT fence FROM SCHEMA.floor)) + 1, 0, $3, $7, $4, $5, $6, now, now, now + $8,
        CASE WHEN $9 IS NULL THEN NULL ELSE now END, now + $9, $10, $11, sha256($11), $12{running}
      FROM clock WHERE SCHEMA.now_ms() <= $13
      ON CONFLICT (id) DO NOTHING
      RETURNING SCHEMA.above_floor(fence) AS fence, sequence, namespace, operation, state, created, written, wake,
        settled, expires
    ),
    tagged AS (
      INSERT INTO SCHEMA.tags (name, created, id) SELECT name, done.created, $1 FROM done, unnest($10) AS name
    ),
    moved AS (
      INSERT INTO SCHEMA.moves (namespace, operation, state) SELECT namespace, operation, state FROM done
    ){audit}
    SELECT greatest(clock.now, r.written), {STAMPS}, {RECORD}
    FROM clock LEFT JOIN done ON true LEFT JOIN SCHEMA.records r ON r.id = $1 AND done.fence IS NULL"
    )
}

fn insert_types(audited: bool) -> Vec<Type> {
    let own = [
        Type::UUID,
        Type::INT8,
        Type::INT2,
        Type::TEXT,
        Type::INT8,
        Type::TEXT,
        Type::INT2,
        Type::INT8,
        Type::INT8,
        Type::INT8_ARRAY,
        Type::BYTEA,
        Type::BYTEA,
        Type::INT8,
    ];
    [own.to_vec(), audit_types(audited)].concat()
}

/// As [`insert`]. A retention below zero leaves the times of the record's rest as they are, and takes its input away.
/// The deadline is read from the clock where the row is compared: once more, if that had to wait for a
/// lock. Damaged bytes are no version that anybody can have judged (L13).
fn replace(audited: bool, joined: bool) -> String {
    let audit = if audited { audit(16) } else { String::new() };
    let running = if joined { "joined = nullif($8 = 1, false)," } else { "" };
    format!(
        "WITH clock AS MATERIALIZED (SELECT SCHEMA.now_ms() AS now),
    done AS (
      UPDATE SCHEMA.records r SET
        fence = CASE WHEN $4 THEN greatest(r.fence, floor.fence) + 1 ELSE r.fence END,
        sequence = CASE WHEN $4 THEN 0 ELSE r.sequence + 1 END,
        {running} state = $8, operation = $6, lane = $7,
        created = CASE WHEN $5 THEN greatest(now, r.written) ELSE r.created END,
        written = greatest(now, r.written),
        wake = CASE WHEN $9 THEN r.wake ELSE greatest(now, r.written) + $10 END,
        settled = CASE WHEN $11 IS NULL THEN NULL WHEN $11 < 0 THEN r.settled ELSE greatest(now, r.written) END,
        expires = CASE WHEN $11 < 0 THEN r.expires ELSE greatest(now, r.written) + $11 END,
        names = CASE WHEN $5 THEN $12 ELSE r.names END,
        head = $13, sum = sha256($13), input = CASE WHEN $5 THEN $14 WHEN $11 < 0 THEN NULL ELSE coalesce(r.input, $14) END,
        was_state = r.state, was_operation = nullif(r.operation, $6),
        was_created = CASE WHEN $5 THEN r.created END, was_names = CASE WHEN $5 THEN r.names END
      FROM clock, SCHEMA.floor
      WHERE r.id = $1 AND r.fence = $2 AND r.sequence = $3 AND SCHEMA.now_ms() <= $15 AND r.sum = sha256(r.head)
      RETURNING r.*
    ),
    untagged AS (
      DELETE FROM SCHEMA.tags t USING done, unnest(done.was_names) AS of_done (name)
      WHERE t.name = of_done.name AND t.created = done.was_created AND t.id = $1
    ),
    tagged AS (
      INSERT INTO SCHEMA.tags (name, created, id)
      SELECT name, done.created, $1 FROM done, unnest(done.names) AS name WHERE done.was_created IS NOT NULL
    ),
    moved AS (
      INSERT INTO SCHEMA.moves (namespace, operation, state, was_operation, was_state)
      SELECT namespace, operation, state, was_operation, was_state FROM done
      WHERE was_state <> state OR was_operation IS NOT NULL
    ){audit}
    SELECT greatest(clock.now, done.written, r.written), {STAMPS}, {RECORD}
    FROM clock LEFT JOIN done ON true LEFT JOIN SCHEMA.records r ON r.id = $1 AND done.fence IS NULL"
    )
}

fn replace_types(audited: bool) -> Vec<Type> {
    let own = [
        Type::UUID,
        Type::INT8,
        Type::INT8,
        Type::BOOL,
        Type::BOOL,
        Type::TEXT,
        Type::TEXT,
        Type::INT2,
        Type::BOOL,
        Type::INT8,
        Type::INT8,
        Type::INT8_ARRAY,
        Type::BYTEA,
        Type::BYTEA,
        Type::INT8,
    ];
    [own.to_vec(), audit_types(audited)].concat()
}

/// By id from a list, so that the plan is a look into the index for each, whatever the planner believes of the table.
fn sweep() -> String {
    format!(
        "WITH picked AS MATERIALIZED (
           SELECT id FROM SCHEMA.records WHERE expires <= (SELECT SCHEMA.now_ms()) ORDER BY expires, id LIMIT $1
           FOR UPDATE SKIP LOCKED
         ),
         gone AS (
           DELETE FROM SCHEMA.records WHERE id = ANY (ARRAY(SELECT id FROM picked))
           RETURNING id, fence, namespace, operation, state, created, names
         ), {GONE} SELECT id FROM gone"
    )
}

const COUNTS: &str = "
    SELECT namespace, operation, state, sum(records)::bigint FROM (
      SELECT namespace, operation, state, records FROM SCHEMA.counts
      UNION ALL SELECT namespace, operation, state, records FROM SCHEMA.moves WHERE state IS NOT NULL
      UNION ALL SELECT namespace, coalesce(was_operation, operation), was_state, -records FROM SCHEMA.moves
        WHERE was_state IS NOT NULL
    ) kinds GROUP BY 1, 2, 3 HAVING sum(records) > 0";

/// Two at once take different moves, or the same once: a row is returned to whoever has deleted it.
const FOLD: &str = "
    WITH taken AS (
      DELETE FROM SCHEMA.moves WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM SCHEMA.moves LIMIT $1 FOR UPDATE SKIP LOCKED
      )) RETURNING namespace, operation, state, was_operation, was_state, records
    ),
    added AS (
      SELECT namespace, operation, state, sum(records)::bigint AS records FROM (
        SELECT namespace, operation, state, records FROM taken WHERE state IS NOT NULL
        UNION ALL SELECT namespace, coalesce(was_operation, operation), was_state, -records FROM taken
          WHERE was_state IS NOT NULL
      ) moved GROUP BY 1, 2, 3 HAVING sum(records) <> 0 ORDER BY 2, 1, 3
    ),
    folded AS (
      INSERT INTO SCHEMA.counts (namespace, operation, state, records) SELECT * FROM added
      ON CONFLICT (operation, namespace, state) DO UPDATE SET records = counts.records + excluded.records
    )
    SELECT count(*) FROM taken";

/// Where a page begins: below a place, within times, so many.
const PLACE: &str = "(p.created, p.id) < ($1, $2) AND p.created < $3 AND p.created >= $4";

fn search(by: &str, more: &str) -> String {
    let (table, order) = (if by == "tag" { "tags" } else { "records" }, "p.created DESC, p.id DESC LIMIT $5");
    format!(
        "SELECT SCHEMA.now_ms(), r.id, 1::bigint, {HEAD} FROM (
           SELECT p.created, p.id FROM SCHEMA.{table} p WHERE {PLACE} {more} ORDER BY {order}
         ) place JOIN SCHEMA.records r ON r.id = place.id AND r.created = place.created
         ORDER BY r.created DESC, r.id DESC"
    )
}

/// Each kind of record that is asked for has an order of its own; the newest of all of them.
fn search_kinds() -> String {
    format!(
        "WITH kinds AS MATERIALIZED (
           SELECT operation, namespace, state FROM SCHEMA.counts
           UNION SELECT operation, namespace, state FROM SCHEMA.moves WHERE state IS NOT NULL
         )
         SELECT SCHEMA.now_ms(), r.id, place.read, {HEAD} FROM (
           SELECT of_kind.created, of_kind.id, count(*) OVER () AS read FROM kinds k CROSS JOIN LATERAL (
             SELECT p.created, p.id FROM SCHEMA.records p
             WHERE p.operation = k.operation AND p.namespace = k.namespace AND p.state = k.state AND {PLACE}
             ORDER BY p.created DESC, p.id DESC LIMIT $5
           ) of_kind
           WHERE ($6 IS NULL OR k.namespace = $6) AND ($7 IS NULL OR k.state = ANY ($7))
             AND ($8 IS NULL OR k.operation = $8)
           ORDER BY of_kind.created DESC, of_kind.id DESC LIMIT $5
         ) place JOIN SCHEMA.records r ON r.id = place.id ORDER BY r.created DESC, r.id DESC"
    )
}

/// Whether texts can be kept, whether commits are synced, and whether they are on a standby if there is one.
const DURABILITY: &str = "
    SELECT current_setting('server_encoding') = 'UTF8',
      current_setting('fsync') = 'on' AND current_setting('synchronous_commit') <> 'off',
      current_setting('synchronous_commit') <> 'local' AND current_setting('synchronous_standby_names') <> ''
        OR NOT EXISTS (SELECT FROM pg_stat_replication)";

const AUDIT: &str = "
    SELECT number, at, entry, 1::bigint FROM SCHEMA.audit WHERE number < $1 AND number >= $2
    ORDER BY number DESC LIMIT $3";

const APPEND_AUDIT_TYPES: [Type; 7] = [
    Type::INT8_ARRAY,
    Type::TEXT_ARRAY,
    Type::BYTEA_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
];
/// The time at which each happened, but none before the newest that is there, and none after now.
const APPEND_AUDIT: &str = "
    WITH clock AS MATERIALIZED (
      SELECT SCHEMA.now_ms() AS now, coalesce((SELECT max(number) FROM SCHEMA.audit) >> 21, 0) AS newest
    ),
    timed AS MATERIALIZED (
      SELECT given.cell, given.terms::bigint[] AS terms, given.entry, given.operation, given.actor, given.action,
        greatest(newest, max(CASE WHEN happened = 0 THEN now ELSE least(happened, now) END) OVER (ORDER BY place)) AS at
      FROM clock, unnest($1, $2, $3, $4, $5, $6, $7) WITH ORDINALITY
        AS given (cell, terms, entry, operation, actor, action, happened, place)
      ORDER BY place
    ),
    given AS MATERIALIZED (
      SELECT timed.*, (at << 21) | (nextval('SCHEMA.audit_counter') & 2097151) AS number FROM timed
    ),
    audited AS (
      INSERT INTO SCHEMA.audit (number, at, cell, terms, entry)
      SELECT number, at, cell, terms, entry FROM given
    ),
    termed AS (
      INSERT INTO SCHEMA.audit_terms (term, cell, number) SELECT term, cell, number FROM given, unnest(terms) AS term
    ),
    celled AS (
      INSERT INTO SCHEMA.audit_cells (cell, operation, actor, action)
      SELECT DISTINCT ON (cell) cell, operation, actor, action FROM given ORDER BY cell ON CONFLICT DO NOTHING
    )
    SELECT now FROM clock";

/// Of what is looked up, the cells that are asked for, each in its own order; the newest of all of them.
const AUDIT_TERM: &str = "
    WITH RECURSIVE cells (cell) AS (
      (SELECT cell FROM SCHEMA.audit_terms WHERE term = $4 ORDER BY cell LIMIT 1)
      UNION ALL
      SELECT next.cell FROM cells, LATERAL (
        SELECT t.cell FROM SCHEMA.audit_terms t WHERE t.term = $4 AND t.cell > cells.cell ORDER BY t.cell LIMIT 1
      ) next
    )
    SELECT a.number, a.at, a.entry, place.read FROM (
      SELECT of_cell.number, count(*) OVER () AS read
      FROM cells JOIN SCHEMA.audit_cells c ON c.cell = cells.cell CROSS JOIN LATERAL (
        SELECT t.number FROM SCHEMA.audit_terms t
        WHERE t.term = $4 AND t.cell = c.cell AND t.number < $1 AND t.number >= $2 ORDER BY t.number DESC LIMIT $3
      ) of_cell
      WHERE ($5 IS NULL OR c.operation = $5) AND ($6 IS NULL OR c.actor = $6) AND ($7 IS NULL OR c.action = $7)
      ORDER BY of_cell.number DESC LIMIT $3
    ) place JOIN SCHEMA.audit a ON a.number = place.number ORDER BY a.number DESC";

const FORGET_AUDIT: &str = "
    WITH gone AS (
      DELETE FROM SCHEMA.audit WHERE number = ANY (ARRAY(
        SELECT number FROM SCHEMA.audit WHERE number < $1 ORDER BY number LIMIT $2
      )) RETURNING number, cell, terms
    ),
    unlisted AS (
      DELETE FROM SCHEMA.audit_terms t USING gone, unnest(gone.terms) AS of_gone (term)
      WHERE t.term = of_gone.term AND t.cell = gone.cell AND t.number = gone.number
    )
    SELECT count(*) FROM gone";

//! The statements that do many commands at once. Each is a transaction of its own; the commands in it are independent.
//!
//! What a command is given of its own comes as a column of arrays, which `unnest` makes rows of, at some tenths of a
//! microsecond for each value; what it has in common with others comes once, in arrays of *kinds* that rows point into. A
//! column in which nobody has anything is no array at all. Rows come in the order of their ids
//! and are locked in that order, so that two batches never wait for each other in a circle. A record whose key is held
//! by somebody's own transaction ([`joined`](super::joined)) is left out: the batch must not wait for that transaction. Where
//! nobody ever had one, nobody looks.

use tokio_postgres::types::Type;

/// The columns of an answer: the time, whether the row was made by this statement, its id, and then as
/// [`RECORD`](super::sql::RECORD).
const MADE: &str = "SELECT NULL::bigint, true, done.id, done.fence, done.sequence, done.created, done.written, \
     done.wake, done.settled, done.expires, NULL::bytea, NULL::boolean, NULL::bytea FROM done";
const NOTHING: &str = "NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, \
     NULL::bytea, NULL::boolean, NULL::bytea";
/// What is there in the place of what could not be made, if this statement's snapshot has it. Nothing is looked up if all
/// could be made.
const THERE: &str = "SELECT NULL::bigint, false, r.id, r.fence, r.sequence, r.created, r.written, r.wake, r.settled, \
     r.expires, r.head, r.sum = sha256(r.head), r.input FROM SCHEMA.records r \
     WHERE (SELECT count(*) FROM done) < cardinality($1) AND r.id = ANY ($1) AND r.id NOT IN (SELECT done.id FROM done)";

/// As the single insert. The floor is looked at once more when all rows are there: the lowest fence is above it, or the
/// statement ends, and the batch begins anew.
pub(super) fn insert(tags: bool) -> String {
    let tagged = if tags {
        "tagged AS (
      INSERT INTO SCHEMA.tags (name, created, id) SELECT name, done.created, done.id FROM done, unnest(done.names) AS name
    ),"
    } else {
        ""
    };
    let names = if tags { ", names" } else { "" };
    format!(
        "WITH clock AS MATERIALIZED (SELECT SCHEMA.now_ms() AS now, (SELECT fence FROM SCHEMA.floor) AS floor,
      (SELECT joins FROM SCHEMA.version) AS joins),
    done AS (
      INSERT INTO SCHEMA.records (id, fence, sequence, namespace, state, operation, key, lane, created, written, wake,
        settled, expires, names, head, sum, input)
      SELECT g.id, greatest(g.after, floor) + 1, 0, ($9)[g.kind], ($12)[g.kind], ($10)[g.kind], g.key, ($11)[g.kind],
        now, now, now + ($13)[g.kind], CASE WHEN ($14)[g.kind] IS NULL THEN NULL ELSE now END, now + ($14)[g.kind],
        CASE WHEN g.names IS NULL THEN '{{}}'::bigint[] ELSE g.names::bigint[] END, g.head, sha256(g.head), g.input
      FROM clock, unnest($1, $2, $3, $4, $5, $6, $7, $8) AS g (id, after, key, names, head, input, lock, kind)
      WHERE now <= ($15)[g.kind] AND CASE WHEN joins THEN pg_try_advisory_xact_lock_shared(g.lock) ELSE true END
      ON CONFLICT (id) DO NOTHING
      RETURNING id, fence, sequence, namespace, operation, state, created, written, wake, settled, expires{names}
    ),
    {tagged}
    moved AS (
      INSERT INTO SCHEMA.moves (namespace, operation, state, records)
      SELECT namespace, operation, state, count(*) FROM done GROUP BY namespace, operation, state
    )
    SELECT clock.now, false, NULL::uuid, SCHEMA.above_floor((SELECT min(fence) FROM done)), {NOTHING} FROM clock
    UNION ALL {MADE} UNION ALL {THERE}"
    )
}

pub(super) fn insert_types() -> Vec<Type> {
    vec![
        Type::UUID_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::TEXT_ARRAY,
        Type::BYTEA_ARRAY,
        Type::BYTEA_ARRAY,
        Type::INT8_ARRAY,
        Type::INT2_ARRAY,
        // Of each kind.
        Type::INT2_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT2_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
    ]
}

/// As the single replacement, for what begins no new life and leaves no audit entry.
pub(super) fn replace() -> String {
    format!(
        "WITH clock AS MATERIALIZED (SELECT SCHEMA.now_ms() AS now, (SELECT fence FROM SCHEMA.floor) AS floor,
      (SELECT joins FROM SCHEMA.version) AS joins),
    done AS (
      UPDATE SCHEMA.records r SET
        fence = CASE WHEN ($8)[g.kind] THEN greatest(r.fence, floor) + 1 ELSE r.fence END,
        sequence = CASE WHEN ($8)[g.kind] THEN 0 ELSE r.sequence + 1 END,
        state = ($11)[g.kind], operation = ($9)[g.kind], lane = ($10)[g.kind], written = greatest(now, r.written),
        wake = CASE WHEN ($12)[g.kind] THEN r.wake ELSE greatest(now, r.written) + ($13)[g.kind] END,
        settled = CASE WHEN ($14)[g.kind] IS NULL THEN NULL ELSE greatest(now, r.written) END,
        expires = greatest(now, r.written) + ($14)[g.kind],
        head = g.head, sum = sha256(g.head), input = coalesce(r.input, g.input),
        was_state = r.state, was_operation = nullif(r.operation, ($9)[g.kind]), was_created = NULL, was_names = NULL
      FROM clock, unnest($1, $2, $3, $4, $5, $6, $7) AS g (id, fence, sequence, head, input, lock, kind)
      WHERE r.id = g.id AND r.fence = g.fence AND r.sequence = g.sequence AND SCHEMA.now_ms() <= ($15)[g.kind]
        AND r.sum = sha256(r.head) AND CASE WHEN joins THEN pg_try_advisory_xact_lock_shared(g.lock) ELSE true END
      RETURNING r.id, r.fence, r.sequence, r.namespace, r.operation, r.state, r.created, r.written, r.wake, r.settled,
        r.expires, r.was_state, r.was_operation
    ),
    moved AS (
      INSERT INTO SCHEMA.moves (namespace, operation, state, was_operation, was_state, records)
      SELECT namespace, operation, state, was_operation, was_state, count(*) FROM done
      WHERE was_state <> state OR was_operation IS NOT NULL
      GROUP BY namespace, operation, state, was_operation, was_state
    )
    SELECT clock.now, false, NULL::uuid, NULL::bigint, {NOTHING} FROM clock UNION ALL {MADE} UNION ALL {THERE}"
    )
}

pub(super) fn replace_types() -> Vec<Type> {
    vec![
        Type::UUID_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::BYTEA_ARRAY,
        Type::BYTEA_ARRAY,
        Type::INT8_ARRAY,
        Type::INT2_ARRAY,
        // Of each kind.
        Type::BOOL_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT2_ARRAY,
        Type::BOOL_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
    ]
}

/// Loads many records.
pub(super) fn load() -> String {
    format!(
        "SELECT SCHEMA.now_ms(), false, NULL::uuid, NULL::bigint, {NOTHING}
    UNION ALL
    SELECT NULL::bigint, false, r.id, r.fence, r.sequence, r.created, r.written, r.wake, r.settled,
      r.expires, r.head, r.sum = sha256(r.head), r.input
    FROM SCHEMA.records r WHERE r.id = ANY ($1)"
    )
}

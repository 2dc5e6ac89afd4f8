//! The statements that do many commands at once. Each is a transaction of its own; the commands in it are independent.
//!
//! What a command is given comes as a column of arrays, which `unnest` makes rows of. Rows come in the order of their ids
//! and are locked in that order, so that two batches never wait for each other in a circle. A record whose key is held
//! by somebody's own transaction ([`joined`](super::joined)) is left out: the batch must not wait for that transaction.

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
    format!(
        "WITH clock AS MATERIALIZED (SELECT SCHEMA.now_ms() AS now, (SELECT fence FROM SCHEMA.floor) AS floor),
    done AS (
      INSERT INTO SCHEMA.records (id, fence, sequence, namespace, state, operation, key, lane, created, written, wake,
        settled, expires, names, head, sum, input)
      SELECT g.id, greatest(g.after, floor) + 1, 0, g.namespace, g.state, g.operation, g.key, g.lane, now, now,
        now + g.wake, CASE WHEN g.rests IS NULL THEN NULL ELSE now END, now + g.rests, g.names::bigint[], g.head,
        sha256(g.head), g.input
      FROM clock, unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        AS g (id, after, namespace, operation, key, lane, state, wake, rests, names, head, input, deadline, lock)
      WHERE now <= g.deadline AND pg_try_advisory_xact_lock_shared(g.lock)
      ON CONFLICT (id) DO NOTHING
      RETURNING id, fence, sequence, namespace, operation, state, created, written, wake, settled, expires, names
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
        Type::INT2_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT2_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::TEXT_ARRAY,
        Type::BYTEA_ARRAY,
        Type::BYTEA_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
    ]
}

/// As the single replacement, for what begins no new life and leaves no audit entry.
pub(super) fn replace() -> String {
    format!(
        "WITH clock AS MATERIALIZED (SELECT SCHEMA.now_ms() AS now, (SELECT fence FROM SCHEMA.floor) AS floor),
    done AS (
      UPDATE SCHEMA.records r SET
        fence = CASE WHEN g.raise THEN greatest(r.fence, floor) + 1 ELSE r.fence END,
        sequence = CASE WHEN g.raise THEN 0 ELSE r.sequence + 1 END,
        state = g.state, operation = g.operation, lane = g.lane, written = greatest(now, r.written),
        wake = CASE WHEN g.keep_wake THEN r.wake ELSE greatest(now, r.written) + g.wake END,
        settled = CASE WHEN g.rests IS NULL THEN NULL ELSE greatest(now, r.written) END,
        expires = greatest(now, r.written) + g.rests,
        head = g.head, sum = sha256(g.head), input = coalesce(r.input, g.input),
        was_state = r.state, was_operation = nullif(r.operation, g.operation), was_created = NULL, was_names = NULL
      FROM clock, unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        AS g (id, fence, sequence, raise, operation, lane, state, keep_wake, wake, rests, head, input, deadline, lock)
      WHERE r.id = g.id AND r.fence = g.fence AND r.sequence = g.sequence AND SCHEMA.now_ms() <= g.deadline
        AND r.sum = sha256(r.head) AND pg_try_advisory_xact_lock_shared(g.lock)
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
        Type::BOOL_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT2_ARRAY,
        Type::BOOL_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::BYTEA_ARRAY,
        Type::BYTEA_ARRAY,
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

//! The statements that do many commands at once. Each is a transaction of its own; the commands in it are independent.
//!
//! What a command is given of its own comes as a column of arrays, out of which each row takes its own by number: a function that makes
//! rows of arrays keeps those of each array apart, which costs more than the looks. What a command has in common with others comes
//! once, in arrays of *kinds* that rows point into. A column in which nobody has anything is no array at all. Rows come in the order
//! of their ids and are locked in that order, so that two batches never wait for each other in a circle. A record whose key is held
//! by somebody's own transaction ([`joined`](super::joined)) is left out: the batch must not wait for that transaction. Where
//! nobody ever had one, nobody looks.
//!
//! The answer is one row, if all went well: the time and the floor, from which whoever asked knows what each record was stamped with.

use tokio_postgres::types::Type;

/// The first row of an answer: the time, the floor, and which records this statement made, if not all; then, in the place of a
/// record, nothing.
const NOTHING: &str = "NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, \
     NULL::bytea, NULL::boolean, NULL::bytea";
const MADE: &str = "clock.now, clock.floor, \
     CASE WHEN ended.records < cardinality($1) THEN ARRAY(SELECT done.id FROM done) END, NULL::uuid";
/// What is there in the place of what could not be made, if this statement's snapshot has it: its id, and then as
/// [`RECORD`](super::sql::RECORD). Nothing is looked up if all could be made.
const THERE: &str = "SELECT NULL::bigint, NULL::bigint, NULL::uuid[], r.id, r.fence, r.sequence, r.created, r.written, \
     r.wake, r.settled, r.expires, r.head, r.sum = sha256(r.head), r.input FROM SCHEMA.records r \
     WHERE (SELECT ended.records FROM ended) < cardinality($1) AND r.id = ANY ($1) \
     AND r.id NOT IN (SELECT done.id FROM done)";

/// As the single insert. The floor is looked at once more when all rows are there: the lowest fence is above it, or the
/// statement ends, and the batch begins anew.
pub(super) fn insert(tags: bool) -> String {
    let tagged = if tags {
        "tagged AS (
      INSERT INTO SCHEMA.tags (name, created, id)
      SELECT name, done.created, done.id FROM done, unnest(done.names) AS name
    ),"
    } else {
        ""
    };
    let names = if tags { ", created, names" } else { "" };
    format!(
        "WITH clock AS MATERIALIZED (SELECT SCHEMA.now_ms() AS now, (SELECT fence FROM SCHEMA.floor) AS floor,
      (SELECT joins FROM SCHEMA.version) AS joins),
    done AS (
      INSERT INTO SCHEMA.records (id, fence, sequence, namespace, state, operation, key, lane, created, written, wake,
        settled, expires, names, head, sum, input)
      SELECT ($1)[g.at], greatest(($2)[g.at], floor) + 1, 0, ($9)[g.kind], ($12)[g.kind], ($10)[g.kind], ($3)[g.at],
        ($11)[g.kind], now, now, now + ($13)[g.kind], CASE WHEN ($14)[g.kind] IS NULL THEN NULL ELSE now END,
        now + ($14)[g.kind], CASE WHEN ($4)[g.at] IS NULL THEN '{{}}'::bigint[] ELSE ($4)[g.at]::bigint[] END,
        ($5)[g.at], sha256(($5)[g.at]), ($6)[g.at]
      FROM clock, unnest($8) WITH ORDINALITY AS g (kind, at)
      WHERE now <= ($15)[g.kind]
        AND CASE WHEN joins THEN pg_try_advisory_xact_lock_shared(($7)[g.at]) ELSE true END
      ON CONFLICT (id) DO NOTHING
      RETURNING id, fence, namespace, operation, state{names}
    ),
    {tagged}
    moved AS (
      INSERT INTO SCHEMA.moves (namespace, operation, state, records)
      SELECT namespace, operation, state, count(*) FROM done GROUP BY namespace, operation, state
    ),
    ended AS MATERIALIZED (SELECT count(*) AS records, min(fence) AS lowest FROM done)
    SELECT {MADE}, SCHEMA.above_floor(ended.lowest), {NOTHING} FROM clock, ended
    UNION ALL {THERE}"
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
        head = ($4)[g.at], sum = sha256(($4)[g.at]), input = coalesce(r.input, ($5)[g.at]),
        was_state = r.state, was_operation = nullif(r.operation, ($9)[g.kind]), was_created = NULL, was_names = NULL
      FROM clock, unnest($7) WITH ORDINALITY AS g (kind, at)
      WHERE r.id = ($1)[g.at] AND r.fence = ($2)[g.at] AND r.sequence = ($3)[g.at]
        AND SCHEMA.now_ms() <= ($15)[g.kind] AND r.sum = sha256(r.head)
        AND CASE WHEN joins THEN pg_try_advisory_xact_lock_shared(($6)[g.at]) ELSE true END
      RETURNING r.id, r.namespace, r.operation, r.state, r.was_state, r.was_operation
    ),
    moved AS (
      INSERT INTO SCHEMA.moves (namespace, operation, state, was_operation, was_state, records)
      SELECT namespace, operation, state, was_operation, was_state, count(*) FROM done
      WHERE was_state <> state OR was_operation IS NOT NULL
      GROUP BY namespace, operation, state, was_operation, was_state
    ),
    ended AS MATERIALIZED (SELECT count(*) AS records FROM done)
    SELECT {MADE}, NULL::bigint, {NOTHING} FROM clock, ended
    UNION ALL {THERE}"
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
        "SELECT SCHEMA.now_ms(), NULL::bigint, NULL::uuid[], NULL::uuid, NULL::bigint, {NOTHING}
    UNION ALL
    SELECT NULL::bigint, NULL::bigint, NULL::uuid[], r.id, r.fence, r.sequence, r.created, r.written, r.wake, r.settled,
      r.expires, r.head, r.sum = sha256(r.head), r.input
    FROM SCHEMA.records r WHERE r.id = ANY ($1)"
    )
}

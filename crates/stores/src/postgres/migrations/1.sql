-- The database's clock in milliseconds. A function, so that tests can put their own in its place.
CREATE FUNCTION SCHEMA.now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS
$$ SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint $$;

-- The highest fence of any record that was removed: one row, written by removals only.
CREATE TABLE SCHEMA.floor (fence bigint NOT NULL);
INSERT INTO SCHEMA.floor VALUES (0);

-- Volatile, so that it sees what was committed since its statement began.
CREATE FUNCTION SCHEMA.above_floor(given bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE AS
$$
BEGIN
  IF EXISTS (SELECT FROM SCHEMA.floor WHERE fence >= given) THEN
    RAISE EXCEPTION 'the floor of the fences has risen' USING ERRCODE = 'serialization_failure';
  END IF;
  RETURN given;
END
$$;

CREATE TABLE SCHEMA.records (
  id uuid PRIMARY KEY,
  fence bigint NOT NULL,
  sequence bigint NOT NULL,
  namespace smallint NOT NULL,
  state smallint NOT NULL,
  operation text COLLATE "C" NOT NULL,
  -- A hash: keys are compared whole in the record's bytes.
  key bigint NOT NULL,
  -- Empty where there is none; no lane has an empty name.
  lane text COLLATE "C" NOT NULL,
  created bigint NOT NULL,
  written bigint NOT NULL,
  wake bigint,
  settled bigint,
  expires bigint,
  -- Hashes of the tags.
  names bigint[] NOT NULL,
  -- The record without its input, with stamps that the columns replace.
  head bytea NOT NULL,
  -- SHA-256 of the head.
  sum bytea NOT NULL,
  input bytea,
  -- What the row was before its last change, for the statement that makes it.
  was_state smallint,
  was_operation text COLLATE "C",
  was_created bigint,
  was_names bigint[]
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX records_due ON SCHEMA.records (lane, wake, id) WHERE wake IS NOT NULL;
CREATE INDEX records_expires ON SCHEMA.records (expires, id) WHERE expires IS NOT NULL;
CREATE INDEX records_created ON SCHEMA.records (created, id);
CREATE INDEX records_kind ON SCHEMA.records (operation, namespace, state, created, id);
CREATE INDEX records_key ON SCHEMA.records (key, created, id);
CREATE INDEX records_pending ON SCHEMA.records (created) WHERE state = 0;

CREATE TABLE SCHEMA.tags (name bigint NOT NULL, created bigint NOT NULL, id uuid NOT NULL)
  WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX tags_name ON SCHEMA.tags (name, created, id);

-- How many records there are of each kind, up to the moves that are not folded in yet. Writers append moves, since a
-- counter would be a row that all of them wait for.
CREATE TABLE SCHEMA.counts (
  operation text COLLATE "C" NOT NULL,
  namespace smallint NOT NULL,
  state smallint NOT NULL,
  records bigint NOT NULL,
  PRIMARY KEY (operation, namespace, state)
);
CREATE TABLE SCHEMA.moves (
  namespace smallint NOT NULL,
  operation text COLLATE "C",
  state smallint,
  was_operation text COLLATE "C",
  was_state smallint
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- Numbers are the time in the upper bits and this counter in the lower 21: one order for both.
CREATE SEQUENCE SCHEMA.audit_counter;
CREATE TABLE SCHEMA.audit (
  number bigint PRIMARY KEY,
  at bigint NOT NULL,
  cell bigint NOT NULL,
  terms bigint[] NOT NULL,
  entry bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05);
-- What entries are looked up by, as hashes: everything, the record, the correlation, the key, each tag; and within
-- that by who did what.
CREATE TABLE SCHEMA.audit_terms (term bigint NOT NULL, cell bigint NOT NULL, number bigint NOT NULL)
  WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX audit_terms_term ON SCHEMA.audit_terms (term, cell, number);
-- Who did what, by hash: a few for each actor.
CREATE TABLE SCHEMA.audit_cells (
  cell bigint PRIMARY KEY,
  operation bigint,
  actor bigint NOT NULL,
  action text COLLATE "C" NOT NULL
);

-- A batch of writes leaves one move for each kind of change, and not one for each record.
ALTER TABLE SCHEMA.moves ADD COLUMN records bigint NOT NULL DEFAULT 1;

-- Under a stricter isolation even a new look shows the old snapshot: there, the floor is locked, which fails if it has
-- risen since that snapshot. The lock is given back at once, by rolling back what took it, so that removals get by.
CREATE OR REPLACE FUNCTION SCHEMA.above_floor(given bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE AS
$$
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    BEGIN
      PERFORM FROM SCHEMA.floor FOR SHARE;
      RAISE EXCEPTION 'it has not risen' USING ERRCODE = 'SM000';
    EXCEPTION WHEN SQLSTATE 'SM000' THEN
      NULL;
    END;
  END IF;
  IF EXISTS (SELECT FROM SCHEMA.floor WHERE fence >= given) THEN
    RAISE EXCEPTION 'the floor of the fences has risen' USING ERRCODE = 'serialization_failure';
  END IF;
  RETURN given;
END
$$;

-- As before, in floating point: it is asked for every row, and 53 bits hold microseconds.
CREATE OR REPLACE FUNCTION SCHEMA.now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS
$$ SELECT floor(date_part('epoch', clock_timestamp()) * 1000)::bigint $$;

-- A claim that was made in somebody's own transaction, until its work has ended there.
ALTER TABLE SCHEMA.records ADD COLUMN joined boolean;

-- The key, the rows and the outcome are committed together or not at all: a transaction whose work has not ended cannot
-- be committed, whatever became of the program between.
CREATE FUNCTION SCHEMA.refuse_unended() RETURNS trigger LANGUAGE plpgsql AS
$$
BEGIN
  IF EXISTS (SELECT FROM SCHEMA.records WHERE id = NEW.id AND joined) THEN
    RAISE EXCEPTION 'the work of a claim in this transaction has not ended'
      USING ERRCODE = 'invalid_transaction_termination';
  END IF;
  RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER records_joined AFTER INSERT OR UPDATE OF joined ON SCHEMA.records
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.joined) EXECUTE FUNCTION SCHEMA.refuse_unended();

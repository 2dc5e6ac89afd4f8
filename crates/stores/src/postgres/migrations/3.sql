-- Whether any claim ever joined somebody's own transaction here. Only then does a batch try, of each of its keys, whether
-- such a transaction holds it: an entry in the server's table of locks for each.
ALTER TABLE SCHEMA.version ADD COLUMN joins boolean NOT NULL DEFAULT false;

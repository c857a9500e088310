"""The state store in PostgreSQL: its tables, and the guards of protocol 2 as SQL.

Every statement runs at REPEATABLE READ and looks at one snapshot. A record that somebody else changed after that
snapshot cannot be changed from it: PostgreSQL refuses the whole statement (40001), and it is sent again. So what is
judged is what is changed, and the entries that are read belong to the version that is read with them. At READ
COMMITTED neither holds; a statement that finds itself there does nothing (`_ISOLATED`), which happens behind a pooler
that hands out other sessions.
"""

from __future__ import annotations

VERSION = 1
"""Of the tables."""

LOCK = 0x54_4E_52_45
"""Advisory lock of whoever makes the tables."""

# Not to_regclass: within a transaction that waited for whoever made them, it still answers from before.
STANDING = "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'tenure_store')"

ABOUT = "SELECT version, cluster, founder FROM tenure_store"

# Room in the pages of records: every turn changes a row there, and an index never. Keys of entries are bytes: a
# client's id may hold what no text may. Values are compressed before they come, if they are.
SCHEMA = (
    """CREATE TABLE tenure_store (one boolean PRIMARY KEY DEFAULT true CHECK (one), version int NOT NULL,
    cluster text NOT NULL, founder text NOT NULL, made timestamptz NOT NULL DEFAULT now())""",
    """CREATE TABLE tenure_record (uid text COLLATE "C" PRIMARY KEY, sealed bigint NOT NULL, epoch bigint NOT NULL,
    seq bigint NOT NULL) WITH (fillfactor = 50)""",
    """CREATE TABLE tenure_entry (uid text COLLATE "C", key bytea, crc bigint NOT NULL, value bytea NOT NULL,
    PRIMARY KEY (uid, key)) WITH (fillfactor = 80)""",
    "ALTER TABLE tenure_entry ALTER COLUMN value SET STORAGE EXTERNAL",
    "COMMENT ON TABLE tenure_record IS 'One row per agent (uid): the highest sealed epoch, and the version stored'",
    "COMMENT ON TABLE tenure_entry IS 'The entries of the records; keys: docs/durability.md, An agent'",
)

FOUND = f"INSERT INTO tenure_store (version, cluster, founder) VALUES ({VERSION}, $1, $2)"  # noqa: S608 - a number of ours

DURABILITY = (
    "SELECT current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit'),"
    " current_setting('synchronous_standby_names'), pg_is_in_recovery()"
)

SESSION = (
    "SELECT set_config('default_transaction_isolation', 'repeatable read', false),"
    " set_config('synchronous_commit', $1, false)"
)

_ISOLATED = "current_setting('transaction_isolation') = 'repeatable read'"

_SEALED = f"""
WITH asked AS (
  SELECT * FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS a(uid, epoch, n) WHERE {_ISOLATED}
), found AS (
  SELECT a.*, coalesce(r.sealed, 0) AS sealed, coalesce(r.epoch, 0) AS in_epoch, coalesce(r.seq, 0) AS in_seq,
    a.epoch >= coalesce(r.sealed, 0) AS ok                                                     -- guard_seal
  FROM asked a LEFT JOIN tenure_record r USING (uid)
), kept AS (  -- also when it is sealed already: the answer waits for this commit, so for those before it [sync_seal]
  INSERT INTO tenure_record AS r (uid, sealed, epoch, seq) SELECT uid, epoch, 0, 0 FROM found WHERE ok
  ON CONFLICT (uid) DO UPDATE SET sealed = excluded.sealed
)"""  # noqa: S608 - a condition of ours

SEAL = f"""{_SEALED}, sized AS (
  SELECT f.*, sum(e.bytes) OVER (ORDER BY n) <= $3 OR n = 1 AS fits FROM found f CROSS JOIN LATERAL (
    SELECT coalesce(sum(octet_length(value)), 0) AS bytes FROM tenure_entry WHERE uid = f.uid AND f.ok) e
)
SELECT s.uid, s.ok, s.sealed, s.in_epoch, s.in_seq, s.fits, e.keys, e.crcs, e.data FROM sized s LEFT JOIN LATERAL (
  SELECT array_agg(key) AS keys, array_agg(crc) AS crcs, array_agg(value) AS data FROM tenure_entry WHERE uid = s.uid
) e ON s.ok AND s.fits ORDER BY s.n
"""  # noqa: S608 - a condition of ours
"""uids, epochs, bytes of records that the answer may carry."""

SEAL_BARE = f"""{_SEALED}
SELECT f.uid, f.ok, f.sealed, f.in_epoch, f.in_seq, e.crc, e.value FROM found f
LEFT JOIN tenure_entry e ON f.ok AND e.uid = f.uid AND e.key = $3 ORDER BY f.n
"""  # noqa: S608 - a condition of ours
"""uids, epochs, key of the one entry that is wanted of each record."""

READ = f"""
WITH asked AS (
  SELECT * FROM unnest($1::text[]) WITH ORDINALITY AS a(uid, n) WHERE {_ISOLATED}
), sized AS (
  SELECT a.*, r.sealed, r.epoch, r.seq, sum(e.bytes) OVER (ORDER BY n) <= $2 OR n = 1 AS fits
  FROM asked a JOIN tenure_record r USING (uid) CROSS JOIN LATERAL (
    SELECT coalesce(sum(octet_length(value)), 0) AS bytes FROM tenure_entry WHERE uid = a.uid) e
)
SELECT s.uid, s.sealed, s.epoch, s.seq, e.keys, e.crcs, e.data FROM sized s CROSS JOIN LATERAL (
  SELECT array_agg(key) AS keys, array_agg(crc) AS crcs, array_agg(value) AS data FROM tenure_entry WHERE uid = s.uid
) e WHERE s.fits ORDER BY s.n
"""  # noqa: S608 - a condition of ours
"""uids, bytes of records that the answer may carry."""

WRITE = f"""
WITH asked AS (
  SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
    WITH ORDINALITY AS a(uid, epoch, seq, base_epoch, base_seq, n) WHERE {_ISOLATED}
), found AS (
  SELECT a.*, a.base_epoch IS NULL AS whole, coalesce(r.sealed, 0) AS sealed,
    coalesce(r.epoch, 0) AS in_epoch, coalesce(r.seq, 0) AS in_seq
  FROM asked a LEFT JOIN tenure_record r USING (uid)
), judged AS (
  SELECT f.*, CASE                                                                              -- guard_write
    WHEN epoch < sealed THEN 'FENCED'                                                           -- [seal]
    WHEN (epoch, seq) < (in_epoch, in_seq) THEN 'STALE'                                         -- [order]
    WHEN (epoch, seq) = (in_epoch, in_seq) THEN 'OK'                          -- repeated: the same bytes are here
    WHEN NOT whole AND (base_epoch, base_seq) <> (in_epoch, in_seq) THEN 'NEED_BASE'  -- [delta_base, delta_epoch]
    ELSE 'STORE' END AS verdict
  FROM found f
), stored AS (
  SELECT * FROM judged WHERE verdict = 'STORE'
), kept AS (
  INSERT INTO tenure_record AS r (uid, sealed, epoch, seq) SELECT uid, epoch, epoch, seq FROM stored
  ON CONFLICT (uid) DO UPDATE SET sealed = excluded.sealed, epoch = excluded.epoch, seq = excluded.seq
), touched AS (  -- we only see that it is here: its sync may be under way, so wait for one behind it [sync_write]
  UPDATE tenure_record r SET sealed = r.sealed FROM judged j WHERE r.uid = j.uid AND j.verdict IN ('OK', 'STALE')
), puts AS (
  SELECT p.* FROM unnest($8::text[], $9::bytea[], $10::bigint[], $11::bytea[]) AS p(uid, key, crc, value)
    JOIN stored USING (uid)
), replaced AS (
  DELETE FROM tenure_entry e USING stored s WHERE e.uid = s.uid AND s.whole
    AND NOT EXISTS (SELECT FROM puts p WHERE p.uid = e.uid AND p.key = e.key)
), deleted AS (
  DELETE FROM tenure_entry e USING unnest($6::text[], $7::bytea[]) AS d(uid, key), stored s
    WHERE e.uid = d.uid AND e.key = d.key AND s.uid = d.uid AND NOT s.whole
), put AS (
  INSERT INTO tenure_entry AS e (uid, key, crc, value) SELECT uid, key, crc, value FROM puts
  ON CONFLICT (uid, key) DO UPDATE SET crc = excluded.crc, value = excluded.value
)
SELECT uid, CASE verdict WHEN 'STORE' THEN 'OK' ELSE verdict END AS verdict,
  CASE verdict WHEN 'STORE' THEN epoch ELSE sealed END AS sealed,
  CASE verdict WHEN 'STORE' THEN epoch ELSE in_epoch END AS in_epoch,
  CASE verdict WHEN 'STORE' THEN seq ELSE in_seq END AS in_seq
FROM judged ORDER BY n
"""  # noqa: S608 - a condition of ours
"""uids, epochs, seqs, bases (epoch, seq; null: whole); deleted (uid, key); put (uid, key, crc, value). A uid once."""

UIDS = 'SELECT uid FROM tenure_record WHERE uid > $1 COLLATE "C" ORDER BY uid LIMIT $2'

# A write of that record at this moment ends with 40001 or goes first; what it leaves, the next sweep finds.
FORGET = (
    "WITH gone AS (DELETE FROM tenure_record WHERE uid = ANY($1::text[]) RETURNING uid)"
    " DELETE FROM tenure_entry WHERE uid IN (SELECT uid FROM gone)"
)

"""The tables of the audit store in PostgreSQL, made and brought from version to version under a lock.

    records       one row a record: the sealed bytes, the chain before them, and columns to look it up and list it;
                  what pruning leaves of one (a stub) stays in its row
    parts         the contents of its bodies, which can be erased, and by which control record that was done
    spans         when a gateway's records of a day were received; only to find them faster
    stretches     where a journal's records of a day begin and end; the same
    positions, gaps, checkpoints, covers, public_keys, dropped     what outlives a day
    rewrites      partitions that still have to be rewritten, so that what was taken out of them leaves the disk

`number` is the order of recording. Records and parts have a partition for each day (`audit_postgres_days`). The unique
key of a place has to contain the day, since PostgreSQL keeps an index for each partition alone; that a place is not
taken twice in different days is seen to by who writes.

Belongs here: the schema and its versions. Never here: partitions, or a statement about records.
"""

from typing import Final

from gateway.errors import AuditUnavailable
from gateway.logs import logger
from gateway.stores.postgres_connection import Link

SCHEMA_LOCK: Final = 0x506D5363
"""The advisory lock under which tables and partitions are made, changed and dropped."""
_FIRST: Final = """
CREATE TABLE schema_versions (version int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now());
CREATE SEQUENCE numbers CACHE 1;
CREATE TABLE records (
  number bigint NOT NULL,
  sequence bigint NOT NULL,
  received_ns bigint NOT NULL,
  day date NOT NULL,
  journal text COLLATE "C" NOT NULL,
  previous bytea NOT NULL,
  sealed bytea,
  chain bytea,
  pruning text COLLATE "C",
  record_id bytea,
  primary_id bytea,
  stray_key bigint,
  stray_primary_key bigint,
  request_key bigint,
  oip_key bigint,
  unit bytea,
  decided boolean,
  model text COLLATE "C",
  version text COLLATE "C",
  status bigint,
  outcome text COLLATE "C",
  reason text COLLATE "C",
  role text COLLATE "C",
  caller text COLLATE "C",
  gateway text COLLATE "C",
  action text COLLATE "C",
  PRIMARY KEY (journal, sequence, day)
) PARTITION BY RANGE (day);
CREATE INDEX records_by_number ON records (number);
CREATE INDEX records_by_time ON records (received_ns) INCLUDE (day) WHERE sealed IS NOT NULL;
CREATE INDEX records_by_model ON records (model, received_ns) INCLUDE (day);
CREATE INDEX records_not_served ON records (received_ns) INCLUDE (day) WHERE outcome <> 'served';
CREATE INDEX records_of_control ON records (received_ns) INCLUDE (day) WHERE role = 'control';
CREATE INDEX records_by_request ON records (request_key, received_ns) WHERE request_key IS NOT NULL;
CREATE INDEX records_by_oip ON records (oip_key, received_ns) WHERE oip_key IS NOT NULL;
CREATE INDEX records_stray ON records (stray_key) WHERE stray_key IS NOT NULL;
CREATE INDEX records_stray_primary ON records (stray_primary_key) WHERE stray_primary_key IS NOT NULL;
CREATE INDEX records_by_unit ON records (substr(unit, 1, 64)) WHERE unit IS NOT NULL;
CREATE INDEX records_unsealed ON records (journal, sequence, received_ns) WHERE sealed IS NULL;
CREATE TABLE parts (
  number bigint NOT NULL,
  day date NOT NULL,
  request bytea NOT NULL,
  response bytea NOT NULL,
  erasure text COLLATE "C",
  PRIMARY KEY (number, day)
) PARTITION BY RANGE (day);
CREATE TABLE spans (
  day date NOT NULL,
  gateway text COLLATE "C" NOT NULL,
  first_ns bigint NOT NULL,
  last_ns bigint NOT NULL,
  strays boolean NOT NULL,
  PRIMARY KEY (day, gateway)
) WITH (fillfactor = 50);
CREATE TABLE stretches (
  journal text COLLATE "C" NOT NULL,
  day date NOT NULL,
  first bigint NOT NULL,
  last bigint NOT NULL,
  PRIMARY KEY (journal, day)
) WITH (fillfactor = 50);
CREATE TABLE positions (
  journal text COLLATE "C" PRIMARY KEY,
  segment bigint NOT NULL,
  "offset" bigint NOT NULL,
  sequence bigint NOT NULL,
  chain bytea NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE gaps (
  journal text COLLATE "C" NOT NULL,
  first bigint NOT NULL,
  count bigint NOT NULL,
  segment bigint NOT NULL,
  "offset" bigint NOT NULL,
  why text COLLATE "C" NOT NULL,
  at_ns bigint NOT NULL,
  PRIMARY KEY (journal, first, segment, "offset")
);
CREATE TABLE checkpoints (
  gateway text COLLATE "C" NOT NULL,
  number bigint NOT NULL,
  day date NOT NULL,
  at_ns bigint NOT NULL,
  statement bytea NOT NULL,
  listing bytea NOT NULL,
  signature bytea NOT NULL,
  key text COLLATE "C" NOT NULL,
  PRIMARY KEY (gateway, number)
);
CREATE INDEX checkpoints_of_day ON checkpoints (day);
CREATE TABLE covers (
  journal text COLLATE "C" NOT NULL,
  last bigint NOT NULL,
  first bigint NOT NULL,
  gateway text COLLATE "C" NOT NULL,
  number bigint NOT NULL,
  PRIMARY KEY (journal, last, gateway, number),
  FOREIGN KEY (gateway, number) REFERENCES checkpoints ON DELETE CASCADE
);
CREATE INDEX covers_of_checkpoint ON covers (gateway, number);
CREATE TABLE public_keys (
  gateway text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  pem text COLLATE "C" NOT NULL,
  since_ns bigint NOT NULL,
  PRIMARY KEY (gateway, key)
);
CREATE TABLE dropped (
  day date NOT NULL,
  journal text COLLATE "C" NOT NULL,
  first bigint NOT NULL,
  last bigint NOT NULL,
  records bigint NOT NULL,
  pruning text COLLATE "C" NOT NULL,
  PRIMARY KEY (day, journal, pruning)
);
CREATE TABLE rewrites (partition text COLLATE "C" PRIMARY KEY);
"""
_VERSIONS: Final = (_FIRST,)
"""What brings the schema from each version to the next, from nothing on."""
NEWEST: Final = len(_VERSIONS)
# Bodies compress better than they are worth waiting for with PostgreSQL's own method; not every server has the other.
_COMPRESS = "ALTER TABLE parts ALTER request SET COMPRESSION lz4, ALTER response SET COMPRESSION lz4"
_HAS_LZ4 = "SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'"
_FOUND = "SELECT to_regclass('pointsman.schema_versions') IS NOT NULL"


def bring_schema(connection: Link, where: str) -> None:
    """Make the tables, or bring them to the version that this Pointsman knows. Any number may do so at once.

    Raises:
        AuditUnavailable: they are of a newer version.
    """
    if _version(connection) == NEWEST:
        return
    # The lock comes before the transaction, which would not see what others made while it waited for it.
    with connection.holding(SCHEMA_LOCK), connection.transaction():
        found = _version(connection)
        _refuse_newer(found, where)
        # Asked first: where the database's owner made the schema for us, we may not be allowed to make one.
        if connection.value("SELECT to_regnamespace('pointsman') IS NULL"):
            connection.execute("CREATE SCHEMA pointsman")
        for version, statements in enumerate(_VERSIONS[found:], found + 1):
            connection.execute(statements)
            connection.execute("INSERT INTO schema_versions (version) VALUES (%s)", (version,))
        if found == 0 and connection.value(_HAS_LZ4):
            connection.execute(_COMPRESS)
    if found < NEWEST:
        logger().info("audit_schema_brought", where=where, version=NEWEST, before=found)


def check_schema(connection: Link, where: str) -> None:
    """See to it that the tables are of the version that this Pointsman knows.

    Raises:
        AuditUnavailable: they are not, or are not there.
    """
    found = _version(connection)
    _refuse_newer(found, where)
    if found < NEWEST:
        told = f"has schema {found}" if found else "has no records yet"
        raise AuditUnavailable(f"the audit store at {where} {told}; start a gateway of this version on it first")


def is_there(connection: Link) -> bool:
    """Tell whether the tables have been made, whatever their version."""
    return _version(connection) > 0


def _refuse_newer(found: int, where: str) -> None:
    if found > NEWEST:
        raise AuditUnavailable(
            f"the audit store at {where} has schema {found} and this Pointsman knows schema {NEWEST}; "
            "run the version that made it, or a newer one"
        )


def _version(connection: Link) -> int:
    if not connection.value(_FOUND):
        return 0
    return int(connection.value("SELECT coalesce(max(version), 0) FROM schema_versions"))

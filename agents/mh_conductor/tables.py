"""The tables of the store. Times are nanoseconds since the epoch, JSON is text; `migrations` makes them."""

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, MetaData, String, Table, Text

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)
# SQLite counts rows by itself only in a column that is exactly INTEGER
Counted = BigInteger().with_variant(Integer, "sqlite")

# one row: the generation of the whole, and the digest of the rules that every host was last held against
FLEET = Table(
    "fleet",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("rules", String(64), nullable=False),
)

HOSTS = Table(
    "hosts",
    METADATA,
    Column("uuid", String(64), primary_key=True),
    Column("hostname", String(255), nullable=False, index=True),
    Column("boot_id", String(128), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("first_seen", BigInteger, nullable=False),
    Column("last_seen", BigInteger, nullable=False),
    Column("agent_version", String(128), nullable=False),
    Column("facts", Integer, nullable=False),
    Column("traits", Integer, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("report", Text, nullable=False),
)

# boots that are over: a report of one of them is a replay, however high its sequence
BOOTS = Table(
    "boots",
    METADATA,
    Column("host", String(64), ForeignKey("hosts.uuid", ondelete="CASCADE"), primary_key=True),
    Column("boot_id", String(128), primary_key=True),
    Column("ended", BigInteger, nullable=False),
)

AGGREGATES = Table(
    "aggregates",
    METADATA,
    Column("id", Counted, primary_key=True, autoincrement=True),
    Column("uuid", String(36), nullable=False, unique=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("owner", String(255)),
    Column("binding", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("generation", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

# the ownership mark is on each row: the rule that made it, or null for what was made by hand
MEMBERS = Table(
    "members",
    METADATA,
    Column("aggregate", Counted, ForeignKey("aggregates.id", ondelete="CASCADE"), primary_key=True),
    Column("host", String(64), ForeignKey("hosts.uuid", ondelete="CASCADE"), primary_key=True),
    Column("owner", String(255)),
    Column("evidence", Text, nullable=False),
    Index("ix_members_host", "host"),
)

VALUES = Table(
    "aggregate_metadata",
    METADATA,
    Column("aggregate", Counted, ForeignKey("aggregates.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("value", String(255), nullable=False),
    Column("owner", String(255)),
)

HISTORY = Table(
    "history",
    METADATA,
    Column("id", Counted, primary_key=True, autoincrement=True),
    Column("time", BigInteger, nullable=False),
    Column("aggregate", String(255), nullable=False),
    Column("change", String(32), nullable=False),
    Column("rule", String(255), nullable=False),
    Column("host", String(255), nullable=False),
    Column("why", Text, nullable=False),
    sqlite_autoincrement=True,
)

"""The tables of the store. Times are nanoseconds since the epoch, JSON is text; `migrations` makes them."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

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
    # major.minor of what the processes on this store write into it
    Column("protocol", String(16), nullable=False, server_default="1.0"),
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
    Column("state", String(16), nullable=False, server_default="up"),
    Column("state_since", BigInteger, nullable=False, server_default="0"),
    Column("identity", String(255)),
    Column("summary", Text, nullable=False, server_default="{}"),
    # the generation of the whole at the row's last change: what a reader lacks are the rows above its own
    Column("stamp", BigInteger, nullable=False, server_default="0", index=True),
    # traits that rules give it: a JSON list, sorted
    Column("given", Text, nullable=False, server_default="[]"),
    # of the last report, JSON; one that tells only these anew has no stamp, a later `last_seen` tells it
    Column("metrics", Text, nullable=False, server_default="{}"),
    Index("ix_hosts_last_seen", "last_seen"),
    # who counts hosts, or looks for silent ones, reads no reports
    Index("ix_hosts_state", "state", "state_since"),
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
    Column("stamp", BigInteger, nullable=False, server_default="0", index=True),
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
    Column("who", String(255), nullable=False, server_default=""),
    Index("ix_history_aggregate", "aggregate"),
    sqlite_autoincrement=True,
)

FLAVORS = Table(
    "flavors",
    METADATA,
    Column("id", String(255), primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("vcpus", Integer, nullable=False),
    Column("ram", Integer, nullable=False),
    Column("disk", Integer, nullable=False),
    Column("ephemeral", Integer, nullable=False),
    Column("swap", Integer, nullable=False),
    Column("rxtx_factor", String(32), nullable=False),
    Column("public", Boolean, nullable=False),
    Column("description", Text),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("generation", BigInteger, nullable=False),
)

SPECS = Table(
    "flavor_extra_specs",
    METADATA,
    Column("flavor", String(255), ForeignKey("flavors.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("value", String(255), nullable=False),
)

# the last of them is in force, whatever the files of the processes say
RULES = Table(
    "rules",
    METADATA,
    Column("id", Counted, primary_key=True, autoincrement=True),
    Column("digest", String(64), nullable=False),
    Column("text", Text, nullable=False),
    Column("loaded", BigInteger, nullable=False),
    Column("who", String(255), nullable=False),
    sqlite_autoincrement=True,
)

# changes of so much of the fleet at once that they wait for somebody's word
HELD = Table(
    "held",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("what", String(32), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("text", Text, nullable=False),
    Column("made", BigInteger, nullable=False),
    Column("affected", Integer, nullable=False),
    Column("hosts", Integer, nullable=False),
    Column("why", Text, nullable=False),
    Column("steps", Text, nullable=False),
    Column("who", String(255), nullable=False),
)

# what a rule says of a host, since when, and how often that has changed lately: damps what flaps
VERDICTS = Table(
    "verdicts",
    METADATA,
    Column("host", String(64), ForeignKey("hosts.uuid", ondelete="CASCADE"), primary_key=True),
    Column("rule", String(255), primary_key=True),
    Column("answer", String(255), nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("changes", Text, nullable=False),
)

WORKERS = Table(
    "workers",
    METADATA,
    Column("id", String(255), primary_key=True),
    Column("version", String(64), nullable=False),
    Column("protocol", String(16), nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("last_seen", BigInteger, nullable=False),
    Column("reports", BigInteger, nullable=False),
    Column("changed", BigInteger, nullable=False),
    Column("refused", BigInteger, nullable=False),
    Column("rate", Float, nullable=False),
    Column("lag", Float, nullable=False),
    Column("last_error", Text),
    Column("last_error_at", BigInteger, nullable=False),
)

# what people asked for and was carried out lately, by a digest of who and which: it may come again
REQUESTS = Table(
    "requests",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("time", BigInteger, nullable=False),
)

# what one process at a time does: whoever holds the row until then
LEASES = Table(
    "leases",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("holder", String(255), nullable=False),
    Column("until", BigInteger, nullable=False),
)

SINKS = Table(
    "sinks",
    METADATA,
    Column("name", String(255), primary_key=True),
    Column("applied", BigInteger, nullable=False),
    Column("last_error", Text),
)

# a plan is applied by whichever process is asked
SINK_PLANS = Table(
    "sink_plans",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("sink", String(255), nullable=False),
    Column("made", BigInteger, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
)

"""Flavors, rules in the store, workers, silence, damping, held changes, sinks."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

COUNTED = sa.BigInteger().with_variant(sa.Integer, "sqlite")
ADDED = {
    "hosts": ("state", "state_since", "identity", "summary", "stamp", "metrics", "given"),
    "aggregates": ("stamp",),
    "fleet": ("protocol",),
    "history": ("who",),
}
SORTED = (
    *(("hosts", "uuid", 64), ("hosts", "hostname", 255), ("workers", "id", 255)),
    *(("aggregates", "name", 255), ("aggregate_metadata", "key", 255), ("aggregate_metadata", "value", 255)),
    *(("flavors", "id", 255), ("flavors", "name", 255), ("flavor_extra_specs", "key", 255)),
)


def upgrade() -> None:
    """Add columns, then tables."""
    _columns()
    _flavors()
    _rules()
    _workers()
    _sinks()
    if op.get_bind().dialect.name == "postgresql":
        _bytewise()


def _columns() -> None:
    stamp = ("stamp", sa.BigInteger)
    for name, kind, default in (
        ("state", sa.String(16), "up"),
        ("state_since", sa.BigInteger, "0"),
        ("summary", sa.Text, "{}"),
        ("metrics", sa.Text, "{}"),
        ("given", sa.Text, "[]"),
        (*stamp, "0"),
    ):
        op.add_column("hosts", sa.Column(name, kind, nullable=False, server_default=default))
    op.add_column("hosts", sa.Column("identity", sa.String(255)))
    op.add_column("aggregates", sa.Column(*stamp, nullable=False, server_default="0"))
    op.add_column("fleet", sa.Column("protocol", sa.String(16), nullable=False, server_default="1.0"))
    op.add_column("history", sa.Column("who", sa.String(255), nullable=False, server_default=""))
    op.create_index("ix_hosts_stamp", "hosts", ["stamp"])
    op.create_index("ix_hosts_last_seen", "hosts", ["last_seen"])
    op.create_index("ix_hosts_state", "hosts", ["state", "state_since"])
    op.create_index("ix_aggregates_stamp", "aggregates", ["stamp"])
    op.create_index("ix_history_aggregate", "history", ["aggregate"])


def _flavors() -> None:
    numbers = ("vcpus", "ram", "disk", "ephemeral", "swap")
    op.create_table(
        "flavors",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        *(sa.Column(name, sa.Integer, nullable=False) for name in numbers),
        sa.Column("rxtx_factor", sa.String(32), nullable=False),
        sa.Column("public", sa.Boolean, nullable=False),
        sa.Column("description", sa.Text),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("created", "updated", "generation")),
        sa.PrimaryKeyConstraint("id", name="pk_flavors"),
        sa.UniqueConstraint("name", name="uq_flavors_name"),
    )
    op.create_table(
        "flavor_extra_specs",
        sa.Column("flavor", sa.String(255), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("value", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("flavor", "key", name="pk_flavor_extra_specs"),
        sa.ForeignKeyConstraint(
            ["flavor"], ["flavors.id"], name="fk_flavor_extra_specs_flavor", ondelete="CASCADE"
        ),
    )


def _rules() -> None:
    op.create_table(
        "rules",
        sa.Column("id", COUNTED, nullable=False, autoincrement=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("loaded", sa.BigInteger, nullable=False),
        sa.Column("who", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rules"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "held",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("what", sa.String(32), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("made", sa.BigInteger, nullable=False),
        sa.Column("affected", sa.Integer, nullable=False),
        sa.Column("hosts", sa.Integer, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("steps", sa.Text, nullable=False),
        sa.Column("who", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_held"),
    )
    op.create_table(
        "verdicts",
        sa.Column("host", sa.String(64), nullable=False),
        sa.Column("rule", sa.String(255), nullable=False),
        sa.Column("answer", sa.String(255), nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("changes", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("host", "rule", name="pk_verdicts"),
        sa.ForeignKeyConstraint(["host"], ["hosts.uuid"], name="fk_verdicts_host", ondelete="CASCADE"),
    )


def _workers() -> None:
    counters = ("started", "last_seen", "reports", "changed", "refused")
    op.create_table(
        "workers",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("protocol", sa.String(16), nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in counters),
        sa.Column("rate", sa.Float, nullable=False),
        sa.Column("lag", sa.Float, nullable=False),
        sa.Column("last_error", sa.Text),
        sa.Column("last_error_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )
    op.create_table(
        "requests",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_requests"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("holder", sa.String(255), nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )


def _sinks() -> None:
    op.create_table(
        "sinks",
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("applied", sa.BigInteger, nullable=False),
        sa.Column("last_error", sa.Text),
        sa.PrimaryKeyConstraint("name", name="pk_sinks"),
    )
    op.create_table(
        "sink_plans",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("sink", sa.String(255), nullable=False),
        sa.Column("made", sa.BigInteger, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sink_plans"),
    )


def _bytewise() -> None:
    """Sort as SQLite and Python do, not by the rules of the database's language, which differ from server to
    server and change with their updates."""
    for table, column, length in SORTED:
        op.execute(f'ALTER TABLE {table} ALTER COLUMN {column} TYPE varchar({length}) COLLATE "C"')


def downgrade() -> None:
    """Back to the first store."""
    for name in (
        *("sink_plans", "sinks", "leases", "requests", "workers", "verdicts", "held", "rules"),
        *("flavor_extra_specs", "flavors"),
    ):
        op.drop_table(name)
    for index, table in (
        ("ix_hosts_stamp", "hosts"),
        ("ix_hosts_last_seen", "hosts"),
        ("ix_hosts_state", "hosts"),
        ("ix_aggregates_stamp", "aggregates"),
        ("ix_history_aggregate", "history"),
    ):
        op.drop_index(index, table)
    for table, names in ADDED.items():
        for name in names:
            op.drop_column(table, name)

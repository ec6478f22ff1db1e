"""The first store."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

COUNTED = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make everything."""
    _fleet()
    _hosts()
    _aggregates()
    _history()


def _fleet() -> None:
    fleet = op.create_table(
        "fleet",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("rules", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_fleet"),
    )
    op.bulk_insert(fleet, [{"id": 1, "generation": 0, "rules": ""}])


def _hosts() -> None:
    op.create_table(
        "hosts",
        sa.Column("uuid", sa.String(64), nullable=False),
        sa.Column("hostname", sa.String(255), nullable=False),
        sa.Column("boot_id", sa.String(128), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("first_seen", sa.BigInteger, nullable=False),
        sa.Column("last_seen", sa.BigInteger, nullable=False),
        sa.Column("agent_version", sa.String(128), nullable=False),
        sa.Column("facts", sa.Integer, nullable=False),
        sa.Column("traits", sa.Integer, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("report", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("uuid", name="pk_hosts"),
    )
    op.create_index("ix_hosts_hostname", "hosts", ["hostname"])
    op.create_table(
        "boots",
        sa.Column("host", sa.String(64), nullable=False),
        sa.Column("boot_id", sa.String(128), nullable=False),
        sa.Column("ended", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("host", "boot_id", name="pk_boots"),
        sa.ForeignKeyConstraint(["host"], ["hosts.uuid"], name="fk_boots_host", ondelete="CASCADE"),
    )


def _aggregates() -> None:
    op.create_table(
        "aggregates",
        sa.Column("id", COUNTED, nullable=False, autoincrement=True),
        sa.Column("uuid", sa.String(36), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("owner", sa.String(255)),
        sa.Column("binding", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("updated", sa.BigInteger, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_aggregates"),
        sa.UniqueConstraint("uuid", name="uq_aggregates_uuid"),
        sa.UniqueConstraint("name", name="uq_aggregates_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "members",
        sa.Column("aggregate", COUNTED, nullable=False),
        sa.Column("host", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(255)),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("aggregate", "host", name="pk_members"),
        sa.ForeignKeyConstraint(
            ["aggregate"], ["aggregates.id"], name="fk_members_aggregate", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["host"], ["hosts.uuid"], name="fk_members_host", ondelete="CASCADE"),
    )
    op.create_index("ix_members_host", "members", ["host"])
    op.create_table(
        "aggregate_metadata",
        sa.Column("aggregate", COUNTED, nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("value", sa.String(255), nullable=False),
        sa.Column("owner", sa.String(255)),
        sa.PrimaryKeyConstraint("aggregate", "key", name="pk_aggregate_metadata"),
        sa.ForeignKeyConstraint(
            ["aggregate"],
            ["aggregates.id"],
            name="fk_aggregate_metadata_aggregate",
            ondelete="CASCADE",
        ),
    )


def _history() -> None:
    op.create_table(
        "history",
        sa.Column("id", COUNTED, nullable=False, autoincrement=True),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("aggregate", sa.String(255), nullable=False),
        sa.Column("change", sa.String(32), nullable=False),
        sa.Column("rule", sa.String(255), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_history"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """Unmake everything."""
    for name in ("history", "aggregate_metadata", "members", "aggregates", "boots", "hosts", "fleet"):
        op.drop_table(name)

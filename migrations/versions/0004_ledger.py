"""The books: one row for each request that went upstream, and sums of them by the hour."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TOKENS = ("input_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "cache_read_tokens", "output_tokens")


def tokens() -> list[sa.Column]:
    names = (*TOKENS, "thinking_tokens", "searches")
    return [sa.Column(name, sa.BigInteger, nullable=False) for name in names]


def sums() -> list[sa.Column]:
    counts = [sa.Column(name, sa.Integer, nullable=False) for name in ("requests", "unknown", "estimated")]
    money = [sa.Column(name, sa.BigInteger, nullable=False) for name in ("cost_micros", "saved_micros")]
    return [*counts, *tokens(), *money]


def kinds() -> list[sa.Column]:
    return [
        sa.Column("model", sa.String(200), primary_key=True),
        sa.Column("connection", sa.String(60), primary_key=True),
        sa.Column("ending", sa.String(20), primary_key=True),
    ]


def hour() -> sa.Column:
    return sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False)


def upgrade() -> None:
    op.create_table(
        "requests",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("key_id", sa.String(40), nullable=False),
        sa.Column("user_ref", sa.String(128)),
        sa.Column("tag", sa.String(64)),
        sa.Column("route", sa.String(60), nullable=False),
        sa.Column("model_asked", sa.String(200), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("connection", sa.String(60), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("upstream_ids", sa.Text),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("ending", sa.String(20), nullable=False),
        sa.Column("stream", sa.Boolean, nullable=False),
        *tokens(),
        sa.Column("cost_micros", sa.BigInteger),
        sa.Column("saved_micros", sa.BigInteger),
        sa.Column("cost_state", sa.String(10), nullable=False),
        sa.Column("price_version", sa.String(40)),
        sa.Column("tier", sa.String(20)),
        sa.Column("speed", sa.String(20)),
        sa.Column("geo", sa.String(20)),
        sa.Column("ttft_ms", sa.Integer),
        sa.Column("duration_ms", sa.Integer, nullable=False),
        sa.Column("client", sa.String(64)),
        sa.Column("warnings", sa.Text),
        sa.Column("parts", sa.Text),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_requests_key_id_id", "requests", ["key_id", "id"])
    op.create_table("usage_hours", hour(), *kinds(), *sums(), sqlite_with_rowid=False)
    op.create_table(
        "usage_keys",
        hour(),
        sa.Column("key_id", sa.String(40), primary_key=True),
        *kinds(),
        *sums(),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_usage_keys_key_id_hour", "usage_keys", ["key_id", "hour"])
    op.create_table(
        "usage_times",
        hour(),
        sa.Column("model", sa.String(200), primary_key=True),
        sa.Column("connection", sa.String(60), primary_key=True),
        sa.Column("what", sa.String(10), primary_key=True),
        sa.Column("bucket", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("n", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "usage_users",
        hour(),
        sa.Column("key_id", sa.String(40), primary_key=True),
        sa.Column("user_ref", sa.String(128), primary_key=True),
        sa.Column("tag", sa.String(64), primary_key=True),
        sa.Column("requests", sa.Integer, nullable=False),
        sa.Column("unknown", sa.Integer, nullable=False),
        sa.Column("tokens_in", sa.BigInteger, nullable=False),
        sa.Column("tokens_out", sa.BigInteger, nullable=False),
        sa.Column("cost_micros", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_usage_users_key_id_hour", "usage_users", ["key_id", "hour"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE requests SET (autovacuum_vacuum_scale_factor = 0.02)")


def downgrade() -> None:
    for table in ("usage_users", "usage_times", "usage_keys", "usage_hours", "requests"):
        op.drop_table(table)

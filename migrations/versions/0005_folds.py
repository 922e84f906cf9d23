"""Sums over days that are over, with fewer names; what a key used lies together."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

COUNTS = ("requests", "unknown", "estimated")
BIG = (
    *("input_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "cache_read_tokens", "output_tokens"),
    *("thinking_tokens", "searches", "cost_micros", "saved_micros"),
)
KINDS = {"model": 200, "connection": 60, "ending": 20}


def number(name: str) -> sa.Column:
    return sa.Column(name, sa.Integer, nullable=False, autoincrement=False)


def text(name: str, length: int) -> sa.Column:
    return sa.Column(name, sa.String(length), nullable=False)


def sums() -> list[sa.Column]:
    return [
        *(sa.Column(name, sa.Integer, nullable=False) for name in COUNTS),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in BIG),
    ]


def upgrade() -> None:
    op.drop_index("ix_usage_keys_key_id_hour", "usage_keys")
    _keys_anew([number("day")], ("day", "key_id", "hour"), {"day": "hour / 24"})
    op.create_index("ix_usage_users_user_ref_hour", "usage_users", ["user_ref", "hour"])
    op.create_table(
        "usage_folds",
        number("fold"),
        number("size"),
        number("span"),
        *(text(name, length) for name, length in KINDS.items()),
        text("user_ref", 128),
        text("tag", 64),
        text("key_id", 40),
        *sums(),
        sa.PrimaryKeyConstraint("fold", "size", "span", *KINDS, "user_ref", "tag", "key_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "usage_folded",
        number("size"),
        number("span"),
        text("token", 16),
        sa.Column("is_done", sa.Boolean, nullable=False),
        sa.Column("began_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("size", "span"),
    )


def downgrade() -> None:
    op.drop_table("usage_folded")
    op.drop_table("usage_folds")
    op.drop_index("ix_usage_users_user_ref_hour", "usage_users")
    _keys_anew([], ("hour", "key_id"), {})
    op.create_index("ix_usage_keys_key_id_hour", "usage_keys", ["key_id", "hour"])


def _keys_anew(more: list[sa.Column], key: tuple[str, ...], filled: dict[str, str]) -> None:
    """usage_keys with another primary key, in whose order SQLite keeps its rows."""
    op.rename_table("usage_keys", "usage_keys_before")
    op.create_table(
        "usage_keys",
        *more,
        text("key_id", 40),
        number("hour"),
        *(text(name, length) for name, length in KINDS.items()),
        *sums(),
        sa.PrimaryKeyConstraint(*key, *KINDS, name=f"pk_usage_keys_by_{key[0]}"),
        sqlite_with_rowid=False,
    )
    kept = ["key_id", "hour", *KINDS, *COUNTS, *BIG]
    order = ", ".join(filled.get(name, name) for name in key)
    op.execute(
        f"INSERT INTO usage_keys ({', '.join([*filled, *kept])}) "
        f"SELECT {', '.join([*filled.values(), *kept])} FROM usage_keys_before ORDER BY {order}"
    )
    op.drop_table("usage_keys_before")

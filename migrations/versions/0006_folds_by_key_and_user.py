"""What a key or a user used is found among the folds that have keys or users; one has both."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in ("key_id", "user_ref"):
        told = sa.text(f"{column} <> ''")
        columns = [column, "fold", "size", "span"]
        op.create_index(f"ix_usage_folds_{column}", "usage_folds", columns, sqlite_where=told, postgresql_where=told)
    op.execute("DELETE FROM usage_folded")  # all is folded again


def downgrade() -> None:
    for column in ("key_id", "user_ref"):
        op.drop_index(f"ix_usage_folds_{column}", "usage_folds")
    op.execute("DELETE FROM usage_folds WHERE fold = 40")

"""Alembic's entry: migrates over the application's own engine, all in one transaction."""

from __future__ import annotations

from alembic import context
from flask import current_app

from app.extensions import Base
from app.storage import database, tables  # noqa: F401  # importing the tables declares them

if context.is_offline_mode():
    raise SystemExit("Dragoman's migrations write rows too; run them against the database.")

engine = database.engine_of(current_app._get_current_object())
with engine.execution_options(dragoman_writes=True).connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,
        compare_type=True,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()

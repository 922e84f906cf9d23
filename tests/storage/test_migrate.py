"""The schema: what the migrations make is what the tables say, made once."""

import fcntl
import re
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import insert, text

from app import create_storage_app
from app.errors import ConfigError
from app.extensions import Base
from app.storage import database
from app.storage.migrate import head, is_current, upgrade
from app.storage.startup import MIGRATIONS, is_ready
from app.storage.tables import UsageFoldRow
from tests.conftest import wait_for

ROOT = Path(__file__).resolve().parents[2]


def test_the_migrations_make_what_the_tables_say(make_storage_app, either_database):
    app = make_storage_app(**either_database)
    with database.engine_of(app).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_the_newest_revision_is_the_one_that_alembic_names():
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_current_head() == head()


def test_a_second_upgrade_has_nothing_to_do(make_storage_app, either_database):
    app = make_storage_app(**either_database)
    assert is_current(app)
    assert not upgrade(app)


def test_the_way_back_is_there_too(make_storage_app, either_database):
    import flask_migrate

    app = make_storage_app(**either_database)
    with app.app_context():
        flask_migrate.downgrade(directory=str(MIGRATIONS), revision="base")
    assert not is_current(app)
    assert upgrade(app)


def test_folds_that_an_earlier_version_does_not_know_are_taken_away_on_the_way_back(make_storage_app, either_database):
    import flask_migrate

    app = make_storage_app(**either_database)
    names = {"model": "m", "connection": "c", "ending": "complete", "user_ref": "u", "tag": "", "key_id": "k"}
    sums = {column.name: 0 for column in UsageFoldRow.__table__.columns if column.name not in names}
    folds = [{**sums, **names, "fold": number, "size": 24, "span": 20_000} for number in (0, 40)]
    database.write(app, lambda session: session.execute(insert(UsageFoldRow), folds))
    with app.app_context():
        flask_migrate.downgrade(directory=str(MIGRATIONS), revision="0005")
    left = database.read(app, lambda session: session.execute(text("SELECT fold FROM usage_folds")).scalars().all())
    assert left == [0]


def test_what_was_folded_without_users_of_keys_is_folded_again(make_storage_app, either_database):
    import flask_migrate

    app = make_storage_app(**either_database)
    with app.app_context():
        flask_migrate.downgrade(directory=str(MIGRATIONS), revision="0005")
    mark = text("INSERT INTO usage_folded (size, span, token, is_done, began_at) VALUES (24, 20000, '', :done, 0)")
    database.write(app, lambda session: session.execute(mark, {"done": True}))
    assert upgrade(app)
    assert database.read(app, lambda session: session.execute(text("SELECT * FROM usage_folded")).all()) == []


def test_processes_that_start_together_migrate_once(either_database, tmp_path):
    environment = {
        "INSTANCE_PATH": str(tmp_path / "instance"),
        "SECRET_KEY": either_database["secret_key"],
        "DATABASE_URL": either_database.get("database_url", ""),
    }
    command = [sys.executable, "-m", "app.cli", "migrate"]
    starting = [
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(3)
    ]
    said = [process.communicate(timeout=30)[0] for process in starting]
    assert [process.returncode for process in starting] == [0, 0, 0], said
    assert sum("was brought to" in each for each in said) == 1, said


def test_an_empty_database_is_opened_by_one_process_at_a_time(make_settings, tmp_path):
    """Two that turn it to WAL together are told that it is locked, without their time-out."""
    settings = make_settings()
    file = Path(settings.instance_path) / "dragoman.db"
    file.parent.mkdir()
    with open(f"{file}.migrate-lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        environment = {"INSTANCE_PATH": str(settings.instance_path), "SECRET_KEY": settings.secret_key}
        with subprocess.Popen([sys.executable, "-m", "app.cli", "migrate"], cwd=ROOT, env=environment) as waiting:
            wait_for(lambda: re.search(rf"-> FLOCK .* {waiting.pid} ", Path("/proc/locks").read_text()), within_s=20)
            size_while_locked = file.stat().st_size
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert waiting.wait(20) == 0
    assert size_while_locked == 0
    assert file.stat().st_size > 0


def test_a_database_of_a_newer_version_stops_the_start(make_storage_app, either_database):
    app = make_storage_app(**either_database)
    change = text("UPDATE alembic_version SET version_num = '9999'")
    database.write(app, lambda session: session.execute(change).close())
    with pytest.raises(ConfigError, match="9999"):
        upgrade(app)


def test_a_database_that_cannot_be_opened_is_said_without_a_traceback(make_settings, tmp_path):
    (tmp_path / "instance").mkdir()
    (tmp_path / "instance" / "dragoman.db").write_bytes(b"not a database" * 100)
    with pytest.raises(ConfigError, match="DATABASE_URL"):
        upgrade(create_storage_app(make_settings()))


def test_a_glance_tells_whether_a_start_has_anything_to_prepare(make_settings, make_storage_app):
    from app.storage import accounts

    assert not is_ready(make_settings())
    app = make_storage_app()
    assert not is_ready(make_settings())
    accounts.create_first(app, "ann", "password of ann")
    assert is_ready(make_settings())

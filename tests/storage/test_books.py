"""Rows of the books outlive their process and a database that is away; none is lost, and none is counted twice."""

from __future__ import annotations

import os
import select
import signal
import socket
import socketserver
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from flask import Flask
from sqlalchemy import text

from app.errors import ConfigError, DatabaseUnavailable, ServiceUnavailable
from app.storage import books as module
from app.storage import database, journal
from app.storage.books import Books, Call, Heard
from tests.conftest import AppMaker, PostgreSQL
from tests.storage.test_ledger import ONE

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def app(make_storage_app: AppMaker, either_database: dict[str, str]) -> Flask:
    return make_storage_app(**either_database)


@pytest.fixture
def books(app: Flask) -> Books:
    made: Books = app.extensions["dragoman"].books
    return made


class Away:
    """A database that cannot be reached while `is_away`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_away = True
        self.asked = 0
        self._write = database.write
        monkeypatch.setattr(database, "write", self)
        monkeypatch.setattr(module, "_PAUSE_S", 0.0)

    def __call__(self, app: Flask, work: Any, **options: Any) -> Any:
        self.asked += 1
        if self.is_away:
            raise DatabaseUnavailable("away")
        return self._write(app, work, **options)


def booked(app: Flask) -> list[str]:
    return database.read(app, lambda s: [id for (id,) in s.execute(text("SELECT id FROM requests ORDER BY id"))])


def counted(app: Flask) -> int:
    return database.read(
        app, lambda s: int(s.execute(text("SELECT coalesce(sum(requests), 0) FROM usage_hours")).scalar_one())
    )


def folders(app: Flask) -> list[Path]:
    parent = Path(app.instance_path) / "journal"
    return [path for path in sorted(parent.iterdir()) if path.is_dir()]


def call(number: int = 0, **more: Any) -> Call:
    row = {
        "at": 1_795_984_000_000,
        "key_id": "key_1",
        "route": "/v1/chat/completions",
        "stream": True,
        "model_asked": "claude-haiku-4-5",
        "user_ref": None,
        "tag": None,
        "client": None,
    }
    return Call(number, "conn_1", "claude-haiku-4-5", 1_795_984_000.0, row=row if number == 0 else {}, **more)


def begin(books: Books, id: str) -> None:
    made = call()
    books.begin(id, replace(made, row={"id": id, **made.row}))


def test_a_row_is_in_the_database_and_its_journal_is_its_owners_alone(app: Flask, books: Books) -> None:
    begin(books, ONE.id)
    books.end(ONE)
    assert booked(app) == [ONE.id]
    (folder,) = folders(app)
    (segment,) = folder.iterdir()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder, segment)] == [0o700, 0o700, 0o600]


def test_rows_wait_while_the_database_is_away_and_are_entered_once_when_it_is_back(
    app: Flask, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Away(monkeypatch)
    for n in range(5):
        books.end(replace(ONE, id=f"req_gw_{n}"))
    books.enter_all()  # it is still away
    away.is_away = False
    assert booked(app) == []
    books.enter_all()
    books.enter_all()
    assert booked(app) == [f"req_gw_{n}" for n in range(5)]
    assert counted(app) == 5


def test_a_row_that_is_in_the_books_already_is_not_counted_again(app: Flask, books: Books) -> None:
    """As when the answer to a COMMIT was lost."""
    books.end(ONE)
    books.end(ONE)
    assert (booked(app), counted(app)) == ([ONE.id], 1)


class Proxy(socketserver.ThreadingTCPServer):
    """Before a PostgreSQL. It cuts the connections of which it `drops` the answer to a COMMIT, which the server has."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        self.drops = 0
        self.server = ("127.0.0.1", port)
        super().__init__(("127.0.0.1", 0), Proxied)


class Proxied(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        proxy: Any = self.server
        is_committing = False
        with socket.create_connection(proxy.server) as server:
            while True:
                ready, _, _ = select.select([self.request, server], [], [])
                for one in ready:
                    data = one.recv(65536)
                    if not data:
                        return
                    if one is self.request:
                        is_committing = b"COMMIT" in data
                        server.sendall(data)
                    elif is_committing and proxy.drops:
                        proxy.drops -= 1
                        return
                    else:
                        self.request.sendall(data)


def test_a_row_counts_once_though_the_answer_to_its_commit_was_lost(
    make_storage_app: AppMaker, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAUSE_S", 0.0)
    with Proxy(postgresql.port) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
        url = postgresql.new_database().replace(f":{postgresql.port}/", f":{proxy.server_address[1]}/")
        app = make_storage_app(database_url=url, secret_key="a secret key of the tests alone")
        books: Books = app.extensions["dragoman"].books
        assert booked(app) == []  # it is connected, which has a COMMIT of its own
        proxy.drops = 1
        books.end(ONE)
        assert proxy.drops == 0
        assert books._journal is not None
        assert books._journal.unread_bytes, "nobody knows yet that it is in"
        assert (booked(app), counted(app)) == ([ONE.id], 1)
        books.enter_all()
        assert (booked(app), counted(app)) == ([ONE.id], 1)
        assert books._journal.unread_bytes == 0
        proxy.shutdown()


def test_not_each_answer_waits_for_a_database_that_is_away(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    away = Away(monkeypatch)
    monkeypatch.setattr(module, "_PAUSE_S", 60.0)
    for n in range(5):
        books.end(replace(ONE, id=f"req_gw_{n}"))
    assert away.asked == 1


def test_rows_are_counted_before_their_process_ends(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "_enter_soon", lambda: None)
    counted: list[str] = []
    books.on_rows.append(lambda entries: counted.extend(entry.id for entry in entries))
    books.end(ONE)
    assert counted == []
    books.close()
    assert counted == [ONE.id]


def test_rows_are_entered_though_they_could_not_be_counted(app: Flask, books: Books) -> None:
    def fail(_: Any) -> None:
        raise OSError("no space")

    books.on_rows.insert(0, fail)
    counted: list[str] = []
    books.on_rows.append(lambda entries: counted.extend(entry.id for entry in entries))
    for n in range(3):
        books.end(replace(ONE, id=f"req_gw_{n}"))
    assert booked(app) == counted == ["req_gw_0", "req_gw_1", "req_gw_2"]


KILLED = """
import os, signal, sys
from dataclasses import replace
from app import create_storage_app
from app.errors import DatabaseUnavailable
from app.settings import Settings
from app.storage import database, journal
from app.storage.books import Heard
from tests.storage.test_books import ONE, begin, call

def away(*_, **__):
    raise DatabaseUnavailable("away")

journal.SEGMENT_BYTES = int(sys.argv[1])
books = create_storage_app(Settings.from_environment()).extensions["dragoman"].books
database.write = away
for id in ("req_gw_1", "req_gw_2", "req_gw_3", "req_gw_4"):
    begin(books, id)
books.hear("req_gw_2", Heard(0, "claude-haiku-4-5", {"input_tokens": 1000, "output_tokens": 7}))
books.hear("req_gw_3", Heard(0, is_free=True))
books.begin("req_gw_4", replace(call(), number=1, connection="conn_2"))
books.hear("req_gw_4", Heard(1, "claude-haiku-4-5", {"input_tokens": 10, "output_tokens": 1}))
for n in range(50):
    begin(books, f"req_gw_1{n:02}")
    books.end(replace(ONE, id=f"req_gw_1{n:02}"))
books.end(replace(ONE, id="req_gw_1"))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("segment_bytes", [1_000_000, 4_000])
def test_whatever_a_killed_process_knew_is_in_the_books(
    app: Flask, books: Books, either_database: dict[str, str], segment_bytes: int
) -> None:
    environment = {
        "INSTANCE_PATH": str(app.instance_path),
        "SECRET_KEY": app.extensions["dragoman"].settings.secret_key,
        "DATABASE_URL": either_database.get("database_url", ""),
    }
    command = [sys.executable, "-c", KILLED, str(segment_bytes)]
    assert subprocess.run(command, cwd=ROOT, env=environment, timeout=30).returncode == -signal.SIGKILL
    counted_now: list[str] = []
    books.on_rows.append(lambda entries: counted_now.extend(entry.id for entry in entries))
    (folder,) = folders(app)
    assert len(list(folder.iterdir())) == 1 if segment_bytes == 1_000_000 else 5 < len(list(folder.iterdir())) < 20
    books.enter_all()
    assert folders(app) == []
    assert booked(app) == sorted(
        ["req_gw_1", "req_gw_2", "req_gw_3", "req_gw_4", *(f"req_gw_1{n:02}" for n in range(50))]
    )
    assert counted(app) == 54
    lost = database.read(
        app,
        lambda s: s.execute(
            text(
                "SELECT id, connection, model, input_tokens, output_tokens, cost_micros, cost_state FROM requests "
                "WHERE ending = 'worker_lost' ORDER BY id"
            )
        ).all(),
    )
    assert [tuple(row) for row in lost] == [
        ("req_gw_2", "conn_1", "claude-haiku-4-5", 1000, 7, 1035, "estimated"),
        ("req_gw_3", "conn_1", "claude-haiku-4-5", 0, 0, 0, "exact"),
        ("req_gw_4", "conn_2", "claude-haiku-4-5", 10, 1, None, "unknown"),
    ]
    (parts,) = database.read(app, lambda s: s.execute(text("SELECT parts FROM requests WHERE id = 'req_gw_4'")).one())
    told = orjson.loads(parts)
    assert [each["connection"] for each in told["tries"]] == ["conn_1", "conn_2"]
    assert [(each["connection"], each["tokens"]["input"]) for each in told["charges"]] == [
        ("conn_1", 0),
        ("conn_2", 10),
    ]
    assert counted_now == ["req_gw_2", "req_gw_3", "req_gw_4"]  # the others it had counted itself


def test_the_journal_of_a_process_that_lives_is_left_alone(
    app: Flask, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Away(monkeypatch)
    begin(books, "req_gw_9")
    books.end(ONE)
    away.is_away = False
    other = Books(app, app.extensions["dragoman"].settings, books._prices)
    other.enter_all()
    assert booked(app) == []
    books.close()  # something is open yet: what is known of it is left for others
    other = Books(app, app.extensions["dragoman"].settings, books._prices)
    other.enter_all()
    assert booked(app) == [ONE.id, "req_gw_9"]


def test_a_journal_is_read_while_it_is_written_and_does_not_grow(
    app: Flask, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 5_000)
    begin(books, "req_gw_open")
    for n in range(100):
        begin(books, f"req_gw_{n:03}")
        books.end(replace(ONE, id=f"req_gw_{n:03}"))
    (folder,) = folders(app)
    assert len(list(folder.iterdir())) <= 2
    assert counted(app) == 100
    books.end(replace(ONE, id="req_gw_open"))
    books.close()
    assert folders(app) == []


def test_what_is_no_row_is_left_aside_and_told(app: Flask, books: Books, caplog: pytest.LogCaptureFixture) -> None:
    gone = Path(app.instance_path) / "journal" / "1-1"
    gone.mkdir(parents=True)
    begun = module._line("begun", "z", call(3)).strip()  # without the first, which tells of the request
    lines = [
        begun,
        b"{",
        b'["ended","x",{"id":"x"}]',
        b'["begun","y",{}]',
        b"\xff",
        module._line("ended", ONE.id, ONE).strip(),
    ]
    (gone / "00000001.jsonl").write_bytes(b"\n".join(lines) + b'\n["ended", "cut')
    books.enter_all()
    assert booked(app) == [ONE.id]
    assert (gone.parent / "left-out.jsonl").read_bytes().splitlines() == [*lines[1:5], begun]
    assert "is no row of the books" in caplog.text


def test_a_row_that_the_database_does_not_take_holds_no_other_up(
    app: Flask, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Away(monkeypatch)
    monkeypatch.setattr(module, "_PAUSE_S", 60.0)
    for entry in (replace(ONE, id="req_gw_0", input_tokens=2**63), ONE):
        books.end(entry)
    away.is_away = False
    books.enter()
    assert booked(app) == [ONE.id]
    assert len((Path(app.instance_path) / "journal" / "left-out.jsonl").read_bytes().splitlines()) == 1


def test_when_too_much_waits_new_requests_are_refused_and_no_row_is_dropped(
    app: Flask, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Away(monkeypatch)
    monkeypatch.setattr(module, "MOST_UNREAD_BYTES", 1500)
    for n in range(3):
        books.check_room()
        books.end(replace(ONE, id=f"req_gw_{n}"))
    with pytest.raises(ServiceUnavailable, match="books"):
        books.check_room()
    books.end(replace(ONE, id="req_gw_9"))  # of a request that was let in before
    away.is_away = False
    books.enter_all()
    books.check_room()
    assert len(booked(app)) == 4


def test_on_a_full_disk_no_request_begins_and_one_that_ends_goes_straight_to_the_database(
    app: Flask, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(books, ONE.id)
    write = os.write

    def to_a_full_disk(file: int, data: bytes) -> int:
        return write(file, data[:10]) if b"req_gw" in data else write(file, data)

    with monkeypatch.context() as full:
        full.setattr(os, "write", to_a_full_disk)
        with pytest.raises(ServiceUnavailable, match="cannot write its books"):
            begin(books, "req_gw_2")
        books.hear(ONE.id, Heard(0))
        books.end(ONE)
        assert booked(app) == [ONE.id]
    books.end(replace(ONE, id="req_gw_3"))  # no half of a line stands before it
    assert booked(app) == sorted([ONE.id, "req_gw_3"])


def test_without_room_for_journal_and_database_a_row_waits_and_nobody_is_told(
    app: Flask, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(books, ONE.id)
    away = Away(monkeypatch)

    def full(file: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "write", full)
        books.end(ONE)
        assert ONE.id in books._open
    books.enter_all()
    assert booked(app) == []
    away.is_away = False
    books.enter_all()
    assert booked(app) == [ONE.id]
    assert not books._open
    assert not books._unwritten


def test_a_row_that_ends_while_the_last_are_entered_is_left_for_others(
    app: Flask, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(books, "req_gw_9")
    insert = books._insert

    def and_one_ends(entries: Any) -> None:
        insert(entries)
        monkeypatch.setattr(books, "_enter_soon", lambda: None)
        books.end(replace(ONE, id="req_gw_9"))

    monkeypatch.setattr(books, "_enter_soon", lambda: None)
    books.end(ONE)
    monkeypatch.setattr(books, "_insert", and_one_ends)
    books.close()
    Books(app, app.extensions["dragoman"].settings, books._prices).enter_all()
    assert booked(app) == [ONE.id, "req_gw_9"]


def test_with_ledger_sync_full_the_disk_is_waited_for(
    make_storage_app: AppMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    for mode, count in (("normal", 0), ("full", 1)):
        make_storage_app(ledger_sync=mode).extensions["dragoman"].books.end(ONE)
        assert len(synced) == count


def test_a_journal_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"INSTANCE_PATH: .*journal, .*cannot be written \(Not a directory\)"):
        journal.check(tmp_path / "file" / "journal")
    journal.check(tmp_path / "instance" / "journal")

"""What each worker has learned of its connections, published so that any one of them answers for all.

Under gunicorn each worker keeps a file in the folder of the counts (in memory; see app/metrics.py), which its siblings
read and its master removes. Times are monotonic seconds, the same for all processes of a machine.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
from flask import Flask

from app.services import Upstream
from app.settings import metrics_folder
from app.storage.config import ConfigSnapshot

State = dict[str, Any]

is_stopping = False
"""Set once this worker takes no new connections."""

_published = b""


_started = time.monotonic()


def begin() -> None:
    """A worker starts, with what its master has imported."""
    global _started
    _started = time.monotonic()


def publish(app: Flask) -> None:
    """Writes this worker's state if it has changed."""
    global _published
    folder = metrics_folder()
    if folder is None:
        return
    data = orjson.dumps(_own(app))
    if data == _published:
        return
    path = _path(folder, os.getpid())
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.replace(path)
    _published = data


def all_workers(app: Flask) -> list[State]:
    """This worker's state as it is now, and the others' as they published it."""
    folder = metrics_folder()
    states = [_own(app)]
    for path in sorted(folder.glob("worker-*.json")) if folder else ():
        with suppress(OSError, orjson.JSONDecodeError):  # one that ends just now
            state = orjson.loads(path.read_bytes())
            if state["pid"] != os.getpid():
                states.append(state)
    return sorted(states, key=lambda state: state["pid"])


def forget(pid: int) -> None:
    """A worker has ended."""
    folder = metrics_folder()
    if folder is not None:
        with suppress(OSError):
            _path(folder, pid).unlink()


def _path(folder: Path, pid: int) -> Path:
    return folder / f"worker-{pid}.json"


def _own(app: Flask) -> State:
    """{"pid", "started", "generation", "is_stopping", "connections": {id: {"models_learned", "models_error", "lessons",
    "outs": [{"reason", "model", "until", "error"}]}}}"""
    snapshot: ConfigSnapshot | None = app.extensions["dragoman"].config.last_snapshot
    claude: Upstream = app.extensions["dragoman.upstream"]
    connections = {}
    for connection in snapshot.connections if snapshot else ():
        learned_at, error = claude.catalogue.status(connection)
        connections[connection.id] = {
            "models_learned": learned_at or None,
            "models_error": error.message if error else None,
            "lessons": claude.catalogue.lessons(connection),
            "outs": [
                {"reason": out.reason, "model": model, "until": out.until, "error": out.error.message}
                for model, out in claude.pool.outs(connection)
            ],
        }
    return {
        "pid": os.getpid(),
        "started": _started,
        "generation": snapshot.generation if snapshot else None,
        "is_stopping": is_stopping,
        "connections": connections,
    }

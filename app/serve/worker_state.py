"""What each worker has learned of its connections, published so that any one of them answers for all.

Under gunicorn each worker keeps a file in the folder of the counts (in memory; see metrics.py), which its siblings
read and its master removes. Times are monotonic seconds, the same for all processes of a machine.
"""

from __future__ import annotations

import math
import os
import sys
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
from flask import Flask
from gevent import Greenlet

from app.errors import GatewayError, UpstreamError
from app.services import Upstream
from app.settings import metrics_folder
from app.storage.config import ConfigSnapshot, Connection
from app.upstream.pool import label

State = dict[str, Any]

is_stopping = False
"""Set once this worker takes no new connections."""

_published = b""


_started = time.monotonic()

_greenlets: weakref.WeakSet[Greenlet[..., Any]] = weakref.WeakSet()
"""All since this worker began. To look for them among all objects took 0.1 s beside large requests."""


def begin() -> None:
    """A worker starts, with what its master has imported."""
    global _started
    _started = time.monotonic()
    Greenlet.add_spawn_callback(_greenlets.add)


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
    with suppress(OSError):  # the folder is gone: this worker still tells of itself
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


def held() -> dict[str, int]:
    """What this worker holds: greenlets that are alive, without the main one and the hub, and blocks of Python's
    memory."""
    return {
        "greenlets": sum(not each.dead for each in list(_greenlets)),
        "memory_blocks": sys.getallocatedblocks(),
    }


def worker_as_told(state: State) -> dict[str, Any]:
    return {
        "pid": state["pid"],
        "up_s": round(time.monotonic() - state["started"]),
        "generation": state["generation"],
        "is_stopping": state["is_stopping"],
    }


def connection_as_told(connection: Connection, states: Sequence[State]) -> dict[str, Any]:
    """A connection, with what each worker has to say of it."""
    now = time.monotonic()
    told = [(s["pid"], s["connections"][connection.id]) for s in states if connection.id in s["connections"]]
    learned = [known["models_learned"] for _, known in told if known["models_learned"]]
    errors = [known["models_error"] for _, known in told if known["models_error"]]
    lessons: dict[str, set[str]] = {}
    for _, known in told:
        for model, names in known["lessons"].items():
            lessons.setdefault(model, set()).update(names)
    return {
        "id": connection.id,
        "name": label(connection),
        "base_url": connection.base_url,
        "models_learned_s_ago": round(now - max(learned)) if learned else None,
        "learned_from_refusals": {model: sorted(names) for model, names in lessons.items()},
        "models_error": errors[0] if errors else None,
        "out": [
            {
                "reason": out["reason"],
                "model": out["model"],
                "for_s": math.ceil(out["until"] - now),
                "on_trial": out["on_trial"],
                "error": out["error"],
                "worker": pid,
            }
            for pid, known in told
            for out in known["outs"]
            if out["until"] > now
        ],
    }


_IN_WORDS = {
    "cooling_down": "rate limit reached",
    "failing": "failed again and again",
    "key_refused": "key refused",
    "out_of_funds": "no credit left",
}


def reasons(connection: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a connection, each thing once, for however many workers it holds."""
    told = {(out["reason"], out["model"]): out for out in connection["out"]}
    for (reason, model), out in told.items():
        about = f" for {model}" if model else ""
        when = "being tried now" if out["on_trial"] else f"asked again in {out['for_s']} s"
        yield f"{_IN_WORDS[reason]}{about}, {when} ({out['error'].rstrip('.')})"
    if connection["models_error"] and all(reason == "cooling_down" for reason, _ in told):  # else it is the same again
        yield f"its models could not be listed: {connection['models_error']}"


def _said(error: GatewayError) -> str:
    """In Anthropic's own words where it has said something: it is told to admins, and not as the answer to a chat."""
    upstream = error.upstream if isinstance(error, UpstreamError) else None
    return str((upstream or {}).get("message") or error.message)


def _path(folder: Path, pid: int) -> Path:
    return folder / f"worker-{pid}.json"


def _own(app: Flask) -> State:
    """{"pid", "started", "generation", "is_stopping", "connections": {id: {"name", "base_url",
    "models_learned", "models_error", "lessons",
    "outs": [{"reason", "model", "until", "on_trial", "error"}]}}}"""
    snapshot: ConfigSnapshot | None = app.extensions["dragoman"].config.last_snapshot
    claude: Upstream = app.extensions["dragoman.upstream"]
    connections = {}
    for connection in snapshot.connections if snapshot else ():
        learned_at, error = claude.catalogue.status(connection)
        connections[connection.id] = {
            "name": label(connection),
            "base_url": connection.base_url,
            "models_learned": learned_at or None,
            "models_error": _said(error) if error else None,
            "lessons": claude.catalogue.lessons(connection),
            "outs": [
                {
                    "reason": out.reason,
                    "model": model,
                    "until": out.until,
                    "on_trial": out.on_trial,
                    "error": _said(out.error),
                }
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

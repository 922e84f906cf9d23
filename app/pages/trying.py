"""Trying a connection out from a page: what verifying it found, as a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import gevent

from app.errors import InvalidRequest
from app.services import upstream
from app.storage.config import ConfigSnapshot, Connection
from app.upstream.pool import Pool
from app.upstream.verification import Verification, verify

LONGEST_WAIT_S = 20.0


def try_out(connection: Connection) -> dict[str, Any]:
    """What verifying a connection found, as a sentence for the page and for its script."""
    return _tried(upstream().pool, connection)


def try_out_all(connections: Sequence[Connection]) -> list[dict[str, Any]]:
    """The same for several at once, and not for longer than somebody waits for a page."""
    pool = upstream().pool
    tasks = [gevent.spawn(_tried, pool, connection) for connection in connections]
    gevent.joinall(tasks, timeout=LONGEST_WAIT_S)
    late = {"ok": False, "message": f"There was no answer within {LONGEST_WAIT_S:g} seconds.", "models": []}
    return [task.value or late for task in tasks]


def _tried(pool: Pool, connection: Connection) -> dict[str, Any]:
    """Beyond the list of models it asks for one token: an account without credit lists models too."""
    found = verify(pool, connection)
    available = connection.model_ids or found.models
    if found.ok and available:
        cheapest = next((id for id in available if "haiku" in id), available[0])
        found = replace(verify(pool, connection, cheapest), latency_ms=found.latency_ms)
    message = " ".join(filter(None, (_sentence(found), "" if found.ok else odd_key(connection))))
    return {"ok": found.ok, "message": message, "models": found.models}


def doubts(before: ConfigSnapshot, after: ConfigSnapshot) -> list[str]:
    """What may be wrong about a change that is saved, each as it stands after “Saved, but”: connections whose URL or
    key is new are tried out, and names of models looked up."""
    known = {(c.base_url, c.key) for c in before.connections}
    fresh = [c for c in after.connections if c.enable and (c.base_url, c.key) not in known]
    found = []
    for connection, tried in zip(fresh, try_out_all(fresh), strict=True):
        if not tried["ok"]:
            which = f"“{connection_name(connection)}”" if len(after.connections) > 1 else "the connection"
            found.append(f"{which} does not work: {tried['message']}")
    changed = [name for name, value in after.values.items() if value != before.values[name]]
    return [*found, *(f"{said[0].lower()}{said[1:]}" for said in upstream().catalogue.warnings(changed, after))]


def connection_name(connection: Connection) -> str:
    return connection.name or f"Connection {connection.index + 1}"


def odd_key(connection: Connection) -> str:
    """A hint for a key that is plainly another one."""
    if urlsplit(connection.base_url).hostname != "api.anthropic.com" or connection.key.startswith("sk-ant-"):
        return ""
    if connection.key.startswith("sk-dgm-"):
        return "This is a client key of a gateway such as this one; a key of Anthropic's begins with sk-ant-."
    return "A key of Anthropic's begins with sk-ant-, and this one does not."


def refused(error: InvalidRequest) -> dict[str, Any]:
    return {"ok": False, "message": error.message, "models": []}


def _sentence(found: Verification) -> str:
    if not found.ok:
        return found.error or "It does not work, and gave no reason."
    models = "1 model" if len(found.models) == 1 else f"{len(found.models)} models"
    return f"It works: {models}, answered in {found.latency_ms} ms."

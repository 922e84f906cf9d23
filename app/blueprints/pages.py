"""What the pages of the web interface have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict
from urllib.parse import urlsplit

import gevent
import orjson
from flask import Flask, Response, current_app, g, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from app.command import command_in_our_folder
from app.errors import InvalidRequest
from app.services import services, upstream
from app.settings import ROOT
from app.storage.accounts import SHORTEST_PASSWORD
from app.storage.config import ConfigSnapshot, Connection
from app.upstream.catalogue import OVERLAY
from app.upstream.pool import Pool
from app.upstream.verification import Verification, verify

LONGEST_PASSWORD = 1000
LONGEST_WAIT_S = 20.0


def this_app() -> Flask:
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]  # a LocalProxy
    return app


class Author(TypedDict):
    """Who makes a change, as the storage layer wants to know."""

    who: str
    ip: str


def author() -> Author:
    return {"who": g.caller.who, "ip": request.remote_addr or ""}


def see_other(place: str) -> AnyResponse:
    """To the page that shows what a form did, so that a reload does not do it again."""
    return redirect(place, 303)


def wants_json() -> bool:
    """A script of ours asks, which puts the answer into the page that is open."""
    return request.accept_mimetypes.best == "application/json"


def current_snapshot() -> ConfigSnapshot:
    """As the database has it now: another worker may have saved a moment ago."""
    services().config.refresh()
    return services().config.snapshot


def our_command(*arguments: str) -> str:
    """As somebody types it on the gateway's machine, in Dragoman's folder."""
    settings = services().settings
    if not settings.dragoman_demo:
        return command_in_our_folder(*arguments)
    folder = settings.instance_path.resolve()
    shown = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder
    return f"INSTANCE_PATH={shown} {command_in_our_folder(*arguments)}"


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


def password_errors(password: str, again: str, field: str = "password") -> dict[str, str]:
    errors: dict[str, str] = {}
    if len(password) < SHORTEST_PASSWORD:
        errors[field] = f"Use at least {SHORTEST_PASSWORD} characters; a few words in a row make a good password."
    elif len(password) > LONGEST_PASSWORD:
        errors[field] = f"Use at most {LONGEST_PASSWORD} characters."
    elif len(set(password)) < 4:
        errors[field] = "This is too easy to guess; use more different characters."
    elif password != again:
        errors["again"] = "The two passwords differ. Type the same one twice."
    return errors


def usage_examples(secret: str, models: tuple[str, ...] | None) -> Mapping[str, str]:
    """What the page with a new key needs for its lines to copy."""
    url = f"{request.url_root}v1"
    host = request.host.rsplit(":", 1)[0]
    loopback = host in ("127.0.0.1", "localhost", "[::1]")
    port = services().settings.port if ":" not in request.host else request.host.rsplit(":", 1)[1]
    return {
        "secret": secret,
        "base_url": url,
        "model": models[0] if models else _usual_model(),
        "docker_url": f"{request.scheme}://host.docker.internal:{port}/v1" if loopback else "",
    }


def _usual_model() -> str:
    active = [id for id, model in OVERLAY.items() if model["lifecycle"] == "active"]
    return next((id for id in active if "sonnet" in id), active[0])


def answer(found: Mapping[str, Any]) -> Response:
    """For a script of ours."""
    return Response(orjson.dumps(found), mimetype="application/json")


def page(body: str, status: int = 200) -> Response:
    return Response(body, status, mimetype="text/html")

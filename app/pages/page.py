"""What the pages of the web interface have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict
from urllib.parse import urlsplit

import orjson
from flask import Response, g, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from app.command import command_in_our_folder
from app.services import services
from app.settings import Settings
from app.storage.accounts import SHORTEST_PASSWORD
from app.storage.config import ConfigSnapshot
from app.upstream.names import OVERLAY

LONGEST_PASSWORD = 1000
LARGEST_ID = 2**31 - 1
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


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
    return command_in_our_folder(services().settings, *arguments)


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


def usage_examples(secret: str, models: tuple[str, ...] | None) -> Mapping[str, Any]:
    """What the page with a new key needs for its lines to copy."""
    settings = services().settings
    seen = urlsplit(request.url_root)
    port = "" if seen.port is None else f":{seen.port}"
    loopback = seen.hostname in _LOOPBACK
    return {
        "secret": secret,
        "base_url": f"{request.url_root}v1",
        "model": models[0] if models else _usual_model(),
        "docker_url": f"{seen.scheme}://host.docker.internal{port}/v1" if loopback else "",
        "port": settings.port,
        "published": f"{seen.port or {'http': 80, 'https': 443}[seen.scheme]}:{settings.port}",
        "start": " ".join(
            [
                "HOST=0.0.0.0",
                *([f"PORT={settings.port}"] if settings.port != Settings.port else []),
                f"make {'demo' if settings.dragoman_demo else 'run'}",
            ]
        )
        if settings.host in _LOOPBACK
        else "",
    }


def _usual_model() -> str:
    active = [id for id, model in OVERLAY.items() if model["lifecycle"] == "active"]
    return next((id for id in active if "sonnet" in id), active[0])


def answer(found: Mapping[str, Any]) -> Response:
    """For a script of ours."""
    return Response(orjson.dumps(found), mimetype="application/json")


def page(body: str, status: int = 200) -> Response:
    return Response(body, status, mimetype="text/html")

"""Who calls: by an API key from `Authorization: Bearer` or `x-api-key`, or by an admin's session."""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from flask import current_app, g, request
from flask_login import current_user

from app.errors import Unauthenticated
from app.services import this_app
from app.storage import accounts
from app.storage.keys import OUR_PREFIX, ClientKey

FORWARDING_HEADERS = (
    "HTTP_X_FORWARDED_FOR",
    "HTTP_FORWARDED",
    "HTTP_X_REAL_IP",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_VIA",
)


_ANTHROPICS = (
    (
        "sk-ant-oat",
        " This is what signing in to Claude gave your program: put a key of the gateway's own (sk-dgm-…) into "
        "ANTHROPIC_AUTH_TOKEN.",
    ),
    ("sk-ant-", " This is a key of Anthropic's: programs use one of the gateway's own (sk-dgm-…)."),
)


class MissingKey(Unauthenticated):
    """OpenAI sends no code with it."""

    code = None  # type: ignore[assignment]  # mypy infers str from the class between


@dataclass(frozen=True)
class Caller:
    """Who makes this request. `who` names them in the audit log; `key` is None for a session."""

    kind: Literal["anonymous", "client", "admin"] = "anonymous"
    key: ClientKey | None = None
    who: str = "anonymous"
    username: str | None = None


ANONYMOUS = Caller()


def presented_key() -> str | None:
    """The API key of this request, whatever it is worth. Of two that differ it is the gateway's own: a client may hold
    one of Anthropic's as well. Raises Unauthenticated where both are the gateway's."""
    environ = request.environ
    authorization: str = environ.get("HTTP_AUTHORIZATION", "")
    bearer = authorization[7:].strip() if authorization[:7].lower() == "bearer " else ""
    secret: str = environ.get("HTTP_X_API_KEY", "").strip()
    if bearer and secret and bearer != secret:
        ours = [each for each in (bearer, secret) if each.startswith(OUR_PREFIX)]
        if len(ours) > 1:
            raise Unauthenticated("Two different API keys were sent, as Bearer and as x-api-key; send one.")
        return (ours or [bearer])[0]
    return bearer or secret or None


def demanded_key() -> str:
    secret = presented_key()
    if secret is None:
        raise MissingKey(
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer "
            "auth (i.e. Authorization: Bearer YOUR_KEY). The administrator of this gateway can give you one.",
            headers={"www-authenticate": "Bearer"},
        )
    return secret


def key_caller(secret: str) -> Caller:
    ring = current_app.extensions["dragoman"].keys
    key = ring.authenticate(secret)
    if key is None:
        g.former_key = ring.former(secret)  # for the log alone: the client is told no more than of any other
        raise Unauthenticated(
            "Incorrect API key provided."
            + next((told for start, told in _ANTHROPICS if secret.startswith(start)), "")
            + " The administrator of this gateway can give you one.",
            headers={"www-authenticate": "Bearer"},
        )
    return Caller(key.scope, key, f"key {key.name}")


def session_caller() -> Caller | None:
    """The signed-in admin, if there is one."""
    if "HTTP_COOKIE" not in request.environ or not current_user.is_authenticated:
        return None
    username = current_user.admin.username
    return Caller("admin", None, username, username)


def may_see_details() -> bool:
    """Whether /healthz and /readyz tell this caller more than a status: an admin, or METRICS_TOKEN."""
    if _has_metrics_token():
        return True
    secret = presented_key()
    if secret is not None:
        key = current_app.extensions["dragoman"].keys.authenticate(secret)
        return key is not None and key.scope == "admin"
    return session_caller() is not None


def may_read_metrics() -> bool:
    if _has_metrics_token():
        return True
    if any(name in request.environ for name in FORWARDING_HEADERS) or presented_key() is not None:
        return False
    # A page of somebody else's, whose host's name leads here (DNS rebinding), asks for that name.
    return _is_loopback(request.environ.get("REMOTE_ADDR", "")) and _is_loopback(urlsplit(request.host_url).hostname)


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _has_metrics_token() -> bool:
    token = current_app.extensions["dragoman"].settings.metrics_token
    secret = presented_key()
    return bool(token and secret) and hmac.compare_digest(token.encode(), (secret or "").encode())


def admin_exists() -> bool:
    """Asked of the database until it is so once."""
    known = current_app.extensions
    if not known.get("dragoman.admin_exists"):
        known["dragoman.admin_exists"] = accounts.any_exists(this_app())
    return bool(known["dragoman.admin_exists"])

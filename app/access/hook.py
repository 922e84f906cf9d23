"""Who may call what: one hook before each request enforces what the view declares (endpoint.py).

It sets `g.request_id` and `g.caller`, which the rest of the program goes by. An admin's session counts on admin routes,
and then CSRF tokens are demanded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from flask import Flask, current_app, g, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from app.access import callers, headers, sessions
from app.access.endpoint import Endpoint, declared
from app.access.login_limits import LoginLimits
from app.errors import Forbidden, InvalidRequest, NotFound, Unauthenticated
from app.settings import Settings
from app.storage import ledger

MOST_OF_A_FORM = 128 * 1024
MOST_OF_A_DOCUMENT = 1024 * 1024
"""Bytes. Reading a form costs half a microsecond of CPU for each, which nobody else has meanwhile."""


def init_app(app: Flask) -> None:
    settings: Settings = app.extensions["dragoman"].settings
    app.before_request(_admit)
    app.after_request(headers.finish)
    app.extensions["dragoman.endpoints"] = {}
    app.extensions["dragoman.cors"] = frozenset(settings.cors_allow_origins)
    app.extensions["dragoman.login_limits"] = LoginLimits(settings.redis_url)
    sessions.init_app(app)


def check_declarations(app: Flask) -> None:
    """Every view must say who may call it. Raises RuntimeError, at start."""
    endpoints = {name: _declaration(name, view) for name, view in app.view_functions.items()}
    missing = sorted(name for name, endpoint in endpoints.items() if endpoint is None)
    if missing:
        raise RuntimeError(f"Views without @endpoint: {', '.join(missing)}.")
    app.extensions["dragoman.endpoints"].update(endpoints)


def _declaration(name: str, view: Any) -> Endpoint | None:
    return Endpoint("anyone", documented=False) if name == "static" or name.endswith(".static") else declared(view)


def _admit() -> AnyResponse | None:
    g.request_id = ledger.new_id()
    g.caller = callers.ANONYMOUS
    if "HTTP_HOST" not in request.environ and request.environ.get("SERVER_PROTOCOL") == "HTTP/1.1":
        raise InvalidRequest("HTTP/1.1 requests name the host that they are for in the header Host.", param="Host")
    rule = request.url_rule
    if request.method == "OPTIONS":
        return headers.preflight()
    if rule is None:
        return None  # Flask answers 404 or 405
    endpoint: Endpoint = current_app.extensions["dragoman.endpoints"][rule.endpoint]
    if not endpoint.takes_conversations:
        most = MOST_OF_A_FORM if request.path.startswith(sessions.PAGE_PATHS) else MOST_OF_A_DOCUMENT
        request.max_content_length = min(most, current_app.config["MAX_CONTENT_LENGTH"])
    answer: AnyResponse | None = _RULES[endpoint.access]()
    return answer


def _anyone() -> None:
    return None


def _client() -> None:
    g.caller = callers.key_caller(callers.demanded_key())


def _admin() -> None:
    secret = callers.presented_key()
    if secret is not None:
        g.caller = caller = callers.key_caller(secret)
        if caller.kind != "admin":
            raise Forbidden("This needs an admin key or an admin's session; the key given is a client key.")
        return
    caller_in_session = callers.session_caller()
    if caller_in_session is None:
        callers.demanded_key()
    else:
        g.body = request.get_data()  # looking for the token in a form would use up a body of no declared type
        sessions.check_csrf()
        g.caller = caller_in_session


def _client_or_admin() -> None:
    secret = callers.presented_key()
    if secret is not None:
        g.caller = callers.key_caller(secret)
    else:
        _admin()


def _session() -> AnyResponse | None:
    caller = callers.session_caller()
    if caller is None:
        wants_page = not request.accept_mimetypes or request.accept_mimetypes.accept_html
        if request.method == "GET" and not request.is_json and wants_page:
            here = request.full_path.rstrip("?")
            return redirect(f"{sessions.LOGIN_PAGE}?next={quote(here, safe='/')}")
        raise sessions.NotSignedIn("Sign in at /admin/login first.")
    sessions.check_csrf()
    g.caller = caller
    return None


def _setup() -> None:
    if callers.admin_exists():
        raise NotFound("There is an admin already; sign in at /admin/login.")


def _metrics() -> None:
    if not callers.may_read_metrics():
        raise Unauthenticated(
            "This needs METRICS_TOKEN as a Bearer token, or a request without a key from the gateway's own machine "
            "that came through no proxy.",
            headers={"www-authenticate": "Bearer"},
        )


_RULES: Mapping[str, Any] = {
    "anyone": _anyone,
    "client": _client,
    "admin": _admin,
    "client_or_admin": _client_or_admin,
    "session": _session,
    "setup": _setup,
    "metrics": _metrics,
}

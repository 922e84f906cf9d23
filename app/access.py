"""Who may call what: one hook before each request enforces what the view declares (app/api.py).

It sets `g.request_id` and `g.caller`, which the rest of the program goes by. An API key is read from
`Authorization: Bearer` or `x-api-key`; an admin's session counts on admin routes, and then CSRF tokens are demanded.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import os
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlsplit

from flask import Flask, Response, current_app, g, redirect, request, session
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from flask_login import UserMixin, current_user, login_user, logout_user
from flask_wtf.csrf import CSRFError
from werkzeug.wrappers import Request
from werkzeug.wrappers import Response as AnyResponse

from app import extensions
from app.api import Endpoint, declared
from app.errors import DatabaseUnavailable, Forbidden, NotFound, TooManyRequests, Unauthenticated
from app.settings import Settings
from app.storage import accounts, audit
from app.storage.accounts import Admin
from app.storage.keys import ClientKey

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.strategies import RateLimiter

log = logging.getLogger(__name__)

SESSION = "name"  # of the session, in its cookie
LOGIN_PAGE = "/admin/login"
CORS_PATHS = ("/v1", "/models", "/chat")
PAGE_PATHS = ("/admin", "/setup")
NOT_STORED_PATHS = ("/admin", "/setup", "/config", "/verify")
FORWARDING_HEADERS = (
    "HTTP_X_FORWARDED_FOR",
    "HTTP_FORWARDED",
    "HTTP_X_REAL_IP",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_VIA",
)
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
FAILED_LOGINS_PER_ADDRESS = "20 per 5 minutes"
FAILED_LOGINS_PER_USERNAME = "10 per 5 minutes"
EXPOSED_HEADERS = ("x-gateway-", "x-request-id", "x-ratelimit-", "retry-after")
PREFLIGHT_HEADERS = "authorization, content-type, x-api-key"


class MissingKey(Unauthenticated):
    """OpenAI sends no code with it."""

    code = None  # type: ignore[assignment]  # mypy infers str from the class between


class NotSignedIn(Unauthenticated):
    code = "not_signed_in"


@dataclass(frozen=True)
class Caller:
    """Who makes this request. `who` names them in the audit log; `key` is None for a session."""

    kind: Literal["anonymous", "client", "admin"] = "anonymous"
    key: ClientKey | None = None
    who: str = "anonymous"
    username: str | None = None


ANONYMOUS = Caller()


class SignedIn(UserMixin):  # type: ignore[misc]  # flask_login comes without types
    """Flask-Login's view of an admin."""

    def __init__(self, admin: Admin) -> None:
        self.admin = admin

    def get_id(self) -> str:
        return self.admin.session_id


def init_app(app: Flask) -> None:
    settings: Settings = app.extensions["dragoman"].settings
    app.session_interface = SessionCookies()
    app.before_request(_admit)
    app.after_request(_finish)
    app.extensions["dragoman.endpoints"] = {}
    app.extensions["dragoman.cors"] = frozenset(settings.cors_allow_origins)
    app.extensions["dragoman.login_limits"] = LoginLimits(settings.redis_url)
    manager = extensions.login_manager
    manager.session_protection = None  # addresses change on the road; the session's epoch ends it
    # We set no "remember me" cookie, and looking for one would open the session on every API answer.
    app.after_request_funcs[None] = [f for f in app.after_request_funcs[None] if f != manager._update_remember_cookie]

    @manager.user_loader  # type: ignore[untyped-decorator]  # flask_login comes without types
    def load_user(session_id: str) -> SignedIn | None:
        admin = accounts.by_session_id(app, session_id, session.get(SESSION, ""))
        return SignedIn(admin) if admin else None


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
    g.request_id = f"req_gw_{os.urandom(12).hex()}"
    g.caller = ANONYMOUS
    rule = request.url_rule
    if request.method == "OPTIONS":
        return _preflight()
    if rule is None:
        return None  # Flask answers 404 or 405
    endpoint: Endpoint = current_app.extensions["dragoman.endpoints"][rule.endpoint]
    answer: AnyResponse | None = _RULES[endpoint.access]()
    return answer


def _anyone() -> None:
    return None


def _client() -> None:
    g.caller = _key_caller(_demanded_key())


def _admin() -> None:
    secret = presented_key()
    if secret is not None:
        g.caller = caller = _key_caller(secret)
        if caller.kind != "admin":
            raise Forbidden("This needs an admin key or an admin's session; the key given is a client key.")
        return
    caller_in_session = session_caller()
    if caller_in_session is None:
        _demanded_key()
    else:
        request.get_data()  # kept: looking for the token in a form would use up a body of no declared type
        check_csrf()
        g.caller = caller_in_session


def _client_or_admin() -> None:
    secret = presented_key()
    if secret is not None:
        g.caller = _key_caller(secret)
    else:
        _admin()


def _session() -> AnyResponse | None:
    caller = session_caller()
    if caller is None:
        wants_page = not request.accept_mimetypes or request.accept_mimetypes.accept_html
        if request.method == "GET" and not request.is_json and wants_page:
            here = request.full_path.rstrip("?")
            return redirect(f"{LOGIN_PAGE}?next={quote(here, safe='/')}")
        raise NotSignedIn("Sign in at /admin/login first.")
    check_csrf()
    g.caller = caller
    return None


def _setup() -> None:
    if admin_exists():
        raise NotFound("There is an admin already; sign in at /admin/login.")


def _metrics() -> None:
    if not may_read_metrics():
        raise Unauthenticated(
            "This needs METRICS_TOKEN as a Bearer token, or a request from the gateway's own machine that came "
            "through no proxy.",
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


def presented_key() -> str | None:
    """The API key of this request, whatever it is worth."""
    environ = request.environ
    authorization: str = environ.get("HTTP_AUTHORIZATION", "")
    if authorization[:7].lower() == "bearer ":
        secret = authorization[7:].strip()
        if secret:
            return secret
    secret = environ.get("HTTP_X_API_KEY", "").strip()
    return secret or None


def _demanded_key() -> str:
    secret = presented_key()
    if secret is None:
        raise MissingKey(
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer "
            "auth (i.e. Authorization: Bearer YOUR_KEY). The administrator of this gateway can give you one.",
            headers={"www-authenticate": "Bearer"},
        )
    return secret


def _key_caller(secret: str) -> Caller:
    key = current_app.extensions["dragoman"].keys.authenticate(secret)
    if key is None:
        anthropics = " This is a key of Anthropic's: programs use one of the gateway's own (sk-dgm-…)."
        raise Unauthenticated(
            "Incorrect API key provided."
            + (anthropics if secret.startswith("sk-ant-") else "")
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
    try:
        peer = ipaddress.ip_address(request.environ.get("REMOTE_ADDR", ""))
    except ValueError:
        return False
    return (getattr(peer, "ipv4_mapped", None) or peer).is_loopback


def _has_metrics_token() -> bool:
    token = current_app.extensions["dragoman"].settings.metrics_token
    secret = presented_key()
    return bool(token and secret) and hmac.compare_digest(token.encode(), (secret or "").encode())


def admin_exists() -> bool:
    """Asked of the database until it is so once."""
    known = current_app.extensions
    if not known.get("dragoman.admin_exists"):
        known["dragoman.admin_exists"] = accounts.any_exists(current_app._get_current_object())  # type: ignore[attr-defined]  # a LocalProxy
    return bool(known["dragoman.admin_exists"])


def check_csrf() -> None:
    """Raises Forbidden unless a request that changes something carries the session's token, as the form field
    `csrf_token` or the header X-CSRFToken."""
    if request.method in ("GET", "HEAD"):
        return
    try:
        extensions.csrf.protect()
    except CSRFError as error:
        raise Forbidden(
            f"{error.description} Reload the page and try again; programs use an API key instead of a session.",
            code="csrf_failed",
        ) from None


def sign_in(username: str, password: str) -> Admin:
    """Check the password and start a session. Raises Unauthenticated, TooManyRequests."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]  # a LocalProxy
    address = request.remote_addr or "unknown"
    admin = check_password(username, password)
    if admin is None:
        audit.record(app, who=username[:100], action="admin.login_failed", ip=address)
        raise Unauthenticated("The user name or the password is wrong.", code="invalid_login")
    audit.record(app, who=admin.username, action="admin.login", ip=address)
    start_session(admin)
    return admin


def check_password(username: str, password: str) -> Admin | None:
    """The account, if this is its password. Raises TooManyRequests."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]  # a LocalProxy
    limits: LoginLimits = app.extensions["dragoman.login_limits"]
    address = request.remote_addr or "unknown"
    limits.count(address, username)  # before the password is looked at: of many attempts at once each must count
    try:
        admin = accounts.verify(app, username, password)
    except DatabaseUnavailable:
        limits.take_back(address, username)
        raise
    if admin is not None:
        limits.take_back(address, username)
        limits.forget(username)
    return admin


def start_session(admin: Admin) -> None:
    """Sign in an admin who proved to be one; what an earlier session held is forgotten."""
    session.clear()
    session.permanent = True
    session[SESSION] = secrets.token_urlsafe(18)
    login_user(SignedIn(admin))


def sign_out() -> None:
    """Ends this session, of which somebody may have kept a cookie, everywhere; the account's others go on. Raises
    DatabaseUnavailable when only the browser could be made to forget it."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]  # a LocalProxy
    name = session.get(SESSION)
    logout_user()
    session.clear()
    if name:
        accounts.end_session(app, name, lifetime_s=round(app.permanent_session_lifetime.total_seconds()))


def safe_next(target: str | None, fallback: str = "/admin") -> str:
    """Where to go after signing in: a path of our own pages, nothing else."""
    if not target or not target.startswith(PAGE_PATHS) or "\\" in target or any(ord(c) < 33 for c in target):
        return fallback
    parts = urlsplit(target)
    return fallback if parts.scheme or parts.netloc or parts.path == LOGIN_PAGE else target


Name = tuple[str, str]


class LoginLimits:
    """Failed sign-ins, per address and per user name; in Redis where several processes must agree. While Redis is away
    each process counts for itself."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self._limiters: tuple[RateLimiter, ...] = ()
        self._limits: list[RateLimitItem] = []
        self._turn = threading.Lock()

    def count(self, address: str, username: str) -> None:
        """An attempt, failed until it is taken back. Raises TooManyRequests."""
        for limit, name in self._names(address, username):
            if not self._ask("hit", limit, name):
                wait_s = max(1, round(self._ask("get_window_stats", limit, name).reset_time - _now()))
                raise TooManyRequests(
                    f"Too many failed sign-ins. Try again in {wait_s} seconds.", headers={"retry-after": str(wait_s)}
                )

    def take_back(self, address: str, username: str) -> None:
        for limit, name in self._names(address, username):
            self._ask("hit", limit, name, cost=-1)

    def forget(self, username: str) -> None:
        limit, name = self._names("", username)[1]
        self._ask("clear", limit, name)

    def _names(self, address: str, username: str) -> list[tuple[RateLimitItem, Name]]:
        self._prepare()
        by_address, by_username = self._limits
        return [(by_address, ("login-address", address)), (by_username, ("login-username", username.strip()[:100]))]

    def _ask(
        self, what: Literal["hit", "clear", "get_window_stats"], limit: RateLimitItem, name: Name, **options: int
    ) -> Any:
        from limits.errors import StorageError

        shared, own = self._limiters
        try:
            return getattr(shared, what)(limit, *name, **options)
        except StorageError as error:
            log.warning("REDIS_URL: failed sign-ins are counted by this process alone: %s", error.storage_error)
            return getattr(own, what)(limit, *name, **options)

    def _prepare(self) -> None:
        if self._limiters:
            return
        from limits import parse
        from limits.storage import storage_from_string
        from limits.strategies import FixedWindowRateLimiter

        with self._turn:
            if not self._limiters:  # those who come at once count in the same place
                self._limits = [parse(FAILED_LOGINS_PER_ADDRESS), parse(FAILED_LOGINS_PER_USERNAME)]
                self._limiters = tuple(
                    FixedWindowRateLimiter(storage_from_string(url, wrap_exceptions=True))
                    for url in (self._redis_url or "memory://", "memory://")
                )


def _now() -> float:
    import time

    return time.time()


class SessionCookies(SecureCookieSessionInterface):
    """Flask's sessions, which cost nothing when no cookie came, with Secure whenever the request was https."""

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        if "HTTP_COOKIE" not in request.environ:
            return self.session_class()
        return super().open_session(app, request)  # type: ignore[arg-type]  # Flask wants its own Request, which this is

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure


def _preflight() -> AnyResponse | None:
    """A browser asks whether a page may call the API; without a CORS question Flask answers OPTIONS itself."""
    origin = _allowed_origin()
    if origin is None or "HTTP_ACCESS_CONTROL_REQUEST_METHOD" not in request.environ:
        return None
    return Response(
        status=204,
        headers={
            "access-control-allow-methods": "GET, POST, OPTIONS",
            "access-control-allow-headers": request.headers.get("access-control-request-headers", PREFLIGHT_HEADERS),
            "access-control-max-age": "600",
        },
    )


def _allowed_origin() -> str | None:
    origins: frozenset[str] = current_app.extensions["dragoman.cors"]
    if not origins:
        return None
    origin = request.environ.get("HTTP_ORIGIN")
    if origin is None or not request.path.startswith(CORS_PATHS):
        return None
    return "*" if "*" in origins else origin if origin in origins else None


def _finish(response: Response) -> Response:
    headers = response.headers
    headers["x-gateway-request-id"] = g.get("request_id", "")
    headers.setdefault("x-content-type-options", "nosniff")
    path = request.path
    if current_app.extensions["dragoman.cors"] and path.startswith(CORS_PATHS):
        headers.add("vary", "origin")
        origin = _allowed_origin()
        if origin is not None:
            headers["access-control-allow-origin"] = origin
            exposed = [name for name, _ in headers.items() if name.lower().startswith(EXPOSED_HEADERS)]
            headers["access-control-expose-headers"] = ", ".join(exposed)
    if path.startswith(NOT_STORED_PATHS):
        headers["cache-control"] = "no-store"
    if response.mimetype == "text/html":
        headers.setdefault("content-security-policy", CONTENT_SECURITY_POLICY)
        headers.setdefault("x-frame-options", "DENY")
        headers.setdefault("referrer-policy", "same-origin")
    return response

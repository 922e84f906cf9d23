"""Admins' sessions: signing in and out, the cookie, and the token that a form must carry."""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

from flask import Flask, Response, after_this_request, request, session
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionMixin
from flask_login import UserMixin, login_user, logout_user
from flask_wtf.csrf import CSRFError
from itsdangerous import BadData, URLSafeTimedSerializer
from werkzeug.wrappers import Request

from app import extensions
from app.access.login_limits import LoginLimits
from app.errors import DatabaseUnavailable, Forbidden, Unauthenticated
from app.services import this_app
from app.storage import accounts, audit
from app.storage.accounts import Admin

SESSION = "name"  # of the session, in its cookie
LOGIN_PAGE = "/admin/login"
PAGE_PATHS = ("/admin", "/setup")
BROWSER_COOKIE = "dragoman_browser"
BROWSER_KNOWN_S = 180 * 86_400


class NotSignedIn(Unauthenticated):
    code = "not_signed_in"


class SignedIn(UserMixin):  # type: ignore[misc]  # flask_login comes without types
    """Flask-Login's view of an admin."""

    def __init__(self, admin: Admin) -> None:
        self.admin = admin

    def get_id(self) -> str:
        return self.admin.session_id


def init_app(app: Flask) -> None:
    app.session_interface = SessionCookies()
    manager = extensions.login_manager
    manager.session_protection = None  # addresses change on the road; the session's epoch ends it
    # We set no "remember me" cookie, and looking for one would open the session on every API answer.
    app.after_request_funcs[None] = [f for f in app.after_request_funcs[None] if f != manager._update_remember_cookie]

    @manager.user_loader  # type: ignore[untyped-decorator]  # flask_login comes without types
    def load_user(session_id: str) -> SignedIn | None:
        admin = accounts.by_session_id(app, session_id, session.get(SESSION, ""))
        return SignedIn(admin) if admin else None


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
    app = this_app()
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
    app = this_app()
    limits: LoginLimits = app.extensions["dragoman.login_limits"]
    address = request.remote_addr or "unknown"
    browser = _known_browser(username)
    # Before the password is looked at: of many attempts at once each must count.
    limits.count(address, username, browser)
    try:
        admin = accounts.verify(app, username, password)
    except DatabaseUnavailable:
        limits.take_back(address, username, browser)
        raise
    if admin is not None:
        limits.take_back(address, username, browser)
        limits.forget(username)
    return admin


def start_session(admin: Admin) -> None:
    """Sign in an admin who proved to be one; what an earlier session held is forgotten."""
    session.clear()
    session.permanent = True
    session[SESSION] = secrets.token_urlsafe(18)
    login_user(SignedIn(admin))
    after_this_request(lambda response: _remember_browser(response, admin.username))


def _remember_browser(response: Response, username: str) -> Response:
    """For the limits of failed sign-ins alone: it lets nobody in."""
    response.set_cookie(
        BROWSER_COOKIE,
        str(_browsers().dumps([username, secrets.token_urlsafe(9)])),
        max_age=BROWSER_KNOWN_S,
        path="/admin",
        secure=request.is_secure,
        httponly=True,
        samesite="Lax",
    )
    return response


def _known_browser(username: str) -> str | None:
    """A name for the browser, if somebody has signed in with it by this user name."""
    try:
        known, name = _browsers().loads(request.cookies.get(BROWSER_COOKIE, ""), max_age=BROWSER_KNOWN_S)
    except (BadData, ValueError, TypeError):
        return None
    return str(name) if known == username.strip() else None


def _browsers() -> URLSafeTimedSerializer:
    config = this_app().config
    return URLSafeTimedSerializer([*(config["SECRET_KEY_FALLBACKS"] or ()), config["SECRET_KEY"]], salt="known browser")


def sign_out() -> None:
    """Ends this session, of which somebody may have kept a cookie, everywhere; the account's others go on. Raises
    DatabaseUnavailable when only the browser could be made to forget it."""
    app = this_app()
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


class SessionCookies(SecureCookieSessionInterface):
    """Flask's sessions, which cost nothing when no cookie came, with Secure whenever the request was https."""

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        if "HTTP_COOKIE" not in request.environ:
            return self.session_class()
        return super().open_session(app, request)  # type: ignore[arg-type]  # Flask wants its own Request, which this is

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        if session.accessed or session.modified or "HTTP_COOKIE" in request.environ:
            super().save_session(app, session, response)

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure

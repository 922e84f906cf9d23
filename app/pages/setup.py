"""The first run: the token's way in, the first admin, the first Anthropic key, the first client key.

Only the account needs the token; what follows is for the signed-in admin, who may leave and come back.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, flash, render_template, request, session, url_for
from markupsafe import Markup
from werkzeug.wrappers import Response as AnyResponse

from app.access.endpoint import endpoint
from app.access.sessions import check_csrf, start_session
from app.errors import Conflict, InvalidRequest
from app.pages.forms import at_its_field, with_connection
from app.pages.page import (
    answer,
    author,
    current_snapshot,
    our_command,
    page,
    password_errors,
    see_other,
    usage_examples,
    wants_json,
)
from app.pages.trying import refused, try_out
from app.services import services, this_app
from app.storage import accounts

blueprint = Blueprint("setup", __name__)
_ADMITTED = "setup_admitted"
_DEFAULT_URL = "https://api.anthropic.com"


@blueprint.get("/setup")
@endpoint("setup", documented=False)
def account() -> AnyResponse:
    return _account_page({}, {})


@blueprint.post("/setup")
@endpoint("setup", documented=False)
def create_account() -> AnyResponse:
    check_csrf()
    form = request.form
    errors: dict[str, str] = {}
    if accounts.is_setup_token(services().vault, form.get("token", "")):
        session[_ADMITTED] = True  # the token need not be pasted again when a field is wrong
    if not session.get(_ADMITTED):
        errors["token"] = Markup(
            "This is not the set-up token. Open the whole link that the gateway printed when it started; "
            "in Dragoman's folder, <code>{}</code> prints it again."
        ).format(our_command("setup-link"))
    username, password = form.get("username", "").strip(), form.get("password", "")
    if not username:
        errors["username"] = "Choose a user name."
    errors.update(password_errors(password, form.get("again", "")))
    if errors:
        return _account_page(form, errors)
    try:
        admin = accounts.create_first(this_app(), username, password, ip=request.remote_addr or "")
    except Conflict:
        flash("There is an admin already. Sign in with that account.", "warning")
        return see_other(url_for("login.login"))
    except InvalidRequest as error:
        return _account_page(form, {error.param or "username": error.message})
    start_session(admin)
    return see_other(url_for("setup.welcome"))


def _account_page(typed: Any, errors: dict[str, str]) -> AnyResponse:
    admitted = bool(session.get(_ADMITTED))
    body = render_template("setup/account.html", typed=typed, errors=errors, admitted=admitted)
    return page(body, 400 if errors else 200)


@blueprint.get("/admin/welcome")
@endpoint("session", documented=False)
def welcome() -> AnyResponse:
    """To the first step that is not done."""
    if not current_snapshot().connections:
        return see_other(url_for("setup.anthropic"))
    if not services().keys.count_valid():
        return see_other(url_for("setup.client_key"))
    return see_other(url_for("overview.overview"))


@blueprint.get("/admin/welcome/anthropic")
@endpoint("session", documented=False)
def anthropic() -> AnyResponse:
    return _anthropic_page({}, {}, None)


@blueprint.post("/admin/welcome/anthropic")
@endpoint("session", documented=False)
def add_anthropic_key() -> AnyResponse:
    """Verify, and save what works; what does not is saved only when asked for."""
    form = request.form
    url, key = form.get("url", "").strip() or _DEFAULT_URL, form.get("key", "").strip()
    if not key:
        return _anthropic_page(form, {"key": "Paste a key. It begins with sk-ant-."}, None)
    try:
        connection = services().config.trial_connection(url, key, {})
    except InvalidRequest as error:
        return _anthropic_page(form, {error.param or "key": at_its_field(error)}, None)
    found = try_out(connection)
    if not found["ok"] and not form.get("anyway"):
        return _anthropic_page(form, {}, found)
    try:
        services().config.update(with_connection(current_snapshot(), url, key), **author())
    except InvalidRequest as error:
        return _anthropic_page(form, {}, refused(error))
    place = url_for("setup.welcome")
    return answer({**found, "ok": True, "next": place}) if wants_json() else see_other(place)


def _anthropic_page(typed: Any, errors: dict[str, str], found: dict[str, Any] | None) -> AnyResponse:
    if wants_json():
        message = next(iter(errors.values()), "")
        return answer(found or {"ok": False, "message": message, "field": next(iter(errors), None)})
    snapshot = current_snapshot()
    body = render_template(
        "setup/anthropic.html",
        typed=typed,
        errors=errors,
        found=found,
        default_url=(snapshot.values["ANTHROPIC_API_BASE_URLS"] or [_DEFAULT_URL])[0],
        configured=len(snapshot.connections),
    )
    return page(body, 400 if errors or found else 200)


@blueprint.get("/admin/welcome/key")
@endpoint("session", documented=False)
def client_key() -> AnyResponse:
    return _client_key_page({}, {})


@blueprint.post("/admin/welcome/key")
@endpoint("session", documented=False)
def create_client_key() -> AnyResponse:
    once = request.form.get("once", "")
    if once and session.get("key_made") == once:
        flash("This key was made already. It is shown only once; if you did not copy it, make another one.", "warning")
        return see_other(url_for("keys.keys"))
    if not request.form.get("name", "").strip():
        return _client_key_page(request.form, {"name": "Give it a name."})
    try:
        key, secret = services().keys.create(name=request.form.get("name", ""), **author())
    except InvalidRequest as error:
        return _client_key_page(request.form, {error.param or "name": at_its_field(error)})
    session["key_made"] = once
    examples = usage_examples(secret, None)
    return page(render_template("setup/done.html", key=key, **_readiness(), **examples))


def _client_key_page(typed: Any, errors: dict[str, str]) -> AnyResponse:
    body = render_template("setup/client_key.html", typed=typed, errors=errors, **_readiness())
    return page(body, 400 if errors else 200)


def _readiness() -> dict[str, bool]:
    """Whether chats will be answered, and if not, whether it is only that the integration is off."""
    snapshot = current_snapshot()
    configured = any(connection.enable for connection in snapshot.connections)
    return {"ready": snapshot.enabled and configured, "configured": configured}

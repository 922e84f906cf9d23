"""The web interface: signing in, the overview, client keys, history, audit log and account."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Blueprint, flash, g, render_template, request, session, url_for
from markupsafe import Markup, escape
from werkzeug.wrappers import Response as AnyResponse

from app import access, worker_state
from app.api import endpoint
from app.blueprints.pages import (
    answer,
    author,
    current_snapshot,
    our_command,
    page,
    password_errors,
    see_other,
    this_app,
    try_out,
    usage_examples,
    wants_json,
)
from app.errors import (
    Conflict,
    Forbidden,
    GatewayError,
    InvalidRequest,
    NotFound,
    TooManyRequests,
    Unauthenticated,
    UpstreamError,
)
from app.forms import at_its_field, changes_in_words
from app.openapi import field_rows
from app.services import services, upstream
from app.storage import accounts, audit
from app.storage.config import Connection
from app.storage.keys import Scope, StoredKey
from app.upstream.verification import in_plain_words

blueprint = Blueprint("admin", __name__)
AUDIT_PAGE = 50
LARGEST_ID = 2**31 - 1


@blueprint.app_template_filter("iso")
def iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@blueprint.app_template_filter("moment")
def moment(seconds: int, exactly: bool = False) -> str:
    """Until the page's script writes it in the reader's own time zone."""
    return datetime.fromtimestamp(seconds, UTC).strftime(f"%Y-%m-%d %H:%M{':%S' if exactly else ''} UTC")


@blueprint.app_template_global("once")
def once() -> str:
    """Names one showing of a form, so that sending it again by a reload can be told."""
    return secrets.token_urlsafe(9)


blueprint.add_app_template_global(our_command, "command")


@blueprint.app_template_global("shortest_password")
def shortest_password() -> int:
    return accounts.SHORTEST_PASSWORD


@blueprint.app_template_filter("code_spans")
def code_spans(text: str) -> Markup:
    """The little of Markdown that descriptions hold."""
    spans = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", spans))  # escaped before


@blueprint.app_template_filter("json")
def to_json(value: Any) -> str:
    """In its own order, and on one line."""
    return json.dumps(value, ensure_ascii=False)


blueprint.add_app_template_global(field_rows)


@blueprint.app_template_global("is_demo")
def is_demo() -> bool:
    return services().settings.dragoman_demo


@blueprint.get("/admin/login")
@endpoint("anyone", documented=False)
def login() -> AnyResponse:
    if access.session_caller() is not None:
        return see_other(access.safe_next(request.args.get("next")))
    if not access.admin_exists():
        return see_other(url_for("setup.account"))
    return _login_page("", "", 200)


@blueprint.post("/admin/login")
@endpoint("anyone", documented=False)
def sign_in() -> AnyResponse:
    username = request.form.get("username", "").strip()
    try:
        access.check_csrf()
        if not username or not request.form.get("password"):
            return _login_page(username, "Type your user name and your password.", 400)
        access.sign_in(username, request.form["password"])
    except Forbidden:
        if request.is_json:
            raise
        return _login_page(username, "This page had been open for too long. Please sign in once more.", 403)
    except Unauthenticated as error:
        return _login_page(username, error.message, 401)
    except TooManyRequests as error:
        response = _login_page(username, error.message, 429)
        response.headers.extend(error.headers)
        return response
    return see_other(access.safe_next(request.form.get("next")))


def _login_page(username: str, error: str, status: int) -> AnyResponse:
    target = access.safe_next(request.values.get("next"))
    return page(render_template("admin/login.html", username=username, error=error, next=target), status)


@blueprint.post("/admin/logout")
@endpoint("session", documented=False)
def sign_out() -> AnyResponse:
    access.sign_out()
    flash("You are signed out.", "success")
    return see_other(url_for("admin.login"))


@blueprint.get("/admin")
@endpoint("session", documented=False)
def overview() -> AnyResponse:
    return _overview_page({})


def _overview_page(tried: dict[str, Any]) -> AnyResponse:
    snapshot = current_snapshot()
    try:
        models = upstream().catalogue.models(snapshot)
    except GatewayError:
        models = []
    workers = worker_state.all_workers(this_app())
    body = render_template(
        "admin/overview.html",
        snapshot=snapshot,
        states={c.id: tried.get(c.id) or _state(c, workers) for c in snapshot.connections},
        models=models,
        keys=sum(_key_state(key) == "valid" for key in services().keys.list()),
        listed_keys=len(services().settings.gateway_api_keys),
        base_url=f"{request.url_root}v1",
    )
    return page(body)


def _state(connection: Connection, workers: Sequence[worker_state.State]) -> dict[str, Any]:
    """What was learned of a connection by using it."""
    if not connection.enable:
        return {"kind": "off", "message": "Not in use."}
    troubles = worker_state.connection_as_told(connection, workers)
    if troubles["out"]:
        return {
            "kind": "bad",
            "message": " ".join(f"{reason[0].upper()}{reason[1:]}." for reason in worker_state.reasons(troubles)),
        }
    learned_at, error = upstream().catalogue.status(connection)
    if error is not None:
        words = in_plain_words(error, connection) if isinstance(error, UpstreamError) else error.message
        return {"kind": "bad", "message": words}
    if learned_at:
        return {"kind": "good", "message": "Works."}
    return {"kind": "off", "message": "Not asked yet."}


@blueprint.post("/admin/connections/<id>/verify")
@endpoint("session", documented=False)
def verify_connection(id: str) -> AnyResponse:
    connection = next((c for c in current_snapshot().connections if c.id == id), None)
    if connection is None:
        raise NotFound("This connection was removed meanwhile.")
    found = try_out(connection)
    if wants_json():
        return answer(found)
    return _overview_page({id: {"kind": "good" if found["ok"] else "bad", "message": found["message"]}})


@blueprint.post("/admin/enable")
@endpoint("session", documented=False)
def enable() -> AnyResponse:
    services().config.update({"ENABLE_ANTHROPIC_API": True}, **author())
    flash("The Anthropic integration is on.", "success")
    return see_other(url_for("admin.overview"))


@blueprint.get("/admin/keys")
@endpoint("session", documented=False)
def keys() -> AnyResponse:
    return _keys_page({}, {})


@blueprint.post("/admin/keys")
@endpoint("session", documented=False)
def create_key() -> AnyResponse:
    form = request.form
    once = form.get("once", "")
    if once and session.get("key_made") == once:
        flash("This key was made already. It is shown only once; if you did not copy it, make another one.", "warning")
        return see_other(url_for("admin.keys"))
    errors: dict[str, str] = {}
    expires_at = None
    scope: Scope = "admin" if form.get("scope") == "admin" else "client"
    models = tuple(line.strip() for line in form.get("models", "").splitlines() if line.strip()) or None
    try:
        expires_at = _end_of_day(form.get("expires", ""))
    except (ValueError, OverflowError):
        errors["expires"] = "Write a date as in 2030-12-31."
    if not form.get("name", "").strip():
        errors["name"] = "Give it a name."
    if errors:
        return _keys_page(form, errors)
    try:
        key, secret = services().keys.create(
            name=form.get("name", ""),
            owner=form.get("owner", ""),
            scope=scope,
            models=models,
            expires_at=expires_at,
            **author(),
        )
    except InvalidRequest as error:
        field = {"expires_at": "expires"}.get(error.param or "name", error.param or "name")
        return _keys_page(form, {field: at_its_field(error)})
    session["key_made"] = once
    return page(render_template("admin/key_made.html", key=key, **usage_examples(secret, models)))


def _keys_page(typed: Any, errors: dict[str, str]) -> AnyResponse:
    body = render_template(
        "admin/keys.html",
        typed=typed,
        errors=errors,
        keys=[(key, _key_state(key)) for key in services().keys.list()],
        listed={
            "GATEWAY_API_KEYS": len(services().settings.gateway_api_keys),
            "ADMIN_API_KEYS": len(services().settings.admin_api_keys),
        },
        today=datetime.now(UTC).date().isoformat(),
    )
    return page(body, 400 if errors else 200)


def _end_of_day(date: str) -> int | None:
    """Unix seconds of the end of an ISO date in UTC. Raises ValueError."""
    if not date.strip():
        return None
    return int((datetime.strptime(date.strip(), "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=1)).timestamp())


def _key_state(key: StoredKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= time.time() else "valid"


@blueprint.get("/admin/keys/<id>/revoke")
@endpoint("session", documented=False)
def confirm_revoke(id: str) -> AnyResponse:
    key = next((key for key in services().keys.list() if key.id == id), None)
    if key is None:
        raise NotFound("There is no such key.")
    return page(render_template("admin/key_revoke.html", key=key))


@blueprint.post("/admin/keys/<id>/revoke")
@endpoint("session", documented=False)
def revoke_key(id: str) -> AnyResponse:
    key = services().keys.revoke(id, **author())
    flash(f"The key “{key.name}” is revoked: it stops working everywhere within a second.", "success")
    return see_other(url_for("admin.keys"))


@blueprint.get("/admin/history")
@endpoint("session", documented=False)
def history() -> AnyResponse:
    config = services().config
    entries, before = config.history(), config.before_changes()
    undone = {(e.at, e.who) for e in audit.entries(this_app(), limit=1000) if e.action == "config.restore"}
    rows = []
    after: Mapping[str, Any] | None = current_snapshot().values
    for number, entry in enumerate(entries):
        was = before.get(entry.id)
        origin = None
        if (entry.at, entry.who) in undone:
            origin = next((e for e in entries[number + 1 :] if before.get(e.id) == after), None)
        rows.append((entry, origin, changes_in_words(entry.fields, was, after)))
        after = was
    return page(render_template("admin/history.html", rows=rows))


@blueprint.get("/admin/history/<int:id>/restore")
@endpoint("session", documented=False)
def confirm_restore(id: int) -> AnyResponse:
    config = services().config
    entry = next((entry for entry in config.history() if entry.id == id), None)
    if entry is None:
        raise NotFound("There is no such change in the history.")
    was, now = config.before_changes().get(id), current_snapshot().values
    names = [name for name in now if was is not None and was[name] != now[name]]
    changes = changes_in_words(names, now, was)
    return page(render_template("admin/history_restore.html", entry=entry, readable=was is not None, changes=changes))


@blueprint.post("/admin/history/<int:id>/restore")
@endpoint("session", documented=False)
def restore(id: int) -> AnyResponse:
    if id > LARGEST_ID:
        raise NotFound("There is no such change in the history.")
    try:
        services().config.restore(id, **author())
    except (Conflict, NotFound) as error:
        flash(error.message, "error")
    else:
        flash("The earlier settings are back in force. This is a change too, so it can be taken back here.", "success")
    return see_other(url_for("admin.history"))


@blueprint.get("/admin/audit")
@endpoint("session", documented=False)
def audit_log() -> AnyResponse:
    before = request.args.get("before", type=int)
    if before is not None and not 0 <= before <= LARGEST_ID:
        raise InvalidRequest("There is no such page of the audit log.", param="before")
    entries = audit.entries(this_app(), limit=AUDIT_PAGE + 1, before_id=before)
    older = entries[AUDIT_PAGE - 1].id if len(entries) > AUDIT_PAGE else None
    return page(render_template("admin/audit.html", entries=entries[:AUDIT_PAGE], older=older, before=before))


@blueprint.get("/admin/account")
@endpoint("session", documented=False)
def account() -> AnyResponse:
    return _account_page({})


@blueprint.post("/admin/account")
@endpoint("session", documented=False)
def change_password() -> AnyResponse:
    """The current password is asked for, and throttled as signing in is: a session may have been left open."""
    form, app, username = request.form, this_app(), g.caller.username
    errors = password_errors(form.get("password", ""), form.get("again", ""))
    if not form.get("current"):
        errors["current"] = "Type your current password."
    if errors:
        return _account_page(errors)
    try:
        if access.check_password(username, form["current"]) is None:
            return _account_page({"current": "This is not your current password."})
    except TooManyRequests as error:
        return _account_page({"current": error.message})
    access.start_session(accounts.set_password(app, username, form["password"], **author()))
    flash("Your password is changed. Other sessions of yours have ended.", "success")
    return see_other(url_for("admin.account"))


def _account_page(errors: dict[str, str]) -> AnyResponse:
    return page(render_template("admin/account.html", errors=errors), 400 if errors else 200)

"""Client keys."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Blueprint, flash, render_template, request, session, url_for
from werkzeug.wrappers import Response as AnyResponse

from app.access.endpoint import endpoint
from app.errors import InvalidRequest, NotFound
from app.pages.forms import at_its_field
from app.pages.page import author, current_snapshot, page, see_other, usage_examples
from app.services import services, upstream
from app.storage.keys import Scope, StoredKey

blueprint = Blueprint("keys", __name__)
KEYS_PAGE = 100


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
        return see_other(url_for("keys.keys"))
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
    for warning in upstream().catalogue.key_warnings(models or (), current_snapshot()):
        flash(warning, "warning")
    return page(render_template("admin/key_made.html", key=key, **usage_examples(secret, models)))


def _keys_page(typed: Any, errors: dict[str, str]) -> AnyResponse:
    before = request.args.get("before")
    keys = services().keys.list(limit=KEYS_PAGE + 1, before=before)
    body = render_template(
        "admin/keys.html",
        typed=typed,
        errors=errors,
        keys=[(key, _key_state(key)) for key in keys[:KEYS_PAGE]],
        older=keys[KEYS_PAGE - 1].id if len(keys) > KEYS_PAGE else None,
        before=before,
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
    key = services().keys.find(id)
    if key is None:
        raise NotFound("There is no such key.")
    return page(render_template("admin/key_revoke.html", key=key))


@blueprint.post("/admin/keys/<id>/revoke")
@endpoint("session", documented=False)
def revoke_key(id: str) -> AnyResponse:
    key = services().keys.revoke(id, **author())
    flash(f"The key “{key.name}” is revoked: it stops working everywhere within a second.", "success")
    return see_other(url_for("keys.keys"))

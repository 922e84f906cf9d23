"""One's own account."""

from __future__ import annotations

from flask import Blueprint, flash, g, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from app.access import sessions
from app.access.endpoint import endpoint
from app.errors import TooManyRequests
from app.pages.page import author, page, password_errors, see_other
from app.services import this_app
from app.storage import accounts

blueprint = Blueprint("account", __name__)


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
        if sessions.check_password(username, form["current"]) is None:
            return _account_page({"current": "This is not your current password."})
    except TooManyRequests as error:
        return _account_page({"current": error.message})
    sessions.start_session(accounts.set_password(app, username, form["password"], **author()))
    flash("Your password is changed. Other sessions of yours have ended.", "success")
    return see_other(url_for("account.account"))


def _account_page(errors: dict[str, str]) -> AnyResponse:
    return page(render_template("admin/account.html", errors=errors), 400 if errors else 200)

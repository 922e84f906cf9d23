"""Signing in and out."""

from __future__ import annotations

from flask import Blueprint, flash, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from app.access import sessions
from app.access.callers import admin_exists, session_caller
from app.access.endpoint import endpoint
from app.errors import Forbidden, TooManyRequests, Unauthenticated
from app.pages.page import page, see_other

blueprint = Blueprint("login", __name__)


@blueprint.get("/admin/login")
@endpoint("anyone", documented=False)
def login() -> AnyResponse:
    if session_caller() is not None:
        return see_other(sessions.safe_next(request.args.get("next")))
    if not admin_exists():
        return see_other(url_for("setup.account"))
    return _login_page("", "", 200)


@blueprint.post("/admin/login")
@endpoint("anyone", documented=False)
def sign_in() -> AnyResponse:
    username = request.form.get("username", "").strip()
    try:
        sessions.check_csrf()
        if not username or not request.form.get("password"):
            return _login_page(username, "Type your user name and your password.", 400)
        sessions.sign_in(username, request.form["password"])
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
    return see_other(sessions.safe_next(request.form.get("next")))


def _login_page(username: str, error: str, status: int) -> AnyResponse:
    target = sessions.safe_next(request.values.get("next"))
    return page(render_template("admin/login.html", username=username, error=error, next=target), status)


@blueprint.post("/admin/logout")
@endpoint("session", documented=False)
def sign_out() -> AnyResponse:
    sessions.sign_out()
    flash("You are signed out.", "success")
    return see_other(url_for("login.login"))

"""The API described for people, and the way from `/` to the pages."""

from __future__ import annotations

from flask import Blueprint, current_app, redirect, render_template
from werkzeug.wrappers import Response as AnyResponse

from app.access.endpoint import endpoint
from app.blueprints.openapi import specification

blueprint = Blueprint("docs", __name__)


@blueprint.get("/docs")
@endpoint("anyone", documented=False)
def docs() -> str:
    return render_template("docs.html", spec=specification(current_app))


@blueprint.get("/")
@endpoint("anyone", documented=False)
def front_page() -> AnyResponse:
    return redirect("/admin")

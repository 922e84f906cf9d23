"""How templates write moments, settings and the little of Markdown that descriptions hold."""

from __future__ import annotations

import json
import re
import secrets
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint
from markupsafe import Markup, escape

from app.blueprints.openapi import field_rows
from app.pages.page import our_command
from app.services import services
from app.storage import accounts

blueprint = Blueprint("words", __name__)


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

"""Earlier changes of the settings, and the way back to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, flash, render_template, url_for
from werkzeug.wrappers import Response as AnyResponse

from app.access.endpoint import endpoint
from app.errors import Conflict, NotFound
from app.pages.forms import changes_in_words
from app.pages.page import LARGEST_ID, author, current_snapshot, page, see_other
from app.pages.trying import doubts
from app.services import services, this_app
from app.storage import audit

blueprint = Blueprint("history", __name__)


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
    before = current_snapshot()
    try:
        after = services().config.restore(id, **author())
    except (Conflict, NotFound) as error:
        flash(error.message, "error")
    else:
        flash("The earlier settings are back in force. This is a change too, so it can be taken back here.", "success")
        for doubt in doubts(before, after):
            flash(f"They are back, but {doubt}", "warning")
    return see_other(url_for("history.history"))

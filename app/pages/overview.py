"""What works and what does not, at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import Blueprint, flash, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from app.access.endpoint import endpoint
from app.errors import GatewayError, NotFound, UpstreamError
from app.pages.page import answer, author, current_snapshot, page, see_other, wants_json
from app.pages.trying import try_out
from app.serve import worker_state
from app.services import services, this_app, upstream
from app.storage.config import Connection
from app.upstream.verification import in_plain_words

blueprint = Blueprint("overview", __name__)


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
        keys=services().keys.count_valid(),
        unlisted=upstream().catalogue.unlisted_aliases(snapshot) if models else (),
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
    return see_other(url_for("overview.overview"))

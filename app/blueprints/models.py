"""The models that clients may use."""

from __future__ import annotations

from typing import Any

import orjson
from flask import Blueprint, Response, g, request

from app.access.endpoint import endpoint
from app.blueprints.dialect import asks_for_models_of_anthropic
from app.errors import ModelNotFound
from app.schemas.models import ModelListSchema, ModelSchema
from app.services import services, upstream
from app.translate.models import to_anthropic_model, to_anthropic_page, to_model_object
from app.upstream.names import snapshot_of

blueprint = Blueprint("models", __name__)


@blueprint.get("/v1/models")
@endpoint(
    "client",
    "List the models",
    description="In Anthropic's form, page by page, for clients that send `anthropic-version` or ask for pages.",
    answers={200: ModelListSchema},
    query={
        "limit": "1 to 1000, of Anthropic's form; 20 without it.",
        "after_id": "The id behind which a page begins.",
        "before_id": "The id before which a page ends.",
    },
)
def list_models() -> Response:
    if asks_for_models_of_anthropic():
        return _json(to_anthropic_page(_entries(waits=False), request.args))
    return _list()


@blueprint.get("/models")
@endpoint("client_or_admin", "List the configured models with capabilities and limits", answers={200: ModelListSchema})
def list_configured_models() -> Response:
    return _list()


@blueprint.get("/v1/models/<path:model>")
@endpoint("client", "Look one model up", answers={200: ModelSchema})
def get_model(model: str) -> Response:
    snapshot = services().config.snapshot
    wanted = upstream().catalogue.route(model, snapshot, _allowed()).model
    entries = _entries()
    by_id = {entry["id"].lower(): entry for entry in entries} | {entry["id"]: entry for entry in entries}
    names = (model, model.lower(), wanted, snapshot_of(wanted))
    found = next((by_id[name] for name in names if name in by_id), None)
    if found is None:
        raise ModelNotFound(model, wanted)
    return _json(to_anthropic_model(found) if asks_for_models_of_anthropic() else to_model_object(found))


def _list() -> Response:
    return _json({"object": "list", "data": [to_model_object(entry) for entry in _entries()]})


def _entries(*, waits: bool = True) -> list[dict[str, Any]]:
    return upstream().catalogue.models(services().config.snapshot, _allowed(), waits=waits)


def _allowed() -> tuple[str, ...] | None:
    """The models of the caller's key; None for all."""
    key = g.caller.key
    return key.models if key else None


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), mimetype="application/json")

"""The models that clients may use."""

from __future__ import annotations

from typing import Any

import orjson
from flask import Blueprint, Response, g, request

from app.access.endpoint import endpoint
from app.errors import ModelNotFound
from app.schemas.models import ModelListSchema, ModelSchema
from app.services import services, upstream
from app.translate.models import to_anthropic_list, to_anthropic_model, to_model_object
from app.upstream.names import snapshot_of

blueprint = Blueprint("models", __name__)


@blueprint.get("/v1/models")
@endpoint("client", "List the models", answers={200: ModelListSchema})
def list_models() -> Response:
    if _is_anthropics_client():
        return _json(to_anthropic_list(_entries()))
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
    return _json(to_anthropic_model(found) if _is_anthropics_client() else to_model_object(found))


def _is_anthropics_client() -> bool:
    """Both APIs have this path; only Anthropic's asks for a version."""
    return "anthropic-version" in request.headers


def _list() -> Response:
    return _json({"object": "list", "data": [to_model_object(entry) for entry in _entries()]})


def _entries() -> list[dict[str, Any]]:
    return upstream().catalogue.models(services().config.snapshot, _allowed())


def _allowed() -> tuple[str, ...] | None:
    """The models of the caller's key; None for all."""
    key = g.caller.key
    return key.models if key else None


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), mimetype="application/json")

"""The models that clients may use."""

from __future__ import annotations

from typing import Any

import orjson
from flask import Blueprint, Response, g

from app.api import endpoint
from app.errors import ModelNotFound
from app.schemas.models import ModelListSchema, ModelSchema
from app.services import services, upstream
from app.translate.models import to_model_object

blueprint = Blueprint("models", __name__)


@blueprint.get("/v1/models")
@endpoint("client", "List the models", answers={200: ModelListSchema})
def list_models() -> Response:
    return _json({"object": "list", "data": _models()})


@blueprint.get("/models")
@endpoint("client_or_admin", "List the configured models with capabilities and limits", answers={200: ModelListSchema})
def list_configured_models() -> Response:
    return _json({"object": "list", "data": _models()})


@blueprint.get("/v1/models/<path:model>")
@endpoint("client", "Look one model up", answers={200: ModelSchema})
def get_model(model: str) -> Response:
    gateway = services()
    snapshot = gateway.config.snapshot
    wanted = upstream().catalogue.route(model, snapshot, _allowed()).model
    found = next((m for m in _models() if m["id"] in (model, wanted)), None)
    if found is None:
        raise ModelNotFound(model)
    return _json(found)


def _models() -> list[dict[str, Any]]:
    gateway = services()
    return [to_model_object(entry) for entry in upstream().catalogue.models(gateway.config.snapshot, _allowed())]


def _allowed() -> tuple[str, ...] | None:
    """The models of the caller's key; None for all."""
    key = g.caller.key
    return key.models if key else None


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), mimetype="application/json")

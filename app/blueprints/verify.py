"""Trying a connection out before or after it is saved."""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from app.access.endpoint import endpoint
from app.blueprints.json_body import json_body
from app.errors import InvalidRequest, NotFound
from app.schemas.verify import VerifyAnswerSchema, VerifyRequestSchema
from app.services import services, upstream
from app.storage.config import Connection
from app.upstream.verification import verify

blueprint = Blueprint("verify", __name__)
_REQUEST = VerifyRequestSchema()
_ANSWER = VerifyAnswerSchema()


@blueprint.post("/verify")
@endpoint(
    "admin",
    "Test one connection for real",
    description="Always 200; `ok` says whether it works, and `error` what is wrong in plain words.",
    body=VerifyRequestSchema,
    answers={200: VerifyAnswerSchema},
)
def verify_connection() -> dict[str, Any]:
    asked = _REQUEST.load(json_body())
    found = verify(upstream().pool, _connection(asked), asked.get("model"))
    dumped: dict[str, Any] = _ANSWER.dump(found)
    return dumped


def _connection(asked: dict[str, Any]) -> Connection:
    config = services().config
    if "connection" in asked:
        if "url" in asked or "key" in asked:
            raise InvalidRequest("Give either connection, or url and key.", param="connection")
        known = next((c for c in config.snapshot.connections if c.id == asked["connection"]), None)
        if known is None:
            raise NotFound("There is no connection with this id.", param="connection")
        return known
    for name in ("url", "key"):
        if name not in asked:
            raise InvalidRequest(f"{name} is missing.", param=name, code="missing_required_parameter")
    return config.trial_connection(asked["url"], asked["key"], asked.get("config", {}))

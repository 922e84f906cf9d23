"""GET /config and POST /config/update: the configuration that persists."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import orjson
from flask import Blueprint, Response, current_app, g, request

from app.access.endpoint import endpoint
from app.blueprints.json_body import is_switched_on, json_body
from app.errors import InvalidRequest, PreconditionFailed, shown
from app.schemas.config import ConfigSchema, ConfigUpdateSchema
from app.services import services, upstream
from app.storage import audit
from app.storage.config import ConfigSnapshot

blueprint = Blueprint("config", __name__)
_ETAG = re.compile(r'(?:W/)?"(\d{1,18})"')


@blueprint.get("/config")
@endpoint(
    "admin",
    "The persisted configuration",
    description="Keys and the values of headers are masked; a mask posted back means unchanged.",
    answers={200: ConfigSchema},
    query={
        "all": "true adds the other settings, and where each value comes from",
        "reveal": "true shows secrets and is written to the audit log",
    },
)
def get_config() -> Response:
    reveal = _flag("reveal")
    snapshot = services().config.load()
    if reveal:
        app = current_app._get_current_object()  # type: ignore[attr-defined]  # a LocalProxy
        audit.record(app, who=g.caller.who, action="config.reveal", ip=request.remote_addr or "")
    return _answer(snapshot, reveal=reveal)


@blueprint.post("/config/update")
@endpoint(
    "admin",
    "Change the configuration",
    description="Takes the whole document or some of its fields; all change, or none. Live everywhere within a second. "
    "The answer is the five names of GET /config and what else the body names, and `warnings` of models in it that no "
    "connection lists. A stored key is sent to no other host: "
    "where a base URL's host changes, its key must come along.",
    body=ConfigUpdateSchema,
    answers={200: ConfigSchema},
    query={"all": "true adds the other settings to the answer"},
)
def update_config() -> Response:
    changes = ConfigUpdateSchema().load(json_body())
    in_body = changes.pop("generation", None)
    for ours in ("sources", "warnings"):
        changes.pop(ours, None)
    in_header = _if_match()
    if None not in (in_body, in_header) and in_body != in_header:
        raise InvalidRequest("generation and If-Match name different generations.", param="generation")
    snapshot = services().config.update(
        changes,
        who=g.caller.who,
        expected_generation=in_body if in_header is None else in_header,
        ip=request.remote_addr or "",
    )
    warnings = upstream().catalogue.warnings(changes.keys(), snapshot)
    return _answer(snapshot, reveal=False, also=changes, warnings=warnings)


def _answer(snapshot: ConfigSnapshot, *, reveal: bool, also: Iterable[str] = (), **more: Any) -> Response:
    all = _flag("all")
    told = {**services().config.public(reveal=reveal, all=all, also=also, snapshot=snapshot), **more}
    if all:
        told["sources"] = dict(snapshot.sources)
    return Response(orjson.dumps(told), mimetype="application/json", headers={"etag": f'"{snapshot.generation}"'})


def _flag(name: str) -> bool:
    return is_switched_on(name, request.args.get(name, "false"))


def _if_match() -> int | None:
    header = request.headers.get("if-match", "").strip()
    if header in ("", "*"):
        return None
    match = _ETAG.fullmatch(header)
    if match is None:
        raise PreconditionFailed(f"If-Match {shown(header)} is not an ETag of /config.", param="If-Match")
    return int(match[1])

"""What a request brings: the JSON object in its body, and switches beside it."""

from __future__ import annotations

from typing import Any

import orjson
from flask import current_app, request

from app.blueprints.errors import body_too_large
from app.errors import InvalidRequest, shown
from app.translate.tools import is_deeper_than

MAX_DEPTH = 200


def json_body(max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """Raises InvalidRequest or RequestTooLarge. The declared content type does not matter: clients forget it."""
    limit = current_app.config["MAX_CONTENT_LENGTH"]
    length = request.content_length
    if length is not None and length > limit:
        raise body_too_large()
    raw = request.get_data(cache=False)
    if length is None and len(raw) >= limit:  # of a chunked body Werkzeug reads that much and is silent on the rest
        raise body_too_large()
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(
            f"We could not parse the JSON body of your request. {error.msg} (line {error.lineno} column {error.colno})."
        ) from error
    if not isinstance(body, dict):
        raise InvalidRequest("We could not parse the JSON body of your request. It must be a JSON object.")
    if raw.count(b"{") + raw.count(b"[") > max_depth and is_deeper_than(body, max_depth):
        raise InvalidRequest(f"The JSON body of your request is nested more than {max_depth} levels deep.")
    return body


def is_switched_on(name: str, value: str) -> bool:
    """Whether a query parameter or header says yes. Raises InvalidRequest for what is neither yes nor no: a dry run
    that was misspelt must not become a real one."""
    said = value.strip().lower()
    if said not in _SWITCH:
        raise InvalidRequest(f"{name} must be true or false, not {shown(value)}.", param=name, code="invalid_value")
    return _SWITCH[said]


_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}

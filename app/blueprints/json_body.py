"""What a request brings: the JSON object in its body, and switches beside it."""

from __future__ import annotations

from functools import partial
from typing import Any

import orjson
from flask import current_app, g, request

from app.blueprints import large_json
from app.blueprints.content_encoding import decoded
from app.blueprints.errors import body_too_large
from app.errors import InvalidRequest, shown
from app.serve.bodies import BodiesUnderWay
from app.translate import exact_json, json_pieces
from app.translate.json_depth import is_deeper_than
from app.translate.pause import Pause
from app.turns import give_turn

_READ_AT_ONCE = 64 * 1024
_LARGE = 64 * 1024
"""Bytes; what is smaller is done within some milliseconds."""
_GIVE_TURN_TO_SMALLER = partial(give_turn, is_large=True)
MAX_DEPTH = 200
MOST_PIECES = 500_000
"""Parsing so many takes up to 60 ms, in which nobody else has a turn; a conversation of 2,000 messages has 30,000."""
MOST_ESCAPES = 8_000_000
"""To write so many for Anthropic takes 80 ms, in one go. They are more tokens than any model reads."""


def json_body(max_depth: int = MAX_DEPTH, *, mends_text: bool = False) -> dict[str, Any]:
    """The declared content type does not matter: clients forget it. With `mends_text` halves of characters are replaced
    instead of refused, and `g.has_mended_text` says so.

    Raises InvalidRequest, RequestTooLarge, RequestTimeout, TooManyRequests or UnsupportedMediaType.
    """
    raw = received_body()
    return _checked(_parsed(raw, mends_text), raw, max_depth)


def json_body_as_sent() -> tuple[dict[str, Any], bytes | bytearray]:
    """The same, and the bytes that it was read from. Nothing is mended. Raises as json_body()."""
    raw = received_body()
    try:
        body = _first_reading(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(
            f"The request body is not valid JSON: {error.msg}: line {error.lineno} column {error.colno}"
        ) from error
    return _checked(body, raw, MAX_DEPTH), raw


def received_body() -> bytes | bytearray:
    """What was sent, without the codings that it came in. Raises RequestTooLarge, RequestTimeout, TooManyRequests or
    UnsupportedMediaType, and InvalidRequest for what is not coded as it says."""
    limit = request.max_content_length or 0
    length = request.content_length
    if length is not None and length > limit:
        raise body_too_large()
    bodies: BodiesUnderWay = current_app.extensions["dragoman.bodies"]
    with bodies.one(g.caller.who, limit if length is None else length):
        raw = _received(limit)
    if length is None and len(raw) >= limit:  # of a chunked body Werkzeug reads that much and is silent on the rest
        raise body_too_large()
    encodings = request.environ.get("HTTP_CONTENT_ENCODING")
    if encodings:
        with bodies.one(g.caller.who, limit):
            raw = decoded(raw, encodings, limit, _pause_for(raw))
        if len(raw) > limit:
            raise body_too_large()
    return raw


def _checked(body: Any, raw: bytes | bytearray, max_depth: int) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise InvalidRequest("We could not parse the JSON body of your request. It must be a JSON object.")
    if raw.count(b"{") + raw.count(b"[") > max_depth and is_deeper_than(body, max_depth, _pause_for(raw)):
        raise InvalidRequest(f"The JSON body of your request is nested more than {max_depth} levels deep.")
    return body


def _received(most: int) -> bytes | bytearray:
    """Not by get_data(), which copies it all at the end: with 32 MB, up to 0.1 s in which nobody else had a turn."""
    if "body" in g:  # of an admin's session: see access/hook.py
        return bytes(g.body)
    raw = bytearray()
    while len(raw) < most and (piece := request.stream.read(_READ_AT_ONCE)):
        raw += piece
    return raw


def _pause_for(raw: bytes | bytearray) -> Pause:
    return _GIVE_TURN_TO_SMALLER if len(raw) >= _LARGE else give_turn


def _parsed(raw: bytes | bytearray, mends_text: bool) -> Any:
    try:
        return _first_reading(raw)
    except orjson.JSONDecodeError as error:
        return _second_reading(raw, error, mends_text, _pause_for(raw))


def loads(raw: bytes | bytearray) -> Any:
    """Of what was sent. Others have their turns meanwhile. Raises orjson.JSONDecodeError."""
    return large_json.loads(raw, _pause_for(raw))


def _first_reading(raw: bytes | bytearray) -> Any:
    pause = _pause_for(raw)
    pause()
    if json_pieces.are_more_than(MOST_PIECES, raw, pause):
        raise InvalidRequest(
            f"The body of your request holds more than {MOST_PIECES:,} JSON values.", code="too_many_values"
        )
    if json_pieces.has_more_escapes_than(MOST_ESCAPES, raw, pause):
        raise InvalidRequest(
            f"The strings in the body of your request hold more than {MOST_ESCAPES:,} backslashes.",
            code="too_many_values",
        )
    pause()
    body = large_json.loads(raw, pause)
    pause()
    return body


def _second_reading(raw: bytes | bytearray, error: orjson.JSONDecodeError, mends_text: bool, pause: Pause) -> Any:
    """Of what orjson refused: behind a byte order mark, or with halves of characters, which JavaScript's strings may
    hold when they are cut. Raises InvalidRequest in words that say what is wrong."""
    pause()
    raw = raw.removeprefix(_BYTE_ORDER_MARK)
    try:
        raw.decode()
    except UnicodeDecodeError as wrong:
        raise InvalidRequest(
            f"The body of your request is not UTF-8, as JSON has to be: byte {wrong.start} is 0x{raw[wrong.start]:02x}."
        ) from error
    pause()
    mended = exact_json.with_whole_characters(raw, pause)
    g.has_mended_text = mends_text and mended != raw
    pause()
    try:
        return large_json.loads(mended if mends_text else raw, pause)
    except orjson.JSONDecodeError as still:
        raise InvalidRequest(
            f"We could not parse the JSON body of your request. {still.msg} (line {still.lineno} column {still.colno})."
        ) from still


_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def is_switched_on(name: str, value: str) -> bool:
    """Whether a query parameter or header says yes. Raises InvalidRequest for what is neither yes nor no: a dry run
    that was misspelt must not become a real one."""
    said = value.strip().lower()
    if said not in _SWITCH:
        raise InvalidRequest(f"{name} must be true or false, not {shown(value)}.", param=name, code="invalid_value")
    return _SWITCH[said]


_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}

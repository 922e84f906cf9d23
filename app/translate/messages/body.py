"""A request for the Messages API: what the gateway has to know of it, and the bytes that go on with another model.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import jiter
import orjson

from app.errors import InvalidRequest, shown
from app.translate.hosted import hosted_fields

_MODEL_KEY = re.compile(rb'"model"(?=[ \t\r\n]*:)')
_MODEL_FIRST = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"model"[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\]|\\.)*")')
_VALUE = re.compile(rb'[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\]|\\.)*")')
_MOST_KEYS = 10_000
"""Of that name: each is a piece to be put together. Tools whose parameters are called so have one each."""
_LARGER_WINDOW = re.compile(r"(?:\[1m\])+$", re.IGNORECASE)
_LONGEST_START, _FIRST_PARTS = 2000, 10
_BOUND = ("container", "fallback_credit_token")
_USERS = ("account_uuid", "device_id")

Loads = Callable[[bytes], Any]


@dataclass(frozen=True)
class Asked:
    """Of a request. `model` is its name without what marks a larger context window, which is for clients alone;
    `others` are the models that it names besides, each with its field. `hosted` is the first field that asks for
    what Anthropic runs, or for what lies in the account; `is_bound` says that it names what only the account knows
    that made it. `session` is the same for all requests of a conversation."""

    model: str
    sent: str
    """`model` as it stands in the body."""
    stream: bool
    others: tuple[tuple[str, str], ...]
    hosted: str | None
    is_bound: bool
    session: str
    user: str
    tag: str | None


def asked_of(body: Mapping[str, Any], raw: bytes | bytearray) -> Asked:
    """Of `body`, parsed from `raw`. All but the model is Anthropic's to judge, and may be of any type.

    Raises InvalidRequest where there is no model, and for a message thread.
    """
    sent = body.get("model")
    if not isinstance(sent, str) or not sent:
        raise InvalidRequest(
            "model: Field required" if sent is None else f"model: a model's name is expected, not {shown(sent)}",
            param="model",
        )
    if body.get("thread") is not None:
        raise InvalidRequest(
            "thread: this gateway has several accounts, and keeps no message threads. Send the whole conversation.",
            param="thread",
            code="thread_unsupported_request",
        )
    metadata = body.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    user_id, tag = metadata.get("user_id"), metadata.get("tag")
    names_file = b'"file_id"' in raw
    return Asked(
        model=bare_model(sent),
        sent=sent,
        stream=body.get("stream") is True,
        others=tuple(_other_models(body)),
        hosted=next(hosted_fields(body), "file_id" if names_file else None),
        is_bound=names_file or any(body.get(name) is not None for name in _BOUND),
        session=user_id if isinstance(user_id, str) else _first_text(body),
        user=_user(user_id) if isinstance(user_id, str) else "",
        tag=tag if isinstance(tag, str) else None,
    )


def bare_model(name: str) -> str:
    """Without what marks a larger context window: clients choose by it, and some let it through."""
    return _LARGER_WINDOW.sub("", name) or name


def _objects(value: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for index, each in enumerate(value if isinstance(value, list) else ()):
        if isinstance(each, dict):
            yield index, each


def _other_models(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for field in ("fallbacks", "tools"):
        for index, each in _objects(body.get(field)):
            if isinstance(each.get("model"), str):
                yield f"{field}.{index}.model", each["model"]


def _user(user_id: str) -> str:
    """Agents write several ids as JSON, that of the session among them."""
    if user_id[:1] == "{":
        try:
            told = orjson.loads(user_id)
        except orjson.JSONDecodeError:
            return user_id
        return next((told[name] for name in _USERS if isinstance(told.get(name), str) and told[name]), user_id)
    return user_id


def _first_text(body: Mapping[str, Any]) -> str:
    for _, message in _objects(body.get("messages")):
        if message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, str):
                return content[:_LONGEST_START]
            parts = [part.get("text") for _, part in _objects(content)][:_FIRST_PARTS]
            return "\0".join(text[:_LONGEST_START] for text in parts if isinstance(text, str))
    return ""


def check_names(raw: bytes | bytearray, loads: Loads, *, all_of_them: bool) -> None:
    """Nothing in it stands twice: of two names Anthropic may take the other one than the gateway. With `all_of_them`
    at any depth, else the model alone. Raises InvalidRequest."""
    if all_of_them:
        try:
            jiter.from_json(bytes(raw), catch_duplicate_keys=True, cache_mode="none", partial_mode=False)
        except ValueError as error:
            if "uplicate" in str(error):
                raise InvalidRequest(f"The request body names a field twice: {error}") from None
    elif len(_MODEL_KEY.findall(raw)) > 1:
        _place_of_model(raw, loads)


def with_model(raw: bytes | bytearray, sent: str, model: str, loads: Loads) -> bytes:
    """`raw` with `model` for the name that was `sent`, and not one byte else changed. Raises InvalidRequest where it
    cannot be told which bytes are the name."""
    start, end = _place_of_model(raw, loads)
    if orjson.loads(raw[start:end]) != sent:
        raise _twice()
    view = memoryview(raw)
    return b"".join((view[:start], orjson.dumps(model), view[end:]))


def _place_of_model(raw: bytes | bytearray, loads: Loads) -> tuple[int, int]:
    """Where the value of the top level's `model` stands.

    In JSON a quote inside a string is escaped: `"model"` is a whole string, or the end of one that goes on before it.
    So that parsing tells which of them is which, each gets a name of its own.
    """
    first = _MODEL_FIRST.match(raw)
    keys = [match.span() for match in islice(_MODEL_KEY.finditer(raw), _MOST_KEYS + 1)]
    if first is not None and len(keys) == 1 and b"\\u00" not in raw:
        return first.span(1)
    if len(keys) > _MOST_KEYS:
        raise InvalidRequest(f"The request body has more than {_MOST_KEYS:,} fields called model.", param="model")
    mark = os.urandom(12).hex()
    view = memoryview(raw)
    pieces: list[bytes | memoryview] = []
    at = 0
    for number, (start, end) in enumerate(keys):
        pieces += [view[at:start], b'"%s %d"' % (mark.encode(), number)]
        at = end
    marked = loads(b"".join((*pieces, view[at:])))
    found = [int(name.rpartition(" ")[2]) for name in marked if name.startswith(mark)]
    if len(found) != 1 or "model" in marked:
        raise _twice()
    value = _VALUE.match(raw, keys[found[0]][1])
    if value is None:
        raise _twice()
    return value.span(1)


def _twice() -> InvalidRequest:
    return InvalidRequest("model: the name stands there twice, or its letters are escaped", param="model")

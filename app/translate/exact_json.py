"""JSON that keeps whole numbers of any size; orjson, many times faster, makes floats of those above 64 bits."""

from __future__ import annotations

import contextlib
import json
import math
import re
from typing import Any

import orjson

_LONG_NUMBER = re.compile(r"\d{19}")
_ESCAPES = re.compile(
    rb"(?:\\\\)+"  # backslashes: what follows a pair of them is no escape
    rb"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
_LARGEST_EXACT = 2**53


def loads(text: str) -> Any:
    """Raises ValueError; as strict as orjson."""
    value = orjson.loads(text)
    if _LONG_NUMBER.search(text):
        with contextlib.suppress(RecursionError):
            return json.loads(text)
    return value


def loads_as_meant(text: str) -> Any:
    """JSON that others wrote by hand, say: line breaks and the like may stand in strings as they are.

    Raises ValueError.
    """
    try:
        return json.loads(text, strict=False, parse_constant=_refused, parse_float=_finite)
    except RecursionError:
        raise ValueError("too deep") from None


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:20]} is too large a number")
    return number


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def with_whole_characters(raw: bytes) -> bytes:
    """JSON without halves of a character (`\\ud83d` alone, where a text was cut within an emoji), which orjson refuses:
    each is U+FFFD instead. The very same bytes where there is none."""
    return _ESCAPES.sub(lambda found: rb"\ufffd" if found["half"] else found[0], raw)


def dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def whole_number(value: Any) -> int | None:
    """The whole number that a JSON number is, None for what is none: some languages write 1024 as 1024.0."""
    if type(value) is float and value.is_integer() and abs(value) <= _LARGEST_EXACT:
        return int(value)
    return value if type(value) is int else None

"""JSON that keeps whole numbers of any size; orjson, many times faster, makes floats of those above 64 bits."""

from __future__ import annotations

import contextlib
import json
import math
import re
from typing import Any

import orjson

from app.translate.pause import Pause, no_pause, paced

_LONG = 19
_ANY_DIGIT = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * _LONG
_LOOKED_AT_ONCE = 1024 * 1024
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})"
    rb"|.(?:\\[^u]){0,1000})",
    re.DOTALL,
)
"""Or some that stand together and are no characters by number: what follows a pair of backslashes is no escape."""
_REPLACEMENT = rb"\ufffd"
_LARGEST_EXACT = 2**53


def loads(text: str, pause: Pause = no_pause) -> Any:
    """Raises ValueError; as strict as orjson."""
    raw = text.encode()
    pause()
    value = orjson.loads(raw)
    for start in paced(range(0, len(raw), _LOOKED_AT_ONCE), pause):
        if _LONG_NUMBER in raw[start : start + _LOOKED_AT_ONCE + _LONG].translate(_ANY_DIGIT):
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


def with_whole_characters(raw: bytes | bytearray, pause: Pause = no_pause) -> bytes | bytearray:
    """JSON without halves of a character (`\\ud83d` alone, where a text was cut within an emoji), which orjson refuses:
    each is U+FFFD instead. The very same bytes where there is none."""
    if all(beginning not in raw for beginning in paced((rb"\ud", rb"\uD"), pause)):
        return raw
    pause()
    whole = bytearray(raw)
    for found in paced(_ESCAPE.finditer(raw), pause):
        if found["half"]:
            whole[found.start() : found.end()] = _REPLACEMENT  # which is as long
    return whole


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

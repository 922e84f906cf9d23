"""JSON that keeps whole numbers of any size; orjson, many times faster, makes floats of those above 64 bits."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

import orjson

_LONG_NUMBER = re.compile(r"\d{19}")


def loads(text: str) -> Any:
    """Raises ValueError; as strict as orjson."""
    value = orjson.loads(text)
    if _LONG_NUMBER.search(text):
        with contextlib.suppress(RecursionError):
            return json.loads(text)
    return value


def dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

"""What happens to an answer's text on its way out: it is cut at stop strings, freed of what stands around JSON.

Each filter takes text in any pieces, holds back what it cannot decide on yet, and gives the same whatever the pieces.
"""

from __future__ import annotations

import re

from app.translate.schema import WRAPPER
from app.translate.stops import StopFilter

_STRUCTURE = re.compile(r'["{}\[\]]')
_OBJECT = re.compile(r'\{\s*["}]')
"""How a JSON object begins, unlike the braces of prose."""
_WRAPPED = re.compile(rf'\{{\s*"{WRAPPER}"\s*:\s*(?=\S)')
_LONGEST_BEGINNING = 100
_IN_STRING = re.compile(r'["\\]')


class JsonFilter:
    """Passes the first JSON object and nothing around it; text without any is passed when it ends. With `unwrap` it
    passes the value of that object's only property."""

    def __init__(self, *, unwrap: bool = False) -> None:
        self._unwrap = unwrap
        self._start = _WRAPPED if unwrap else _OBJECT
        self._held: list[str] = []
        self._beginning = ""
        """What may be the beginning of an object, with what follows."""
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._has_ended = False

    def feed(self, text: str) -> str:
        if self._has_ended:
            return ""
        if self._depth:
            return self._pass(text)
        text = self._beginning + text
        start = self._start.search(text)
        if start is None:
            brace = text.rfind("{")
            kept = brace if 0 <= brace >= len(text) - _LONGEST_BEGINNING else len(text)
            self._held.append(text[:kept])
            self._beginning = text[kept:]
            return ""
        self.release()
        self._depth = 1
        return ("" if self._unwrap else "{") + self._pass(text[start.end() if self._unwrap else start.start() + 1 :])

    def _pass(self, text: str) -> str:
        at = 0
        if self._escaped and text:
            at, self._escaped = 1, False
        while (found := (_IN_STRING if self._in_string else _STRUCTURE).search(text, at)) is not None:
            at = found.end()
            match found[0]:
                case '"':
                    self._in_string = not self._in_string
                case "\\":
                    if at == len(text):
                        self._escaped = True
                    at += 1
                case "{" | "[":
                    self._depth += 1
                case _:
                    self._depth -= 1
                    if not self._depth:
                        self._has_ended = True
                        return text[: at - 1] if self._unwrap else text[:at]
        return text

    def release(self) -> str:
        held = "".join([*self._held, self._beginning])
        self._held, self._beginning = [], ""
        return held


class TextFilters:
    """All that an answer's text goes through; `met` is the stop string at which it ended."""

    def __init__(self, *, stops: tuple[str, ...], strip_json: bool, unwrap_json: bool) -> None:
        self._stop = StopFilter(stops) if stops else None
        self._json = JsonFilter(unwrap=unwrap_json) if strip_json or unwrap_json else None
        self.are_used = self._stop is not None or self._json is not None

    @property
    def met(self) -> str | None:
        return self._stop.met if self._stop else None

    def feed(self, text: str) -> str:
        if self._stop:
            text = self._stop.feed(text)
        return self._json.feed(text) if self._json else text

    def release(self, *, at_end: bool = False) -> str:
        """What was held back, when a tool call or the end follows. Text around JSON waits for the very end."""
        text = self._stop.release() if self._stop else ""
        if self._json:
            text = self._json.feed(text) + (self._json.release() if at_end else "")
        return text

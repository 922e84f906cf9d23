"""The arguments of a call as Claude writes them, with the client's names for what Claude knows by others."""

from __future__ import annotations

import re
from collections.abc import Mapping

import orjson

_STRUCTURE = re.compile(r'["{}\[\],:]')
_LONGEST = 64
"""Of the names that Claude takes, in characters."""
_IN_STRING = re.compile(r'["\\]')


class ArgumentNames:
    """Feed it the JSON of a call's arguments in any pieces; it gives the same JSON, letter for letter but for the keys
    that `names` has. A key is held back until it is whole; `release()` gives what is left of one that was cut."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self._is_object: list[bool] = []
        """Of what is open, the outermost first."""
        self._expects_key = False
        self._key: str | None = None
        """What has come of the key that is being read, without its opening quote."""
        self._in_string = False
        self._escaped = False

    def feed(self, text: str) -> str:
        given: list[str] = []
        at = 0
        while at < len(text):
            at = self._string(text, at, given) if self._in_string else self._structure(text, at, given)
        return "".join(given)

    def _structure(self, text: str, at: int, given: list[str]) -> int:
        found = _STRUCTURE.search(text, at)
        if found is None:
            given.append(text[at:])
            return len(text)
        match found[0]:
            case '"':
                self._in_string = True
                if self._expects_key:
                    self._key = ""
                    given.append(text[at : found.start()])
                    return found.end()
            case "{" | "[":
                self._is_object.append(found[0] == "{")
                self._expects_key = found[0] == "{"
            case "}" | "]":
                if self._is_object:
                    self._is_object.pop()
                self._expects_key = False
            case ",":
                self._expects_key = bool(self._is_object) and self._is_object[-1]
            case _:
                self._expects_key = False
        given.append(text[at : found.end()])
        return found.end()

    def _string(self, text: str, at: int, given: list[str]) -> int:
        end = at
        if self._escaped:
            end, self._escaped = at + 1, False
        while self._in_string and (found := _IN_STRING.search(text, end)) is not None:
            end = found.end()
            if found[0] == '"':
                self._in_string = False
            elif end == len(text):
                self._escaped = True
            else:
                end += 1
        end = len(text) if self._in_string else end
        if self._key is None:
            given.append(text[at:end])
            return end
        self._key += text[at:end]
        if not self._in_string:
            given.append(self._renamed(self._key[:-1]))
            self._key = None
        elif len(self._key) > _LONGEST:
            given.append(self.release())  # it is none of ours
        return end

    def _renamed(self, key: str) -> str:
        own = self._names.get(key)  # what Claude knows it by is written without escapes
        return f'"{key}"' if own is None else orjson.dumps(own).decode()

    def release(self) -> str:
        held = "" if self._key is None else f'"{self._key}'
        self._key = None
        return held


def with_argument_names(text: str, names: Mapping[str, str] | None) -> str:
    """Of arguments that are whole, or cut short."""
    if not names:
        return text
    filter = ArgumentNames(names)
    return filter.feed(text) + filter.release()

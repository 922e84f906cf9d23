"""Which view a request goes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, Request
from werkzeug.routing import MapAdapter, Rule


class RememberingFlask(Flask):
    """Werkzeug looks for the route of each request anew, and leaves a circle of eight objects behind, each time. What a
    path without variables leads to is found once."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._found: dict[tuple[str, str], Rule] = {}
        """By method and path. There are no more than routes have: a rule without variables has one path."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """No view or hook is a coroutine; Flask looks at each of them again for each request."""
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        bound = super().create_url_adapter(request)
        return bound if bound is None or bound.websocket else _Remembering(bound, self._found)


class _Remembering(MapAdapter):
    def __init__(self, bound: MapAdapter, found: dict[tuple[str, str], Rule]) -> None:
        vars(self).update(vars(bound))
        self._found = found

    def match(self, *args: Any, **kwargs: Any) -> tuple[Any, Mapping[str, Any]]:
        """As Flask asks for it; whoever asks for something else is answered by Werkzeug."""
        if args or kwargs != {"return_rule": True}:
            return super().match(*args, **kwargs)
        asked = self.default_method, self.path_info
        rule = self._found.get(asked)
        if rule is not None:
            return rule, {}
        rule, values = super().match(return_rule=True)
        if not rule.arguments and not values:
            self._found[asked] = rule
        return rule, values

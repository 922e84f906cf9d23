"""Which view a request goes to is what Werkzeug says, and found once."""

from __future__ import annotations

import gc
import inspect
from itertools import product
from typing import Any

from flask import Request
from werkzeug.exceptions import HTTPException
from werkzeug.test import EnvironBuilder

from tests.conftest import AppMaker

PATHS = ["/v1/chat/completions", "/v1", "/healthz", "/v1/models", "/v1/models/claude-sonnet-5", "/nothing", "/"]
METHODS = ["GET", "HEAD", "OPTIONS", "POST", "DELETE", "BREW"]


def test_the_second_request_goes_where_the_first_went(make_app: AppMaker) -> None:
    app = make_app()

    def found(adapter: object) -> object:
        try:
            rule, values = adapter.match(return_rule=True)  # type: ignore[attr-defined]
        except HTTPException as error:
            return type(error)
        return rule, dict(values)

    for path, method in product(PATHS, METHODS):
        request = Request(EnvironBuilder(path, method=method).get_environ())
        by_werkzeug = found(app.url_map.bind_to_environ(request.environ))
        for _ in range(3):
            assert found(app.create_url_adapter(request)) == by_werkzeug, (path, method)


def test_a_route_is_found_without_leaving_a_circle_behind(make_app: AppMaker) -> None:
    app = make_app()
    request = Request(EnvironBuilder("/v1/chat/completions", method="POST").get_environ())

    def left() -> int:
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                adapter = app.create_url_adapter(request)
                assert adapter is not None
                rule, values = adapter.match(return_rule=True)
                assert rule.endpoint == "chat.create_chat_completion"
                assert values == {}
            return gc.collect()
        finally:
            gc.enable()

    assert min(left() for _ in range(3)) == 0  # what other tests made may go meanwhile


def test_what_clients_think_up_is_not_kept(make_app: AppMaker) -> None:
    app = make_app()
    client = app.test_client()
    client.get("/v1")
    kept = dict(app._found)  # type: ignore[attr-defined]
    for n in range(20):
        client.get(f"/v1/models/model-{n}")
        client.get(f"/nothing/{n}")
        client.open("/v1", method=f"BREW{n}")
    assert app._found == kept  # type: ignore[attr-defined]


def test_no_view_or_hook_is_a_coroutine(make_app: AppMaker) -> None:
    """None is looked at for each request."""
    app = make_app()
    hooks: list[Any] = [app.before_request_funcs, app.after_request_funcs, app.teardown_request_funcs]
    functions = [*app.view_functions.values(), *app.teardown_appcontext_funcs]
    functions += [function for by_blueprint in hooks for some in by_blueprint.values() for function in some]
    assert len(functions) > 30
    assert [function for function in functions if inspect.iscoroutinefunction(function)] == []

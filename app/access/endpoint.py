"""What a route declares of itself: who may call it and what it takes and gives.

One declaration serves three readers: access.py enforces `access`, openapi.py describes the rest, and a test walks the
URL map so that a route without a declaration cannot be added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from marshmallow import Schema

Access = Literal["anyone", "client", "admin", "client_or_admin", "metrics", "session", "setup"]
"""anyone; a client key; an admin (API key or session); either; METRICS_TOKEN or loopback; a signed-in admin page;
the first-run pages, which exist until the first admin does."""

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True)
class Endpoint:
    access: Access
    summary: str = ""
    description: str = ""
    body: type[Schema] | None = None
    answers: Mapping[int, type[Schema] | str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    documented: bool = True
    takes_conversations: bool = False


def endpoint(
    access: Access,
    summary: str = "",
    *,
    description: str = "",
    body: type[Schema] | None = None,
    answers: Mapping[int, type[Schema] | str] | None = None,
    query: Mapping[str, str] | None = None,
    documented: bool = True,
    takes_conversations: bool = False,
) -> Callable[[View], View]:
    """Declare a view. `answers` maps a status to a schema, or to a content type for what is not JSON;
    `query` maps a parameter's name to its meaning; pages are not `documented` in /openapi.json. Only what
    `takes_conversations` takes bodies of MAX_BODY_BYTES, all else small ones."""

    declaration = Endpoint(
        access, summary, description, body, answers or {}, query or {}, documented, takes_conversations
    )

    def declare(view: View) -> View:
        view.endpoint = declaration  # type: ignore[attr-defined]  # a function has a __dict__
        return view

    return declare


def declared(view: Callable[..., Any]) -> Endpoint | None:
    return getattr(view, "endpoint", None)

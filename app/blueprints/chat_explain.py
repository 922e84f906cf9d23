"""`?explain=1`: what would be sent to Anthropic for a chat request, and what became of each of its fields."""

from __future__ import annotations

from typing import Any

from app.blueprints.chat_request import chat_request_of
from app.errors import InvalidRequest
from app.schemas.chat import chat_request
from app.translate.chat.explain import explained
from app.translate.pause import paced
from app.turns import give_turn
from app.upstream.pool import Plan, label

MOST_EXPLAINED_BYTES = 16 * 1024 * 1024
"""An answer that repeats the request twice is written in one go."""


def explanation(body: dict[str, Any]) -> dict[str, Any]:
    """Raises what is not the request's own fault, as that nothing is configured. A request that would be refused is
    explained, too."""
    try:
        asked = chat_request(body)
        chat = chat_request_of(asked)
        connection = chat.route.connections[0]
        chat.plan = Plan([connection])
        chat.recall()
        translation = chat.translate(connection)
    except InvalidRequest as error:
        return {
            "object": "chat.completion.explanation",
            "connection": None,
            "request": None,
            "fields": explained(body, None, {}, error.param, give_turn),
            "warnings": [],
            "refused": {**error.body()["error"], "status": error.status},
        }
    n = asked.get("n") or 1
    is_streamed = bool(asked.get("stream")) or n > 1 or translation.may_run_long
    sent = chat.claude.pool.client(connection).preview(translation, stream=is_streamed)
    return {
        "object": "chat.completion.explanation",
        "connection": {"id": connection.id, "name": label(connection), "base_url": connection.base_url},
        "request": sent,
        "fields": explained(body, translation, sent["body"], None, give_turn),
        "warnings": [
            {"code": note.code, "param": note.param, "reason": note.reason}
            for note in paced(translation.notes, give_turn)
        ],
        "refused": None,
    }

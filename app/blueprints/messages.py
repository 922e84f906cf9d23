"""Anthropic's own API: a request goes to Claude as it came, and so does the answer back.

https://docs.anthropic.com/en/api/messages, https://docs.anthropic.com/en/api/messages-count-tokens
"""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, g, request

from app.access.endpoint import endpoint
from app.blueprints.message_request import MessageRequest, message_request_of, summary
from app.blueprints.message_stream import MessageStream
from app.schemas.messages import (
    AnthropicCountSchema,
    AnthropicMessageSchema,
    AnthropicRequestSchema,
    AnthropicTokensSchema,
)
from app.serve import metrics
from app.services import services, upstream
from app.upstream.pool import Times
from app.upstream.relay import Relayed
from app.upstream.waiting import ClientWatch, Task

blueprint = Blueprint("messages", __name__)

SILENT_AT_MOST_S = 15.0
"""After that a stream's head goes out without an answer: Claude Code tells its user after 20 s."""


@blueprint.post("/v1/messages")
@endpoint(
    "client",
    "Create a message, as Anthropic's API does",
    description="The body goes to Anthropic as it is but for the model's name, and its answer comes back as it is. "
    "So do its errors, after other connections were tried where they may help. `x-gateway-request-cost` is what a "
    "message cost, in millionths of a dollar, absent where that is not known, and in streams.",
    body=AnthropicRequestSchema,
    answers={200: AnthropicMessageSchema},
    query={"beta": "true: as Anthropic's SDKs add it; it goes on."},
    takes_conversations=True,
)
def create_message() -> Response:
    asked = message_request_of("/v1/messages", is_charged=True)
    booking = asked.booking
    assert booking is not None, "a message is charged"
    watch = ClientWatch(request.environ)
    opening = Task(_opener(asked), discard=Relayed.close)
    relayed = None
    try:
        relayed = opening.result(watch, SILENT_AT_MOST_S if asked.asked.stream else None)
    except TimeoutError:
        pass  # the head goes out now, and comments until the answer begins
    except BaseException as error:
        watch.close()
        booking.failed(error)
        raise
    if relayed is None or relayed.is_streamed:
        g.stream = stream = MessageStream(opening, relayed, watch, booking, asked.id)
        return stream.response({} if relayed is None else dict(relayed.headers))
    watch.close()
    headers = _whole(relayed)
    booking.complete(relayed.message.get("stop_reason"), ())
    if booking.cost_micros is not None:
        headers["x-gateway-request-cost"] = str(booking.cost_micros)
    return Response(relayed.body, 200, headers)


@blueprint.post("/v1/messages/count_tokens")
@endpoint(
    "client",
    "Count the tokens of a message, as Anthropic's API does",
    body=AnthropicCountSchema,
    answers={200: AnthropicTokensSchema},
    query={"beta": "true: as Anthropic's SDKs add it; it goes on."},
    takes_conversations=True,
)
def count_tokens() -> Response:
    asked = message_request_of("/v1/messages/count_tokens", is_charged=False)
    watch = ClientWatch(request.environ)
    try:
        relayed = Task(_opener(asked), discard=Relayed.close).result(watch, None)
    finally:
        watch.close()
    headers = _whole(relayed)
    return Response(relayed.body, 200, headers)


def _opener(asked: MessageRequest) -> Callable[[], Relayed]:
    values, pool = services().config.snapshot.values, upstream().pool
    times = Times(g.began_s + float(values["REQUEST_DEADLINE_S"]), float(values["IDLE_TIMEOUT_S"]))
    stream = asked.asked.stream

    def open_it() -> Relayed:
        return pool.open(asked, asked.plan, stream=stream, times=times, summary=summary)

    return open_it


def _whole(relayed: Relayed) -> dict[str, str]:
    """The headers of an answer in one piece, which has been read."""
    relayed.close()
    g.connection = relayed.connection
    metrics.count_answer(relayed.connection, "complete")
    return dict(relayed.headers)

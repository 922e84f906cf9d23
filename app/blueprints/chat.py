"""Chat completions: OpenAI's request in, Claude's answer out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Response, g, request

from app.access.endpoint import endpoint
from app.blueprints.chat_explain import MOST_EXPLAINED_BYTES, explanation
from app.blueprints.chat_request import ChatRequest, chat_request_of
from app.blueprints.chat_stream import ChatStream
from app.blueprints.json_body import is_switched_on, json_body
from app.errors import UpstreamError
from app.schemas.chat import ChatCompletionSchema, ChatRequestSchema, FlatChatCompletionSchema, chat_request
from app.serve import metrics
from app.translate import exact_json
from app.translate.chat.response import to_chat_completion
from app.turns import give_turn
from app.upstream import choices
from app.upstream.answer import Answer
from app.upstream.failures import understanding
from app.upstream.pool import Times
from app.upstream.waiting import ClientWatch, Task

blueprint = Blueprint("chat", __name__)

SILENT_AT_MOST_S = 30.0
"""After that a stream's head goes out without an answer: proxies give up at 60 s."""


@blueprint.post("/v1/chat/completions")
@endpoint(
    "client",
    "Create a chat completion",
    description="JSON, or server-sent events with `stream: true`. A field without a counterpart is told in the header "
    "`x-gateway-warnings`, or refused with `x-gateway-strict: true`; what turns up at the end of an answer stands in "
    "its `gateway.warnings`. `x-gateway-request-cost` is what it cost, in millionths of a dollar, absent where that is "
    "not known; in a stream it is `gateway.request_cost` on the chunk with the usage.",
    body=ChatRequestSchema,
    answers={200: ChatCompletionSchema},
    query={"explain": "1 or true: nothing is sent; the answer says what would be, and what became of each field."},
    takes_conversations=True,
)
def create_chat_completion() -> Response:
    return _complete(flat=False)


@blueprint.post("/chat/completions")
@endpoint(
    "client",
    "Create a chat completion, with the message's role and content at the top level as well",
    body=ChatRequestSchema,
    answers={200: FlatChatCompletionSchema},
    query={"explain": "1 or true: nothing is sent; the answer says what would be, and what became of each field."},
    takes_conversations=True,
)
def create_flat_chat_completion() -> Response:
    return _complete(flat=True)


def _complete(*, flat: bool) -> Response:
    started = time.monotonic()
    explains = is_switched_on("explain", request.args.get("explain", "0"))
    if explains:
        request.max_content_length = min(request.max_content_length or 0, MOST_EXPLAINED_BYTES)
    body = json_body(mends_text=True)
    if explains:
        explained = explanation(body)
        give_turn()
        return Response(exact_json.dumps(explained), mimetype="application/json")
    chat = chat_request_of(chat_request(body))
    chat.gateway.books.check_room()
    chat.plan = chat.claude.pool.plan(chat.route.targets, request.content_length or 0)
    chat.recall()
    values = chat.snapshot.values
    times = Times(started + float(values["REQUEST_DEADLINE_S"]), float(values["IDLE_TIMEOUT_S"]))
    wants_stream, n = bool(chat.asked.get("stream")), chat.asked.get("n") or 1
    watch = ClientWatch(request.environ)

    def open_answers() -> list[Answer]:
        try:
            answers = choices.open_answers(chat.claude.pool, chat, chat.plan, n=n, stream=wants_stream, times=times)
        except UpstreamError as error:
            chat.name_model(error)
            raise
        chat.let_go()
        return answers

    opening = Task(open_answers, discard=choices.close)
    if wants_stream:
        return _stream(chat, opening, watch, started)
    try:
        try:
            answers = opening.result(watch, None)
        finally:
            watch.close()
        return _json(chat, answers, started, flat=flat)
    except BaseException as error:
        chat.booking.failed(error)
        raise


def _json(chat: ChatRequest, answers: Sequence[Answer], started: float, *, flat: bool) -> Response:
    with understanding:
        messages = [answer.message for answer in answers]
        completion = to_chat_completion(messages, answers[0].translation.reply, created=int(time.time()))
    if flat:
        message = completion["choices"][0]["message"]
        completion.update(role=message["role"], content=message["content"])
    chat.complete(answers)
    g.connection = answers[0].connection
    metrics.count_answer(g.connection, "complete")
    headers = _headers(answers[0], started)
    if chat.booking.cost_micros is not None:
        headers["x-gateway-request-cost"] = str(chat.booking.cost_micros)
    return Response(exact_json.dumps(completion), 200, headers, mimetype="application/json")


def _stream(chat: ChatRequest, opening: Task[list[Answer]], watch: ClientWatch, started: float) -> Response:
    answers = None
    try:
        answers = opening.result(watch, SILENT_AT_MOST_S)
    except TimeoutError:
        pass  # the head goes out now, and comments until the answer begins
    except BaseException as error:
        watch.close()
        chat.booking.failed(error)
        raise
    g.stream = stream = ChatStream(opening, answers, watch, chat.booking, chat.complete, chat.id)
    return stream.response(_headers(answers[0], started) if answers is not None else {})


def _headers(answer: Answer, started: float) -> dict[str, Any]:
    headers: dict[str, Any] = answer.client_headers()
    headers["openai-processing-ms"] = str(round((time.monotonic() - started) * 1000))
    headers["openai-version"] = "2020-10-01"
    warnings = answer.translation.reply.warnings
    if warnings:
        headers["x-gateway-warnings"] = ",".join(warnings)
        metrics.count_warnings(warnings)
    return headers

"""Chat completions: OpenAI's request in, Claude's answer out."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import orjson
from flask import Blueprint, Response, g, request

from app import metrics
from app.api import endpoint
from app.blueprints.chat_stream import ChatStream
from app.blueprints.json_body import json_body
from app.schemas.chat import ChatCompletionSchema, ChatRequestSchema, FlatChatCompletionSchema, chat_request
from app.services import services, upstream
from app.storage.config import ConfigSnapshot, Connection
from app.translate.request import Options, Translation, to_message_params
from app.translate.response import to_chat_completion
from app.upstream.client import Reply, understanding
from app.upstream.waiting import ClientWatch, Task

blueprint = Blueprint("chat", __name__)

SILENT_AT_MOST_S = 30.0
"""After that a stream's head goes out without an answer: proxies give up at 60 s."""


@blueprint.post("/v1/chat/completions")
@endpoint(
    "client",
    "Create a chat completion",
    description="JSON, or server-sent events with `stream: true`. Additional fields are taken as OpenAI takes them.",
    body=ChatRequestSchema,
    answers={200: ChatCompletionSchema},
)
def create_chat_completion() -> Response:
    return _complete(flat=False)


@blueprint.post("/chat/completions")
@endpoint(
    "client",
    "Create a chat completion, with the message's role and content at the top level as well",
    body=ChatRequestSchema,
    answers={200: FlatChatCompletionSchema},
)
def create_flat_chat_completion() -> Response:
    return _complete(flat=True)


def _complete(*, flat: bool) -> Response:
    started = time.monotonic()
    asked = chat_request(json_body())
    claude = upstream()
    snapshot = services().config.snapshot
    key = g.caller.key
    route = claude.catalogue.route(asked["model"], snapshot, key.models if key else None)
    options = _options(snapshot)
    claude.pool.forget_others(snapshot)

    def translate(connection: Connection) -> Translation:
        facts = claude.catalogue.facts(connection, route.upstream_id(connection), snapshot)
        return to_message_params(asked, facts, _with_caching_of(connection, options))

    deadline_s = float(snapshot.values["REQUEST_DEADLINE_S"])
    idle_s = float(snapshot.values["IDLE_TIMEOUT_S"])
    wants_stream = bool(asked.get("stream"))
    watch = ClientWatch(request.environ)
    opening = Task(
        lambda: claude.pool.open(
            route.connections, translate, stream=wants_stream, deadline_s=deadline_s, idle_s=idle_s
        ),
        discard=Reply.close,
    )
    if wants_stream:
        return _stream(opening, watch, started)
    try:
        reply = opening.result(watch, None)
    finally:
        watch.close()
    return _json(reply, started, flat=flat)


def _options(snapshot: ConfigSnapshot) -> Options:
    values = snapshot.values
    return Options(
        strict=values["COMPAT"] == "strict" or request.headers.get("x-gateway-strict", "").lower() == "true",
        expose_reasoning=values["EXPOSE_REASONING"],
        default_max_tokens=values["DEFAULT_MAX_TOKENS"],
        caching=values["PROMPT_CACHE"],
    )


def _with_caching_of(connection: Connection, options: Options) -> Options:
    if connection.auto_cache is None or options.caching == "off":
        return options
    return replace(options, caching="auto" if connection.auto_cache else "passive")


def _json(reply: Reply, started: float, *, flat: bool) -> Response:
    reply.close()
    with understanding():
        completion = to_chat_completion(reply.message, reply.translation.reply, created=int(time.time()))
    if flat:
        message = completion["choices"][0]["message"]
        completion.update(role=message["role"], content=message["content"])
    metrics.count_answer(reply.connection, "complete", completion["usage"])
    return Response(orjson.dumps(completion), 200, _headers(reply, started), mimetype="application/json")


def _stream(opening: Task[Reply], watch: ClientWatch, started: float) -> Response:
    reply = None
    try:
        reply = opening.result(watch, SILENT_AT_MOST_S)
    except TimeoutError:
        pass  # the head goes out now, and comments until the answer begins
    except BaseException:
        watch.close()
        raise
    stream = ChatStream(opening, reply, watch)
    headers = _headers(reply, started) if reply is not None else {}
    headers.update({"cache-control": "no-cache", "x-accel-buffering": "no"})
    response = Response(stream.frames(), 200, headers, content_type="text/event-stream; charset=utf-8")
    response.call_on_close(stream.close)  # runs even if the client left before byte one; a finally would not
    return response


def _headers(reply: Reply, started: float) -> dict[str, Any]:
    headers: dict[str, Any] = reply.client_headers()
    headers["openai-processing-ms"] = str(round((time.monotonic() - started) * 1000))
    headers["openai-version"] = "2020-10-01"
    warnings = reply.translation.reply.warnings
    if warnings:
        headers["x-gateway-warnings"] = ",".join(warnings)
        metrics.count_warnings(warnings)
    return headers

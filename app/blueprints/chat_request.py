"""A client's chat request on its way to Claude: what it is for each connection, and what is kept of its answer."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flask import g, request

from app.blueprints.booking import Booking, told_of, user_ref
from app.blueprints.errors import request_id
from app.blueprints.json_body import is_switched_on
from app.errors import ModelNotFound, ServerToolsRefused, UpstreamError
from app.serve import metrics
from app.services import Services, Upstream, services, upstream
from app.storage.config import ConfigSnapshot, Connection
from app.storage.remembered import Scope
from app.translate.accumulate import LATE_WARNINGS
from app.translate.chat import memory
from app.translate.chat.legacy import with_tools
from app.translate.chat.request import Options, to_message_params, user_of
from app.translate.facts import ModelFacts
from app.translate.hosted import hosted_fields
from app.translate.learning import Lesson, lesson_of
from app.translate.translation import Translation
from app.turns import give_turn
from app.upstream.answer import Answer
from app.upstream.catalogue import Route
from app.upstream.dispatch import Dispatch
from app.upstream.pool import Plan, in_order

log = logging.getLogger(__name__)
_START_CHARS = 2000
_START_PARTS = 10


@dataclass
class ChatRequest:
    """`asked` has been checked by schemas/chat.py. Made in the context of the request, used without it."""

    id: str
    asked: dict[str, Any]
    route: Route
    snapshot: ConfigSnapshot
    options: Options
    caller: str
    gateway: Services
    claude: Upstream
    booking: Booking
    plan: Plan = field(default_factory=lambda: Plan(()))
    _remembered: dict[str, dict[int, list[dict[str, Any]]]] = field(default_factory=dict)
    """By connection, the exact blocks of earlier answers by the index of their message."""
    _sent: Translation | None = None
    """What translate() made last."""
    _lesson: tuple[str, Lesson] | None = None
    """What a refusal taught of the connection with this id."""

    def translate(self, connection: Connection) -> Translation:
        """Raises UntranslatableRequest and ServerToolsRefused."""
        options = self.options
        if connection.auto_cache is not None and options.caching != "off":
            options = replace(options, caching="auto" if connection.auto_cache else "passive")
        facts, remembered = self._facts(connection), self._remembered.get(connection.id)
        self._sent = to_message_params(self.asked, facts, options, remembered, pause=give_turn)
        if not self.snapshot.values["SERVER_TOOLS"] and (field := next(hosted_fields(self._sent.body), None)):
            raise ServerToolsRefused("web_search_options" if "web_search_options" in self.asked else field)
        return self._sent

    def learn(self, connection: Connection, error: UpstreamError) -> bool:
        if error.upstream is None or error.upstream["type"] != "invalid_request_error":
            return False
        assert self._sent is not None, "nothing was sent that could have been refused"
        lesson = lesson_of(error.upstream["message"], self._facts(connection), self._sent.body)
        if lesson is None:
            return False
        self._lesson = (connection.id, lesson)
        self.options = replace(self.options, **lesson.options)
        return True

    def name_model(self, error: UpstreamError) -> None:
        """Of an alias or a prefix Anthropic knows nothing, and the client nothing of what it stands for."""
        if error.code == "model_not_found":
            error.message = ModelNotFound(self.asked["model"], self.route.targets[0][1]).message

    def answered(self, connection: Connection) -> None:
        """A fact holds for all clients: it is kept only when the request that it led to was answered, which a client
        that makes Anthropic quote a false one cannot bring about."""
        if self._lesson is None or self._lesson[0] != connection.id:
            return
        lesson = self._lesson[1]
        metrics.count_lesson(connection, lesson.name)
        if lesson.facts:
            self.claude.catalogue.learn(connection, self.route.upstream_id(connection), lesson)

    def dispatch(self, connection: Connection, model: str) -> Dispatch:
        return self.booking.dispatch(connection, model)

    def let_go(self) -> None:
        """Once the answers have begun, what was asked may weigh many megabytes and is not needed any more."""
        self.asked, self._remembered, self._sent = {}, {}, None

    def recall(self) -> None:
        """Looks up what the client did not return of earlier answers. It must not be interrupted by the client's
        leaving: that would spoil the connection to the database."""
        if not self.snapshot.values["REMEMBER_ANSWERS"]:
            return
        connections = self.plan.connections
        messages = with_tools(self.asked)["messages"]
        user = user_of(self.asked)
        families = {c.id: self._facts(c).family for c in connections}
        by_family = {f: memory.remembered_names(messages, user, f, give_turn) for f in set(families.values())}
        names = {id: by_family[family] for id, family in families.items()}
        wanted = {name for found in names.values() for name in found.values()}
        if not wanted:
            return
        scopes = {c.id: self._scope(c) for c in connections}
        found = self.gateway.answers.recall(set(scopes.values()), wanted)
        for id, scope in scopes.items():
            values = found[scope]
            self._remembered[id] = {i: memory.loads(values[name]) for i, name in names[id].items() if name in values}

    def complete(self, answers: Sequence[Answer]) -> None:
        """The answers are there: they are in the books, and what the client may not return of them is kept, when this
        returns."""
        message = answers[0].message if answers[0].has_message else {}
        warnings = (*answers[0].translation.reply.warnings, *message.get(LATE_WARNINGS, ()))
        self._remember(answers)
        self.booking.complete(message.get("stop_reason"), warnings)

    def _remember(self, answers: Sequence[Answer]) -> None:
        if not self.snapshot.values["REMEMBER_ANSWERS"]:
            return
        kept = []
        for answer in answers:
            context = answer.translation.reply
            if not (context.shows_what_was_written and answer.is_one_turn):
                continue
            message = answer.message
            if message.get("stop_reason") == "refusal":
                continue
            try:
                made = memory.to_memory(message.get("content") or (), context.told)
            except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
                log.warning("an answer is too odd to be remembered", exc_info=error)  # but the client has it
                continue
            if made is not None:
                kept.append((made[0], memory.dumps(made[1])))
        if kept:
            self.gateway.answers.remember(self._scope(answers[0].connection), kept)

    def _facts(self, connection: Connection) -> ModelFacts:
        facts = self.claude.catalogue.facts(connection, self.route.upstream_id(connection), self.snapshot)
        if self._lesson is not None and self._lesson[0] == connection.id:
            facts = replace(facts, **self._lesson[1].facts)
        return facts

    def _scope(self, connection: Connection) -> Scope:
        return Scope(connection.id, self.caller, self._facts(connection).family)


def conversation(asked: Mapping[str, Any], caller: str) -> bytes:
    """What a conversation begins with, which stays while it grows: the same bytes for all of its requests."""
    start = [caller]
    for message in asked["messages"]:
        start += _texts(message.get("content") if isinstance(message, Mapping) else None)
        if isinstance(message, Mapping) and message.get("role") == "user":
            break
    return "\0".join(start).encode("utf-8", "surrogatepass")


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content[:_START_CHARS]]
    parts = content[:_START_PARTS] if isinstance(content, list) else []
    return [
        part["text"][:_START_CHARS] for part in parts if isinstance(part, Mapping) and isinstance(part.get("text"), str)
    ]


def chat_request_of(asked: dict[str, Any]) -> ChatRequest:
    """Raises ModelNotFound, or ServiceUnavailable where nothing is configured."""
    claude = upstream()
    gateway = services()
    snapshot = gateway.config.snapshot
    key = g.caller.key
    caller = key.id if key else g.caller.who
    route = claude.catalogue.route(asked["model"], snapshot, key.models if key else None)
    g.model = route.model
    if len(route.targets) > 1:
        route = replace(route, targets=tuple(in_order(route.targets, conversation(asked, caller))))
    values, headers = snapshot.values, request.headers
    options = Options(
        strict=values["COMPAT"] == "strict" or is_switched_on("x-gateway-strict", headers.get("x-gateway-strict", "0")),
        expose_reasoning=values["EXPOSE_REASONING"],
        default_max_tokens=values["DEFAULT_MAX_TOKENS"],
        caching=values["PROMPT_CACHE"],
        system_placement=values["SYSTEM_PLACEMENT"],
        refusal_finish=values["REFUSAL_FINISH"],
        refusal_text=values["REFUSAL_TEXT"],
        always_usage=values["ALWAYS_USAGE"],
        betas=headers.get("anthropic-beta", ""),
        has_mended_text=g.get("has_mended_text", False),
    )
    id = request_id()
    user = user_ref(user_of(asked), values["ATTRIBUTION"], gateway.vault)
    told = told_of(asked, id=id, key_id=key.id if key else "", user_ref=user)
    booking = Booking(gateway.books, snapshot.prices, told, g.began_s)
    return ChatRequest(id, asked, route, snapshot, options, caller, gateway, claude, booking)

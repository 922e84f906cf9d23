"""A client's request of Anthropic's own API on its way: where it may go, and what goes there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from flask import g, request

from app.blueprints.booking import Booking, told_of, user_ref
from app.blueprints.errors import request_id
from app.blueprints.json_body import json_body_as_sent, loads
from app.errors import InvalidRequest, ModelNotFound, ServerToolsRefused, UpstreamError
from app.services import services, upstream
from app.storage.config import Connection
from app.translate.messages.body import Asked, asked_of, bare_model, check_names, with_model
from app.translate.messages.errors import chosen, with_bounded_wait
from app.upstream.catalogue import Route
from app.upstream.client import UpstreamClient
from app.upstream.dispatch import Dispatch
from app.upstream.limits import Limits
from app.upstream.names import permission
from app.upstream.pool import Failure, Plan, all_failed, in_order
from app.upstream.relay import Relay, Relayed

_PASSED_ON = ("HTTP_ANTHROPIC_", "HTTP_X_CLAUDE_CODE_", "HTTP_X_STAINLESS_")
_ALSO_PASSED_ON = frozenset({"HTTP_ACCEPT", "HTTP_USER_AGENT", "HTTP_X_APP", "HTTP_X_CLIENT_REQUEST_ID"})
_NOT_PASSED_ON = frozenset(
    {"anthropic-workspace-id", "anthropic-organization-id", "anthropic-dangerous-direct-browser-access"}
)
_CHOOSES_WHO_PAYS = "anthropic-user-profile-id"
_MOST_HEADERS = 64
_NAME = re.compile(r"[a-z0-9-]{1,100}")
_VALUE = re.compile(r"[\x20-\x7e]{0,8192}")


@dataclass
class MessageRequest:
    """Made in the context of the request, used without it. `booking` is None where nothing is charged."""

    id: str
    path: str
    asked: Asked
    raw: bytes | bytearray
    headers: Mapping[str, str]
    beta: bool
    route: Route
    plan: Plan
    booking: Booking | None

    def open(self, client: UpstreamClient, limits: Limits) -> Relayed:
        model = self.route.upstream_id(client.connection)
        body = self.raw
        if model != self.asked.sent:
            body = with_model(body, self.asked.sent, model, loads)
        dispatch = Dispatch(client.connection, model)
        if self.booking is not None:
            dispatch = self.booking.dispatch(client.connection, model)
        return Relay(self.path, self.headers, body, self.beta).send(client, limits, dispatch)

    def learn(self, connection: Connection, error: UpstreamError) -> bool:
        """What was refused is the client's to mend."""
        return False

    def answered(self, connection: Connection) -> None:
        """Once the answer has begun, what was asked is not needed any more."""
        self.raw, self.headers = b"", {}


def message_request_of(path: str, *, is_charged: bool) -> MessageRequest:
    """Reads the request. Raises what json_body() does, ModelNotFound, Forbidden, UpstreamError, and ServiceUnavailable
    where nothing is configured, or nothing can be booked."""
    body, raw = json_body_as_sent()
    claude, gateway = upstream(), services()
    snapshot, key = gateway.config.snapshot, g.caller.key
    allowed = key.models if key else None
    check_names(raw, loads, all_of_them=allowed is not None)
    asked = asked_of(body, raw)
    del body
    headers = _headers(request.environ)
    if asked.hosted is not None and not snapshot.values["SERVER_TOOLS"]:
        raise ServerToolsRefused(asked.hosted)
    route = claude.catalogue.route(asked.model, snapshot, allowed)
    may_use = permission(allowed)
    for _, other in asked.others:
        if not may_use(bare_model(other), None):
            raise ModelNotFound(other)
    g.model = route.model
    caller = key.id if key else g.caller.who
    session = headers.get("x-claude-code-session-id") or asked.session
    targets = in_order(route.targets, f"{caller}\0{session}".encode("utf-8", "surrogatepass"))
    if asked.is_bound:  # others know nothing of what it names
        targets = targets[:1]
    route = replace(route, targets=tuple(targets))
    id, booking = request_id(), None
    if is_charged:
        gateway.books.check_room()
        user = user_ref(asked.user, snapshot.values["ATTRIBUTION"], gateway.vault)
        told = {"model": asked.sent, "stream": asked.stream, "metadata": {"tag": asked.tag}}
        row = told_of(told, id=id, key_id=key.id if key else "", user_ref=user)
        booking = Booking(gateway.books, snapshot.prices, row, g.began_s)
    plan = claude.pool.plan(route.targets, len(raw), summary)
    return MessageRequest(id, path, asked, raw, headers, request.args.get("beta") == "true", route, plan, booking)


def summary(failures: Sequence[Failure]) -> UpstreamError:
    """What the client is told when no connection answered: one of the failures, whatever the others were."""
    if not failures:
        return all_failed(failures)
    told = chosen([error for _, error in failures])
    return told if told.forwarded else with_bounded_wait(told)


def _headers(environ: Mapping[str, str]) -> dict[str, str]:
    """Those of the client's that Anthropic gets, by lower-case name. Raises InvalidRequest."""
    headers = {
        name[5:].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith(_PASSED_ON) or name in _ALSO_PASSED_ON
    }
    for name, value in headers.items():
        if _VALUE.fullmatch(value) is None or _NAME.fullmatch(name) is None:
            raise InvalidRequest(
                f"The header {name[:100]} is longer than 8 kB or holds what is not printable ASCII.", param=name[:100]
            )
    if len(headers) > _MOST_HEADERS:
        raise InvalidRequest(f"More than {_MOST_HEADERS} headers are meant for Anthropic.")
    if _CHOOSES_WHO_PAYS in headers:
        raise InvalidRequest(
            f"The header {_CHOOSES_WHO_PAYS} chooses whom Anthropic bills; only an administrator may, in the headers "
            "of a connection.",
            param=_CHOOSES_WHO_PAYS,
        )
    return {name: value for name, value in headers.items() if name not in _NOT_PASSED_ON}

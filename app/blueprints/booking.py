"""The row of the books that a request becomes once it went upstream, however it ends."""

from __future__ import annotations

import hmac
import logging
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from flask import request
from gevent import GreenletExit

from app.errors import GatewayError
from app.money import charges
from app.money.charges import Charge, Message
from app.money.prices import PriceList
from app.money.tokens import Tokens
from app.storage import ledger
from app.storage.books import Books, Call, Heard
from app.storage.connections import Connection
from app.storage.ledger import Entry
from app.storage.secrets import Vault
from app.upstream.dispatch import Dispatch
from app.upstream.waiting import Stopping

log = logging.getLogger(__name__)
_LONGEST_MODEL, _LONGEST_CLIENT = 200, 64
_CUT = frozenset({"upstream_disconnected", "upstream_timeout", "upstream_invalid_response", "timeout"})
_ENDINGS = {"refusal": "refusal", "max_tokens": "length", "model_context_window_exceeded": "length"}
_CLIENT_GONE = 499
"""As nginx counts it: nobody read the answer."""
_LONGEST_USER, _LONGEST_ID = 128, 100
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_TAG = re.compile(r"[A-Za-z0-9._:/-]{1,64}")


class Booking:
    """The row of one request: `book()` once, the first counts."""

    def __init__(self, books: Books, prices: PriceList, told: Mapping[str, Any], began_s: float) -> None:
        """`told` is what told_of() answers, `began_s` when the request began on the monotonic clock."""
        self._books = books
        self._prices = prices
        self._told = told
        self._began_s = began_s
        self._dispatches: list[Dispatch] = []
        self._is_booked = self._is_over = False
        self.entry: Entry | None = None

    def dispatch(self, connection: Connection, model: str) -> Dispatch:
        """A call that is about to go upstream. Raises ServiceUnavailable when it could not be booked, and GreenletExit
        when nobody waits for it any more: who is stopped may still have his turn."""
        if self._is_over:
            raise GreenletExit
        number = len(self._dispatches)
        row = {} if number else self._told
        asked = _clean(model, _LONGEST_MODEL)
        call = Call(number, connection.id, asked, time.time(), connection.price_factor, row)
        self._books.begin(self._told["id"], call)
        made = Dispatch(connection, model, on_change=lambda: self._hear(number))
        self._dispatches.append(made)
        return made

    def _hear(self, number: int) -> None:
        if self._is_booked:
            return
        dispatch = self._dispatches[number]
        if dispatch.is_free:
            self._books.hear(self._told["id"], Heard(number, is_free=True))
        elif dispatch.message is None and dispatch.first:
            message = dispatch.first[0].get("message")
            if isinstance(message, Mapping):
                model = _clean(message.get("model") or dispatch.model, _LONGEST_MODEL)
                self._books.hear(self._told["id"], Heard(number, model, message.get("usage")))

    def complete(self, stop_reason: Any, warnings: Sequence[str]) -> Entry:
        """The whole answer is there. In the books, whatever happens, when this returns."""
        return self._book(_ENDINGS.get(str(stop_reason), "complete"), 200, warnings)

    def failed(self, error: BaseException, *, head_is_out: bool = False) -> None:
        """It ends with an error, or without a client."""
        self._is_over = True
        if not self._dispatches or self._is_booked:
            return
        status = 200 if head_is_out else _CLIENT_GONE
        ending = "client_gone"
        if isinstance(error, Stopping):
            ending = "gateway_stopped"
        elif isinstance(error, GatewayError):
            has_begun = any(dispatch.began_at is not None for dispatch in self._dispatches)
            ending = "upstream_cut" if has_begun and error.code in _CUT else "upstream_error"
        if isinstance(error, GatewayError) and not head_is_out:
            status = error.status
        self._book(ending, status, ())

    def left(self) -> None:
        """The client does not read on."""
        self._is_over = True
        if self._dispatches and not self._is_booked:
            self._book("client_gone", 200, ())

    def _book(self, ending: str, status: int, warnings: Sequence[str]) -> Entry:
        assert not self._is_booked, "a request is booked once"
        self._is_booked = self._is_over = True
        try:
            made = self._charges()
        except Exception:  # what others sent is odd in a way that nobody thought of: the row is there all the same
            log.exception("%s cannot be charged", self._told["id"])
            made = [_uncharged(self._last())]
        entry = self.entry = self._entry(made, ending, status, warnings)
        self._books.end(entry)
        for dispatch in self._dispatches:  # a circle of the two would keep the whole answer until the next collection
            dispatch.on_change = None
        return entry

    @property
    def cost_micros(self) -> int | None:
        """µ$ as booked; None where it is not known, or nothing is booked yet."""
        return None if self.entry is None else self.entry.cost_micros

    def _charges(self) -> list[Charge]:
        messages = [m for m in map(_message, self._dispatches) if m is not None]
        return charges.charges(messages, self._prices)

    def _entry(self, made: list[Charge], ending: str, status: int, warnings: Sequence[str]) -> Entry:
        now = time.monotonic()
        last = self._last()
        ids = [_clean(id, _LONGEST_ID) for dispatch in self._dispatches if (id := dispatch.so_far.get("id"))]
        return ledger.entry(
            self._told,
            made,
            model=_served(last),
            connection=last.connection.id,
            attempts=len(self._dispatches),
            status=status,
            ending=ending,
            duration_ms=round((now - self._began_s) * 1000),
            ttft_ms=self._first_token_ms(last),
            upstream_ids=",".join(ids) or None,
            warnings=",".join(dict.fromkeys(warnings)) or None,
            parts=ledger.parts([(d.connection.id, d.model, d.outcome or "given_up") for d in self._dispatches], made),
        )

    def _first_token_ms(self, last: Dispatch) -> int | None:
        """None where the client gets all in one piece, or got nothing."""
        if not self._told["stream"] or last.began_at is None:
            return None
        return max(0, round(last.began_at * 1000) - int(self._told["at"]))

    def _last(self) -> Dispatch:
        """The call that the client was answered by, or that was tried last."""
        answered = [dispatch for dispatch in self._dispatches if dispatch.began_at is not None]
        return (answered or self._dispatches)[-1]


def _uncharged(dispatch: Dispatch) -> Charge:
    return Charge(
        connection=dispatch.connection.id,
        model=_served(dispatch),
        speed=None,
        geo=None,
        tier=None,
        tokens=Tokens(),
        searches=0,
        messages=1,
        micros=None,
        saved_micros=None,
        state="unknown",
        price_version=None,
    )


def _served(dispatch: Dispatch) -> str:
    """The model that answered, or was asked to."""
    return _clean(dispatch.so_far.get("model") or dispatch.model, _LONGEST_MODEL)


def _clean(text: Any, longest: int) -> str:
    """Others choose it, and a database may take neither NUL nor half a character."""
    some = str(text)[:longest]
    return some if some.isascii() and some.isprintable() else _CONTROL.sub("", some).encode("utf-8", "replace").decode()


def _message(dispatch: Dispatch) -> Message | None:
    """None of a call for which nothing is charged."""
    if dispatch.is_free:
        return None
    so_far = dispatch.so_far
    began_at = dispatch.began_at if dispatch.began_at is not None else time.time()
    content = so_far.get("content") or ()
    is_cut = not dispatch.is_counted
    details = so_far.get("stop_details")
    return Message(
        connection=dispatch.connection.id,
        model=_served(dispatch),
        at=datetime.fromtimestamp(began_at, UTC),
        usage=so_far.get("usage"),
        content=[block for block in content if isinstance(block, Mapping)] if isinstance(content, list) else (),
        stop_reason=so_far.get("stop_reason"),
        refusal_category=str(details.get("category")) if isinstance(details, Mapping) else None,
        only_1h=dispatch.caches_for_an_hour,
        is_cut=is_cut,
        received=dispatch.heard().received() if is_cut else 0,
        factor=dispatch.connection.price_factor,
        thought_s=dispatch.thought_s if is_cut and not _shows_thinking(content) else 0.0,
    )


def _shows_thinking(content: Any) -> bool:
    return isinstance(content, list) and any(b.get("thinking") for b in content if isinstance(b, Mapping))


def user_ref(user: str, attribution: str, vault: Vault) -> str | None:
    """What the books call the user whom a client speaks for."""
    user = _clean(user, _LONGEST_USER)
    if not user or attribution == "off":
        return None
    if attribution == "hash" or (attribution == "auto" and "@" in user):
        return hmac.new(vault.derive("users in the books"), user.encode(), "sha256").hexdigest()[:32]
    return user


def told_of(asked: Mapping[str, Any], *, id: str, key_id: str, user_ref: str | None) -> dict[str, Any]:
    """What the books have of a request before anything became of it; in its context."""
    rule, environ = request.url_rule, request.environ
    return {
        "id": id,
        "at": ledger.time_of(id),
        "key_id": key_id,
        "route": rule.rule if rule else "",
        "model_asked": _clean(asked["model"], _LONGEST_MODEL),
        "stream": bool(asked.get("stream")),
        "user_ref": user_ref,
        "tag": _tag_of(asked, environ),
        "client": _clean(environ.get("HTTP_USER_AGENT", ""), _LONGEST_CLIENT) or None,
    }


def _tag_of(asked: Mapping[str, Any], environ: Mapping[str, Any]) -> str | None:
    """What a client calls this kind of request: `metadata.tag`, or the header `x-gateway-tag`."""
    metadata = asked.get("metadata")
    tag = metadata.get("tag") if isinstance(metadata, Mapping) else None
    tag = tag if isinstance(tag, str) else environ.get("HTTP_X_GATEWAY_TAG")
    return tag if tag and _TAG.fullmatch(tag) else None

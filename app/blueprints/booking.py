"""The row of the books that a request becomes once it went upstream, however it ends."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import orjson
from flask import g, request

from app.errors import GatewayError
from app.money import charges
from app.money.charges import Charge, Message
from app.money.prices import PriceList
from app.money.tokens import total
from app.services import services
from app.storage.ledger import Entry
from app.storage.secrets import Vault
from app.storage.writer import Work
from app.upstream.dispatch import Dispatch
from app.upstream.waiting import Stopping

_LONGEST_MODEL, _LONGEST_CLIENT = 200, 64
_CUT = frozenset({"upstream_disconnected", "upstream_timeout", "upstream_invalid_response", "timeout"})
_ENDINGS = {"refusal": "refusal", "max_tokens": "length", "model_context_window_exceeded": "length"}
_STATES = ("unknown", "estimated", "exact")
_CLIENT_GONE = 499
"""As nginx counts it: nobody read the answer."""
_LONGEST_USER, _LONGEST_ID = 128, 100
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_TAG = re.compile(r"[A-Za-z0-9._:/-]{1,64}")


class Booking:
    """Made in the context of the request and used without it; `book()` once, the first counts."""

    def __init__(
        self, prices: PriceList, *, model_asked: str, stream: bool, user_ref: str | None, tag: str | None
    ) -> None:
        key = g.caller.key
        self._books = services().books
        self._prices = prices
        self._dispatches: list[Dispatch] = []
        self._began_s = g.began_s
        self._is_booked = False
        self.entry: Entry | None = None
        self._told: dict[str, Any] = {
            "id": g.request_id,
            "at": round(time.time() * 1000),
            "key_id": key.id if key else "",
            "route": request.url_rule.rule if request.url_rule else "",
            "model_asked": _clean(model_asked, _LONGEST_MODEL),
            "stream": stream,
            "user_ref": user_ref,
            "tag": tag,
            "client": _clean(request.headers.get("user-agent", ""), _LONGEST_CLIENT) or None,
        }

    @property
    def dispatches(self) -> list[Dispatch]:
        """Each call that the request came to."""
        return self._dispatches

    def complete(self, stop_reason: Any, warnings: Sequence[str], work: Work | None) -> Entry:
        """The whole answer is there. Committed, with what `work` changes, when this returns."""
        ending = _ENDINGS.get(str(stop_reason), "complete")
        return self._book(ending, 200, warnings, work)

    def failed(self, error: BaseException, *, head_is_out: bool = False) -> None:
        """It ends with an error, or without a client."""
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
        self._book(ending, status, (), None)

    def left(self) -> None:
        """The client does not read on."""
        if self._dispatches and not self._is_booked:
            self._book("client_gone", 200, (), None)

    def _book(self, ending: str, status: int, warnings: Sequence[str], work: Work | None) -> Entry:
        assert not self._is_booked, "a request is booked once"
        self._is_booked = True
        entry = self.entry = self._entry(ending, status, warnings)
        self._books.book(entry, work)
        return entry

    @property
    def cost_micros(self) -> int | None:
        """µ$ as booked; None where it is not known, or nothing is booked yet."""
        return None if self.entry is None else self.entry.cost_micros

    def cost(self) -> int | None:
        """µ$ of what has been answered so far."""
        made = self._charges()
        return _sum(charge.micros for charge in made)

    def _charges(self) -> list[Charge]:
        messages = [m for m in map(_message, self._dispatches) if m is not None]
        return charges.charges(messages, self._prices)

    def _entry(self, ending: str, status: int, warnings: Sequence[str]) -> Entry:
        now = time.monotonic()
        made = self._charges()
        last = self._last()
        model = _served(last)
        main = next((charge for charge in made if charge.model == model), None)
        tokens = total(charge.tokens for charge in made)
        ids = [_clean(id, _LONGEST_ID) for dispatch in self._dispatches if (id := dispatch.so_far.get("id"))]
        return Entry(
            **self._told,
            model=model,
            connection=last.connection.id,
            attempts=len(self._dispatches),
            status=status,
            ending=ending,
            duration_ms=round((now - self._began_s) * 1000),
            ttft_ms=self._first_token_ms(last),
            cost_state=next((state for state in _STATES if any(c.state == state for c in made)), "exact"),
            cost_micros=_sum(charge.micros for charge in made),
            saved_micros=_sum(charge.saved_micros for charge in made),
            input_tokens=tokens.input,
            cache_write_5m_tokens=tokens.write_5m,
            cache_write_1h_tokens=tokens.write_1h,
            cache_read_tokens=tokens.read,
            output_tokens=tokens.output,
            thinking_tokens=tokens.thinking,
            searches=sum(charge.searches for charge in made),
            price_version=main.price_version if main else None,
            tier=main.tier if main else None,
            speed=main.speed if main else None,
            geo=main.geo if main else None,
            upstream_ids=",".join(ids) or None,
            warnings=",".join(dict.fromkeys(warnings)) or None,
            parts=self._parts(made),
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

    def _parts(self, made: Sequence[Charge]) -> str | None:
        """What it was made of, where that is more than one charge of one call."""
        if len(self._dispatches) == 1 and len(made) <= 1:
            return None
        tries = [
            {"connection": d.connection.id, "model": d.model, "outcome": d.outcome or "given_up"}
            for d in self._dispatches
        ]
        charged = [
            {
                "connection": charge.connection,
                "model": charge.model,
                "tokens": asdict(charge.tokens),
                "searches": charge.searches,
                "cost_micros": charge.micros,
                "cost_state": charge.state,
                "price_version": charge.price_version,
            }
            for charge in made
        ]
        return orjson.dumps({"tries": tries, "charges": charged}).decode()


def _served(dispatch: Dispatch) -> str:
    """The model that answered, or was asked to."""
    return _clean(dispatch.so_far.get("model") or dispatch.model, _LONGEST_MODEL)


def _clean(text: Any, longest: int) -> str:
    """Others choose it, and a database may take neither NUL nor half a character."""
    return _CONTROL.sub("", str(text)[:longest]).encode("utf-8", "replace").decode()


def _sum(amounts: Any) -> int | None:
    known = list(amounts)
    return None if None in known else sum(known)


def _message(dispatch: Dispatch) -> Message | None:
    """None of a call for which nothing is charged."""
    if dispatch.is_free:
        return None
    so_far = dispatch.so_far
    began_at = dispatch.began_at if dispatch.began_at is not None else time.time()
    content = so_far.get("content") or ()
    is_cut = not dispatch.is_whole
    details = so_far.get("stop_details")
    return Message(
        connection=dispatch.connection.id,
        model=_served(dispatch),
        at=datetime.fromtimestamp(began_at, UTC),
        usage=so_far.get("usage"),
        content=[block for block in content if isinstance(block, Mapping)] if isinstance(content, list) else (),
        stop_reason=so_far.get("stop_reason"),
        refusal_category=str(details.get("category")) if isinstance(details, Mapping) else None,
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


def tag_of(asked: Mapping[str, Any]) -> str | None:
    """What a client calls this kind of request: `metadata.tag`, or the header `x-gateway-tag`."""
    metadata = asked.get("metadata")
    tag = metadata.get("tag") if isinstance(metadata, Mapping) else None
    tag = tag if isinstance(tag, str) else request.headers.get("x-gateway-tag", "")
    return tag if _TAG.fullmatch(tag) else None

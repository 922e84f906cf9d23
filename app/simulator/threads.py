"""Conversations that the API keeps.

`thread: {"type": "create"}` begins one, `{"type": "continue", "previous_message_id": …}` goes on with it. An answer can
be continued once, by the account that got it, until five minutes after. What is kept is the whole request with the
answer at its end.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from app.simulator.clock import Clock
from app.simulator.events import Event, accumulate
from app.simulator.refusal import Refusal
from app.simulator.rules import fail, fields, non_empty, one_of

BETA = "message-threads-"
LIFE_S = 300.0
OF_THE_THREAD = ("system", "tools")
"""Fields that stand in the thread and may not be sent again."""


@dataclass(slots=True)
class Kept:
    """A conversation up to one answer."""

    account: str
    body: dict[str, Any]
    fingerprint: dict[str, Any]
    expires_s: float
    is_continued: bool = False
    is_in_flight: bool = False


@dataclass(slots=True)
class Turn:
    """A request with `thread` on its way to an answer; `body` is the whole conversation."""

    threads: "Threads"
    account: str
    body: dict[str, Any]
    fingerprint: dict[str, Any]
    before: Kept | None = None

    def remembered(self, events: Iterable[Event]) -> Iterator[Event]:
        """The events; once they all went out the conversation is kept under the answer's id."""
        seen: list[Event] = []
        for event in events:
            seen.append(event)
            yield event
        if seen and seen[-1].get("type") == "message_stop":
            self._keep(accumulate(seen))

    def _keep(self, message: dict[str, Any]) -> None:
        if self.before:
            self.before.is_continued = True
        if any(entry["type"] == "fallback_message" for entry in message["usage"].get("iterations") or ()):
            return  # as the API: a turn that another model wrote is not kept
        answer = {"role": "assistant", "content": message["content"]}
        body = {**self.body, "messages": [*self.body["messages"], answer]}
        self.threads.keep(message["id"], Kept(self.account, body, self.fingerprint, self.threads.expiry_s()))

    def close(self) -> None:
        if self.before:
            self.before.is_in_flight = False


@dataclass
class Threads:
    """All conversations that are kept, by the id of their last answer."""

    clock: Clock
    kept: dict[str, Kept] = field(default_factory=dict)

    def expiry_s(self) -> float:
        return self.clock.now_s() + LIFE_S

    def keep(self, message_id: str, conversation: Kept) -> None:
        now_s = self.clock.now_s()
        self.kept = {id: kept for id, kept in self.kept.items() if kept.expires_s > now_s}
        self.kept[message_id] = conversation

    def open(
        self, body: dict[str, Any], account: str, model_id: str, betas: tuple[str, ...], policy: str
    ) -> Turn | None:
        """The turn of a request with `thread`, to be closed at its end; None for one without. Raises a Refusal."""
        if body.get("thread") is None or policy == "ignored":
            return None
        if not any(beta.startswith(BETA) for beta in betas):
            fail("thread", "Extra inputs are not permitted")
        _check_supported(body, policy)
        fingerprint = {
            "model": model_id,
            **{name: body.get(name) for name in ("thinking", "tool_choice", "cache_control")},
            "anthropic-beta": sorted(set(betas)),
        }
        if body["thread"].get("type") == "create":
            fields(body["thread"], "thread.create", {"type": one_of("create")}, {})
            return Turn(self, account, body, fingerprint)
        shape = {"type": one_of("continue", "create"), "previous_message_id": non_empty}
        fields(body["thread"], "thread.continue", shape, {})
        before = self._found(body["thread"]["previous_message_id"], account)
        _check_fingerprint(before.fingerprint, fingerprint)
        for name in OF_THE_THREAD:
            if name in body:
                fail(name, "must not be sent when a thread is continued: it stands in the thread")
        before.is_in_flight = True
        of_the_thread = {name: before.body[name] for name in OF_THE_THREAD if name in before.body}
        messages = [*before.body["messages"], *(body.get("messages") or ())]
        return Turn(self, account, {**of_the_thread, **body, "messages": messages}, fingerprint, before)

    def _found(self, message_id: str, account: str) -> Kept:
        found = self.kept.get(message_id)
        if found is None or found.account != account or found.expires_s <= self.clock.now_s():
            raise Refusal(f"No thread was found for `{message_id}`", 404, "thread_not_found")
        if found.is_continued:
            raise Refusal(f"`{message_id}` has already been continued", error_code="thread_already_continued")
        if found.is_in_flight:
            said = f"Another request is still continuing from `{message_id}`"
            raise Refusal(said, error_code="thread_continue_in_flight")
        return found


def _check_supported(body: dict[str, Any], policy: str) -> None:
    edits = (body.get("context_management") or {}).get("edits") or ()
    unsupported = [
        *(["hipaa"] if policy == "unsupported" else []),
        *(["context_management"] if any(str(edit.get("type")).startswith("compact_") for edit in edits) else []),
    ]
    if unsupported:
        raise Refusal(
            f"`thread` cannot be combined with {', '.join(unsupported)}",
            error_code="thread_unsupported_request",
            details={"unsupported": unsupported},
        )


def _check_fingerprint(before: dict[str, Any], now: dict[str, Any]) -> None:
    changed = [f"`{name}`" for name in before if orjson.dumps(before[name]) != orjson.dumps(now[name])]
    if changed:
        said = f"{', '.join(changed)} must stay the same as in the thread"
        raise Refusal(said, error_code="thread_fingerprint_mismatch")

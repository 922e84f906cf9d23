"""An answer that takes more than one message of Claude's: one that paused, or that calls no tool although it must.

https://docs.anthropic.com/en/api/handling-stop-reasons
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.translate.accumulate import LATE_WARNINGS, shown_content
from app.translate.translation import ReplyContext
from app.translate.usage import summed

MOST_CONTINUATIONS = 5
PAUSES = ("pause_turn", "compaction")

Event = dict[str, Any]
Message = dict[str, Any]


@dataclass
class Parts:
    """The messages of one answer so far. `messages` are what was said after the conversation that `body` holds."""

    body: Mapping[str, Any]
    context: ReplyContext
    whole: list[Message] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def may_go_on(self, stop_reason: Any) -> bool:
        """Whether a message that ends so may have to be followed by another."""
        return stop_reason in PAUSES or (self.context.demand is not None and stop_reason == "end_turn")

    def add(self, message: Message) -> dict[str, Any] | None:
        """The body of the request that the answer goes on with, None where it is over."""
        self.whole.append(message)
        stop_reason = message.get("stop_reason")
        if not self.may_go_on(stop_reason) or _calls(self.whole):
            return None
        if stop_reason in PAUSES:
            if len(self.whole) <= MOST_CONTINUATIONS:
                return self._body()
            self.warnings.append("pause_turn")
        elif len(self.whole) == 1:
            return self._body({"role": "user", "content": [{"type": "text", "text": str(self.context.demand)}]})
        else:
            self.warnings.append("forced_tool_not_honoured")
        return None

    def _body(self, *more: dict[str, Any]) -> dict[str, Any]:
        said = [block for message in self.whole for block in shown_content(message.get("content") or ())]
        messages = list(self.body["messages"])
        if messages[-1]["role"] == "assistant":  # a prefill, which the answer continues
            said = [*messages.pop()["content"], *said]
        turn = [{"role": "assistant", "content": said}] if said else []
        return {**self.body, "messages": [*messages, *turn, *more]}

    def content(self) -> list[dict[str, Any]]:
        """The blocks of all parts so far, with what stands between two."""
        blocks: list[dict[str, Any]] = []
        for part in self.whole:
            blocks += [*part.get("content", ()), *(_joint(part) if part is not self.whole[-1] else ())]
        return blocks

    def joint(self) -> list[dict[str, Any]]:
        """What stands between the last part and the next."""
        return _joint(self.whole[-1])

    @property
    def is_one_turn(self) -> bool:
        """Whether it is what Claude said in one go, pauses apart."""
        return all(part.get("stop_reason") in PAUSES for part in self.whole[:-1])

    def merged(self) -> Message:
        """All parts as one message."""
        if len(self.whole) == 1 and not self.warnings:
            return self.whole[0]
        first, last = self.whole[0], self.whole[-1]
        ending = {name: last.get(name) for name in ("stop_reason", "stop_sequence", "stop_details")}
        usage = summed([part.get("usage") or {} for part in self.whole])
        return {**first, **ending, "content": self.content(), "usage": usage, LATE_WARNINGS: self.warnings}


def _joint(part: Message) -> list[dict[str, Any]]:
    """A demand interrupts the text, a pause does not."""
    interrupts = part.get("stop_reason") not in PAUSES and any(b["type"] == "text" for b in part.get("content", ()))
    return [{"type": "text", "text": "\n\n"}] if interrupts else []


def _calls(messages: Sequence[Message]) -> bool:
    return any(block["type"] == "tool_use" for message in messages for block in message.get("content") or ())

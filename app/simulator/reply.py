"""What a scenario is asked and what it answers: content blocks, and the events and the pace in which they come.

`@scenario("sim-…")` gives a function its name.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from app.simulator.events import PING, Block, Event, block_events, block_stop, message_end, message_start
from app.simulator.models import Model
from app.simulator.usage import PromptTokens


@dataclass(frozen=True, slots=True)
class Ask:
    """A valid request, and what the scenario may know beside it."""

    body: dict[str, Any]
    headers: dict[str, str]
    model: Model
    message_id: str
    prompt: PromptTokens
    account: str
    scenario: "Scenario | None" = None
    number: int | None = None
    params: dict[str, int] = field(default_factory=dict)

    def param(self, name: str, default: int) -> int:
        return self.params.get(name, default)

    def made_up_id(self, prefix: str, place: int) -> str:
        """An id that looks like the API's and is the same for the same message."""
        return prefix + hashlib.blake2b(f"{self.message_id}/{place}".encode(), digest_size=11).hexdigest()


@dataclass(frozen=True, slots=True)
class Ending:
    """How an answer breaks off: `kind` after `after` events (None: where the scenario itself stops).

    cut: TCP reset · eof: a clean end without message_stop · eof_inside: the same in the middle of the next event ·
    stall: silence · pings: nothing but pings · half_close: the write side is closed, the socket stays ·
    reset: TCP reset before any byte.
    """

    kind: str
    after: int | None = None


@dataclass(slots=True)
class Reply:
    """An answer with status 200, or with `raw` one of any status that is not in the API's format."""

    events: Iterable[Event] = ()
    ttft_ms: float = 0
    gap_ms: float = 0
    ending: Ending | None = None
    headers_delay_ms: float = 0
    torn: bool = False
    """Chunks are cut at awkward places: inside UTF-8 sequences and between CR and LF."""
    raw: tuple[int, str, bytes] | None = None
    """Status, content type and body of an answer from the edge."""
    headers: dict[str, str] = field(default_factory=dict)
    gzip: bool = False
    crlf: bool = False
    tight: bool = False
    """No blank behind `event:` and `data:`."""
    ping_ms: float = 0
    """How often a ping fills the time between two deltas; 0: never."""
    as_stream: bool | None = None
    """Whether it is a stream, whatever was asked for; None: as asked."""


Scenario = Callable[[Ask], Reply]
SCENARIOS: dict[str, Scenario] = {}


def scenario(name: str) -> Callable[[Scenario], Scenario]:
    def register(function: Scenario) -> Scenario:
        SCENARIOS[name] = function
        return function

    return register


# ---------------------------------------------------------------------------------------------- from blocks to events


def paced(ask: Ask, events: Iterable[Event], ending: Ending | None = None, gap_ms: int = 0) -> Reply:
    return Reply(events, ask.param("ttft_ms", 0), ask.param("gap_ms", gap_ms), ending)


def say(ask: Ask, *blocks: Block, stop_reason: str = "end_turn", **end: Any) -> Reply:
    """A reply of these content blocks at the pace that was asked for."""
    return paced(ask, message(ask, blocks, stop_reason, **end))


def message(ask: Ask, blocks: Iterable[Block], stop_reason: str | None, **end: Any) -> Iterator[Event]:
    """The whole event sequence of a message; obeys max_tokens (a delta is a token) and stop_sequences."""
    yield message_start(ask.message_id, ask.model.id, start_usage(ask))
    blocks, stop_reason, stop_sequence = _stopped(ask, list(blocks), stop_reason)
    left: int = ask.body["max_tokens"]
    thinking_tokens = 0
    for index, block in enumerate(blocks):
        hidden = block.get("_hidden_tokens", 0)
        shown = {key: value for key, value in block.items() if key != "_hidden_tokens"}
        thinking_tokens += hidden
        left -= hidden
        for event in block_events(index, shown):
            if is_token(event):
                if left <= 0:
                    yield block_stop(index)
                    yield from message_end("max_tokens", end_usage(ask, ask.body["max_tokens"] - left, thinking_tokens))
                    return
                left -= 1
                thinking_tokens += event["delta"]["type"] == "thinking_delta"
            yield event
            if index == 0 and event["type"] == "content_block_start":
                yield PING
    spent = ask.body["max_tokens"] - left
    yield from message_end(
        stop_reason, end_usage(ask, spent, thinking_tokens, **end), stop_sequence, _details(stop_reason)
    )


def is_token(event: Event) -> bool:
    if event["type"] != "content_block_delta":
        return False
    delta = event["delta"]
    return bool(delta.get("text") or delta.get("thinking") or delta.get("partial_json"))


def _details(stop_reason: str | None) -> dict[str, Any] | None:
    if stop_reason != "refusal":
        return None
    return {
        "type": "refusal",
        "category": "general_harms",
        "explanation": "This request was declined by the simulator, as the scenario demands.",
    }


def _stopped(ask: Ask, blocks: list[Block], stop_reason: str | None) -> tuple[list[Block], str | None, str | None]:
    """The blocks up to the first stop sequence in their text."""
    for place, block in enumerate(blocks):
        if block["type"] != "text":
            continue
        hits = [(at, stop) for stop in ask.body.get("stop_sequences") or () if (at := block["text"].find(stop)) >= 0]
        if hits:
            at, stop = min(hits)
            return [*blocks[:place], {**block, "text": block["text"][:at]}], "stop_sequence", stop
    return blocks, stop_reason, None


def start_usage(ask: Ask) -> dict[str, Any]:
    usage = {**ask.prompt.as_usage(), "cache_creation": ask.prompt.breakdown()}
    usage |= {"output_tokens": 1, "service_tier": "standard", "inference_geo": "not_available"}
    return usage | ({"speed": ask.body["speed"]} if ask.body.get("speed") else {})


def end_usage(ask: Ask, output_tokens: int, thinking_tokens: int = 0, **more: Any) -> dict[str, Any]:
    details = {"thinking_tokens": thinking_tokens}
    return {**ask.prompt.as_usage(), "output_tokens": max(1, output_tokens), "output_tokens_details": details, **more}


def text(value: str) -> Block:
    return {"type": "text", "text": value}


def numbered(count: int) -> Block:
    """Words that tell when one is lost or out of place."""
    return text(" ".join(f"w{number}" for number in range(count)))

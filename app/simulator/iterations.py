"""Scenarios of answers that took more than one model call: `usage.iterations` tells what each used.

The counts at the top are those of the model that answered; compaction, advice and what declined are not in them.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from app.simulator.events import Block, Event
from app.simulator.reply import Ask, Reply, message, numbered, paced, scenario, text
from app.simulator.signatures import Binding, sign

FALLBACK, ADVISOR = "claude-opus-4-8", "claude-opus-5-5"
"""Models that take part where the request names none."""
Usage = dict[str, Any]


def entry(kind: str, model: str | None, input_tokens: int, output_tokens: int) -> Usage:
    """One call that used no cache."""
    named = {"model": model} if model else {}
    return {"type": kind, **named, **_uncached(input_tokens), "output_tokens": output_tokens}


def _uncached(input_tokens: int) -> Usage:
    written = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}
    none = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "cache_creation": written}
    return {"input_tokens": input_tokens, **none}


def serving(ask: Ask, output_tokens: int, kind: str = "message") -> Usage:
    """The call whose prompt is the request's."""
    prompt = {**ask.prompt.as_usage(), "cache_creation": ask.prompt.breakdown()}
    return {"type": kind, "model": ask.model.id, **prompt, "output_tokens": output_tokens}


def told(events: Iterable[Event], end: Callable[[Usage], Usage], start: Usage | None = None) -> Iterator[Event]:
    """The events; their final usage has what `end` makes of it, the first one has `start` besides."""
    for event in events:
        if event["type"] == "message_delta":
            yield {**event, "usage": {**event["usage"], **end(event["usage"])}}
        elif event["type"] == "message_start" and start:
            message = event["message"]
            yield {**event, "message": {**message, "usage": {**message["usage"], **start}}}
        else:
            yield event


@scenario("sim-compaction")
def _compaction(ask: Ask) -> Reply:
    """What was said so far as a compaction block, then text. A recording shows that message_start has the input of the
    compaction."""
    summary = "The user asked for something, and it was done."
    signature = sign(summary, Binding("compaction"))
    block: Block = {"type": "compaction", "content": summary, "encrypted_content": None, "signature": signature}
    events = message(ask, [block, numbered(5)], "end_turn")
    compaction = entry("compaction", None, 60_385, 592)

    def end(usage: Usage) -> Usage:
        return {"iterations": [compaction, serving(ask, usage["output_tokens"])]}

    return paced(ask, told(events, end, {"input_tokens": compaction["input_tokens"]}))


@scenario("sim-fallback")
def _fallback(ask: Ask) -> Reply:
    """The model declines, and the first of `fallbacks` answers in its stead."""
    wanted = ask.body.get("fallbacks")
    model = wanted[0]["model"] if isinstance(wanted, list) and wanted else FALLBACK
    block: Block = {
        "type": "fallback",
        "from": {"model": ask.model.id},
        "to": {"model": model},
        "trigger": {"type": "refusal", "category": "cyber"},
    }
    declined = entry("message", ask.model.id, ask.prompt.total, 0)
    other = replace(ask, model=replace(ask.model, id=model))
    events = message(other, [block, numbered(5)], "end_turn")

    def end(usage: Usage) -> Usage:
        return {"iterations": [declined, serving(other, usage["output_tokens"], "fallback_message")]}

    return paced(ask, told(events, end))


@scenario("sim-advisor")
def _advisor(ask: Ask) -> Reply:
    """Asks the advisor of `tools`, then text: a second call of the model, whose input is added at the end."""
    advisors = [tool for tool in ask.body.get("tools") or () if str(tool.get("type")).startswith("advisor_")]
    model = advisors[0]["model"] if advisors else ADVISOR
    call = ask.made_up_id("srvtoolu_01", 80)
    blocks: list[Block] = [
        {"type": "server_tool_use", "id": call, "name": "advisor", "input": {}},
        {"type": "advisor_tool_result", "tool_use_id": call, "content": {"type": "advisor_result", "text": "Go on."}},
        text("I asked, and I was told to go on."),
    ]
    advice = entry("advisor_message", model, 823, 1612)

    def end(usage: Usage) -> Usage:
        second = entry("message", ask.model.id, ask.prompt.total + advice["output_tokens"], usage["output_tokens"] // 2)
        first = serving(ask, usage["output_tokens"] - second["output_tokens"])
        input_tokens = first["input_tokens"] + second["input_tokens"]
        return {"input_tokens": input_tokens, "iterations": [first, advice, second]}

    return paced(ask, told(message(ask, blocks, "end_turn"), end))

"""What is asked of the gateway, and what the simulator says to it: most of it innocent, some of it doomed by its model.

An innocent question may be refused only because of what happens to a connection; a doomed one can never be answered.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from soak.client import Choice, Manners, Seen

Body = dict[str, Any]


@dataclass(frozen=True)
class Says:
    """A whole choice, exactly."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    finish: str = "stop"

    def fault_of(self, choice: Choice, *, is_whole: bool) -> str | None:
        """What is wrong with what arrived; of an answer that was not to its end, with its beginning."""
        for name, said, came in (("text", self.text, choice.text), ("reasoning", self.reasoning, choice.reasoning)):
            if came != said and (is_whole or not said.startswith(came)):
                return f"{name} is wrong: {_difference(said, came)}"
        if not is_whole:
            return None
        calls = [(call["name"], orjson.loads(call["arguments"])) for _, call in sorted(choice.calls.items())]
        if calls != list(self.calls):
            return f"tool calls are wrong: {calls} instead of {list(self.calls)}"
        return None if choice.finish == self.finish else f"finish_reason {choice.finish!r} instead of {self.finish!r}"


def _difference(said: str, came: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(said, came, strict=False)) if a != b), min(len(said), len(came)))
    start = max(0, at - 20)
    return f"at {at} of {len(said)} came {came[start : at + 40]!r} instead of {said[start : at + 40]!r}"


@dataclass(frozen=True)
class Question:
    """`says` is the whole of each choice; of one that is doomed, what the text may at most begin with."""

    kind: str
    body: Body
    says: Says
    is_doomed: bool = False
    later_calls: bool = False
    """A stream of it makes further calls to the connection that it began on."""
    ttft_s: float | None = None
    """How long the simulator takes for the first text of a stream whose latency is worth knowing."""
    manners: Manners = field(default_factory=Manners)
    second_turn: Callable[[Seen], Question] | None = None

    @property
    def choices(self) -> int:
        return int(self.body.get("n") or 1)


def numbered(tokens: int) -> str:
    """What `sim-text:tokens=N` says."""
    return " ".join(f"w{number}" for number in range(tokens))


UNICODE = (
    "Gr\u00fc\u00dfe \U0001f600 \U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea 日本語 中文 한국어 "
    "\u2028 line \u2029 new \u0085 next \r\n crlf \t tab \x7f \uff46\uff55\uff4c\uff4c e\u0301 \U0001d54f done"
)
_PIXEL = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63f8ffffff7f0009fb03fd"
        "05432bca0000000049454e44ae426082"
    )
).decode()
_PIXEL_BYTES = len(base64.b64decode(_PIXEL))
_WEATHER: Body = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_ANSWER = "I have thought about it. The answer is 42."


class Mix:
    """Questions by chance, the same ones for the same seed. No answer lasts longer than about `longest_s`.

    Names of models are not many: what the gateway keeps for each is soon complete, and growth of memory after that is
    none of its.
    """

    def __init__(self, chance: random.Random, longest_s: float) -> None:
        self._chance = chance
        self._longest_s = longest_s

    def next(self) -> Question:
        """A question with the manners of whoever asks it."""
        makers = {**_INNOCENT, **_DOOMED}
        (make,) = self._chance.choices(list(makers), weights=list(makers.values()))
        question = make(self)
        if "stream" not in question.body:
            question.body["stream"] = self._chance.random() < 0.6
        if self._chance.random() < 0.7:
            question.body.setdefault("max_tokens", 4000)
        return replace(question, manners=self._manners(question))

    def _manners(self, question: Question) -> Manners:
        """One in eight leaves; of the others some keep their connection, and some read slowly."""
        chance = self._chance
        if question.manners != Manners():
            return question.manners
        drawn = chance.random()
        with_reset = chance.random() < 0.5
        if drawn < 0.015:
            return Manners(leaves_after_share_of_body=chance.random() * 0.99, leaves_with_reset=with_reset)
        if drawn < 0.075:
            return Manners(leaves_after_s=chance.expovariate(1.5), leaves_with_reset=with_reset)
        if drawn < 0.12:
            return Manners(leaves_after_pieces=chance.randrange(1, 40), leaves_with_reset=with_reset)
        if drawn < 0.17:
            return Manners(reads_bytes_per_s=chance.choice((20_000, 60_000)))
        return Manners(keeps_alive=drawn < 0.5)

    def _body(self, model: str, content: Any = None, **more: Any) -> Body:
        said = f"question {self._chance.randrange(1000)}" if content is None else content
        return {"model": model, "messages": [{"role": "user", "content": said}], **more}

    def _text_model(self) -> tuple[str, int, float]:
        tokens = self._chance.choice((1, 5, 12, 40, 80, 160))
        gap_ms = self._chance.choice((0, 0, 5, 20, 50))
        ttft_ms = self._chance.choice((0, 0, 100, 400))
        tokens = min(tokens, int(self._longest_s * 1000 / gap_ms)) if gap_ms else tokens
        return f"sim-text:tokens={tokens},gap_ms={gap_ms},ttft_ms={ttft_ms}", tokens, ttft_ms / 1000

    # ---------------------------------------------------------------------------------------------------- innocent

    def text(self) -> Question:
        model, tokens, ttft_s = self._text_model()
        gap_s = int(model.partition("gap_ms=")[2].partition(",")[0]) / 1000
        return Question("text", self._body(model), Says(numbered(tokens)), ttft_s=ttft_s + gap_s)

    def long_prompt(self) -> Question:
        prompt = f"{self._chance.randrange(1000)} " + "All work and no play. " * self._chance.randrange(500, 12_000)
        return Question("long prompt", self._body("sim-text:tokens=8", prompt), Says(numbered(8)))

    def two_choices(self) -> Question:
        model, tokens, _ = self._text_model()
        return Question("n=2", self._body(model, n=2), Says(numbered(tokens)), later_calls=True)

    def unicode(self) -> Question:
        return Question("unicode", self._body("sim-unicode"), Says(UNICODE))

    def unknown_events(self) -> Question:
        body = self._body("sim-unknown-events", stream=True)
        return Question("unknown events", body, Says("Known text."))

    def slow_headers(self) -> Question:
        delay_ms = self._chance.choice((200, 900, 1800))
        return Question("slow headers", self._body(f"sim-slow-headers:delay_ms={delay_ms}"), Says(numbered(20)))

    def limited(self) -> Question:
        return Question("max tokens", self._body("sim-max-tokens"), Says(numbered(20), finish="length"))

    def pauses(self) -> Question:
        said = "Let me look that up. Let me look again (2). And this is the rest of it."
        return Question("pauses", self._body("sim-pause-2"), Says(said), later_calls=True)

    def big(self) -> Question:
        tokens = self._chance.choice((500, 1500, 3000))
        said = " ".join(f"{number:040d}" for number in range(tokens))
        manners = Manners()
        if self._chance.random() < 0.5:
            manners = Manners(reads_bytes_per_s=int(300 * tokens / self._longest_s))
        return Question("big", self._body(f"sim-big:tokens={tokens}"), Says(said), manners=manners)

    def image(self) -> Question:
        seen = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_PIXEL}"}}
        asked = [{"type": "text", "text": "What is this?"}, *[seen] * self._chance.choice((1, 3))]
        count = len(asked) - 1
        listed = "; ".join([f"image image/png of {_PIXEL_BYTES} bytes"] * count)
        said = f"I saw {count} image(s) and 0 document(s): {listed}."
        return Question("image", self._body("sim-image", asked), Says(said))

    def tools(self) -> Question:
        body = self._body("sim-tool-use", tools=[_WEATHER])
        says = Says("I will use a tool.", calls=(("get_weather", {"city": "Paris"}),), finish="tool_calls")

        def results(seen: Seen) -> Question:
            choice = seen.choices[0]
            tool_calls = [
                {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}}
                for c in choice.calls.values()
            ]
            told = [
                {"role": "assistant", "content": choice.text, "tool_calls": tool_calls},
                *({"role": "tool", "tool_call_id": call["id"], "content": "18 degrees"} for call in tool_calls),
            ]
            later = {**body, "messages": [*body["messages"], *told]}
            return Question("tools, results", later, Says("get_weather answered: 18 degrees"))

        return Question("tools", body, says, second_turn=results)

    def thinking(self) -> Question:
        asked = f"question {self._chance.randrange(1000)}"
        body = self._body("sim-thinking", asked)
        returns_details = self._chance.random() < 0.5  # others are remembered by the gateway

        def goes_on(seen: Seen) -> Question:
            choice = seen.choices[0]
            answer: Body = {"role": "assistant", "content": choice.text}
            if returns_details:
                answer["reasoning_details"] = choice.details
            again = {"role": "user", "content": "Are you sure?"}
            later = {**body, "messages": [*body["messages"], answer, again]}
            return Question("thinking, again", later, _thoughtful("Are you sure?"))

        return Question("thinking", body, _thoughtful(asked), second_turn=goes_on)

    # ------------------------------------------------------------------------------------------------------ doomed

    def broken_off(self) -> Question:
        scenario = self._chance.choice(("sim-cut", "sim-eof", "sim-half-close", "sim-reset"))
        after = self._chance.choice((0, 1, 2, 3, 5, 10, 30, 59))
        return Question(scenario, self._body(f"{scenario}-{after}"), Says(numbered(60)), is_doomed=True)

    def garbage(self) -> Question:
        model = f"sim-garbage-{self._chance.choice((0, 1, 3, 8, 19))}"
        return Question("sim-garbage", self._body(model), Says(numbered(20)), is_doomed=True)

    def midstream(self) -> Question:
        model = f"sim-error-midstream-{self._chance.choice((1, 2, 5, 20, 49))}"
        return Question("sim-error-midstream", self._body(model), Says(numbered(60)), is_doomed=True)

    def refused(self) -> Question:
        names = ("400", "401", "402", "403", "404", "413", "429", "500", "504", "529", "spend-limit", "low-credit")
        name = self._chance.choice((*names, "prompt-too-long", "html-502"))
        return Question(f"sim-error-{name}", self._body(f"sim-error-{name}"), Says(), is_doomed=True)

    def senseless(self) -> Question:
        """Refused before anything goes upstream."""
        return Question("senseless", self._body("sim-text") | {"temperature": "warm"}, Says(), is_doomed=True)

    def silent(self) -> Question:
        """Whoever streams it learns after the idle time-out that it is silent; the others leave."""
        scenario = self._chance.choice(("sim-stall", "sim-stall-pings"))
        stream = self._chance.random() < 0.7
        manners = Manners(leaves_after_s=self._chance.uniform(0.1, self._longest_s))
        if stream and self._chance.random() < 0.5:
            manners = Manners(keeps_alive=True)
        after = self._chance.choice((3, 5, 11)) if stream else 0
        body = self._body(f"{scenario}-{after}", stream=stream)
        return Question(scenario, body, Says(numbered(60)), is_doomed=True, manners=manners)


def _thoughtful(asked: str) -> Says:
    return Says(_ANSWER, f"The user says: {asked} I should answer that briefly and to the point.")


_INNOCENT: dict[Callable[[Mix], Question], float] = {
    Mix.text: 40,
    Mix.long_prompt: 4,
    Mix.two_choices: 5,
    Mix.unicode: 6,
    Mix.unknown_events: 4,
    Mix.slow_headers: 3,
    Mix.limited: 2,
    Mix.pauses: 4,
    Mix.big: 3,
    Mix.image: 4,
    Mix.tools: 6,
    Mix.thinking: 6,
}
_DOOMED: dict[Callable[[Mix], Question], float] = {
    Mix.broken_off: 5,
    Mix.garbage: 2,
    Mix.midstream: 2,
    Mix.refused: 3,
    Mix.senseless: 2,
    Mix.silent: 2,
}

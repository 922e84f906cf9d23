"""Defects that other gateways had, by their number in section 7 of the specification: those that need real sockets.

The others are golden cases, whose folders carry the number.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest
import requests
from openai import OpenAI

from tests.conftest import CLIENT, CLIENT_KEY, Gateway, wait_for

OVERLOADED_MIDWAY = "sim-error-midstream:gap_ms=20"
"""Paced, so that its first words are on their way when the error comes: before them it would be a status."""
HI: list[Any] = [{"role": "user", "content": "hi"}]
KEY, LIMITED_KEY = "sk-ant-of-the-defects", "sk-ant-limited-of-the-defects"
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def running(module_gateway: Any, simulator: str) -> Gateway:
    started: Gateway = module_gateway(
        ENABLE_ANTHROPIC_API="true",
        ANTHROPIC_API_KEYS=f"{KEY},{LIMITED_KEY}",
        ANTHROPIC_API_BASE_URLS=simulator,
        ANTHROPIC_API_CONFIGS=orjson.dumps({"1": {"prefix_id": "limited"}}).decode(),
        WEB_CONCURRENCY="2",
    )
    return started


@pytest.fixture
def client(running: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{running.url}/v1", api_key=CLIENT_KEY, max_retries=0) as made:
        yield made


@pytest.fixture
def upstream(simulator: str) -> Upstream:
    requests.delete(f"{simulator}/_sim/requests", timeout=5)
    return Upstream(simulator)


class Upstream:
    """What the simulator received since the test began."""

    def __init__(self, url: str) -> None:
        self.url = url

    def requests(self, number: int) -> list[dict[str, Any]]:
        """So many requests for messages, once they are over."""

        def ended() -> Any:
            entries = requests.get(f"{self.url}/_sim/requests", timeout=5).json()["requests"]
            messages = [entry for entry in entries if entry["path"] == "/v1/messages"]
            return messages if len(messages) >= number and all(entry["ended"] for entry in messages) else None

        found: list[dict[str, Any]] = wait_for(ended, what=f"{number} requests")
        assert len(found) == number
        return found

    def fault(self, key: str, **fault: Any) -> None:
        order = {"key": key, "fault": fault, "times": 1}
        assert requests.post(f"{self.url}/_sim/faults", json=order, timeout=5).status_code == 200


def raw_stream(running: Gateway, **fields: Any) -> list[str]:
    """The data of each event of a stream, as a client without SDK sees it."""
    body = {"messages": HI, "stream": True, **fields}
    answer = running.post("/v1/chat/completions", body, headers=CLIENT)
    assert answer.status_code == 200, answer.text
    return [line.removeprefix("data: ") for line in answer.text.split("\n") if line.startswith("data: ")]


def is_unfinished(data: list[str]) -> bool:
    """Whether an error object is the last word, and neither a finish reason nor [DONE] calls the answer whole."""
    chunks = [orjson.loads(each) for each in data if each != "[DONE]"]
    finished = any(choice["finish_reason"] for chunk in chunks for choice in chunk.get("choices", ()))
    return "[DONE]" not in data and not finished and "error" in chunks[-1]


def test_d18_an_overloaded_error_after_some_text_is_an_error_to_the_sdk(running: Gateway, client: OpenAI) -> None:
    said = ""
    with pytest.raises(openai.APIError) as caught:
        for chunk in client.chat.completions.create(model=OVERLOADED_MIDWAY, messages=HI, stream=True):
            said += chunk.choices[0].delta.content or ""
    assert said == "w0 w1 w2 w3 w4"
    assert caught.value.code == "overloaded"
    assert is_unfinished(raw_stream(running, model=OVERLOADED_MIDWAY))


def test_d18_given_whole_it_is_a_503(client: OpenAI) -> None:
    for limit in (100, 64_000):  # asked for as JSON, and accumulated
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model=OVERLOADED_MIDWAY, messages=HI, max_tokens=limit)
        assert (caught.value.status_code, caught.value.code) == (503, "overloaded")


def test_d19_a_refusal_raises_nothing(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="sim-refusal", messages=HI).choices[0]
    assert whole.finish_reason == "content_filter"
    assert whole.message.refusal
    assert whole.message.content == whole.message.refusal
    chunks = list(client.chat.completions.create(model="sim-refusal", messages=HI, stream=True))
    for name in ("refusal", "content"):
        assert "".join(getattr(chunk.choices[0].delta, name) or "" for chunk in chunks) == whole.message.refusal
    assert chunks[-1].choices[0].finish_reason == "content_filter"


def answered_with_a_call(client: OpenAI, model: str) -> tuple[list[Any], Any]:
    """A conversation up to the call that the model answers with, and the message with it."""
    question: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    first = client.chat.completions.create(model=model, messages=question, tools=[WEATHER])
    assert first.choices[0].finish_reason == "tool_calls"
    return question, first.choices[0].message.to_dict()


def with_results(message: dict[str, Any]) -> list[Any]:
    return [{"role": "tool", "tool_call_id": call["id"], "content": "18 degrees"} for call in message["tool_calls"]]


def thinking_in(entry: dict[str, Any]) -> list[dict[str, Any]]:
    blocks = [block for message in entry["body"]["messages"] for block in message["content"]]
    return [block for block in blocks if block["type"] in ("thinking", "redacted_thinking")]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "said",
    [
        "messages.1.content.0: Invalid `signature` in `thinking` block",
        "messages.1.content.0: `thinking` block is bound to a different conversation",
    ],
)
def test_d21_thinking_that_is_refused_is_left_out_of_one_more_try(
    client: OpenAI, upstream: Upstream, said: str, stream: bool
) -> None:
    question, message = answered_with_a_call(client, "claude-opus-5-5")
    history = [*question, message, *with_results(message)]
    upstream.fault(KEY, status=400, message=said)
    answer: Any = client.chat.completions.create(
        model="claude-opus-5-5", messages=history, tools=[WEATHER], stream=stream
    )
    texts = [chunk.choices[0].delta.content for chunk in answer] if stream else [answer.choices[0].message.content]
    assert "18 degrees" in "".join(text or "" for text in texts)
    _, refused, repeated = upstream.requests(3)
    assert (refused["status"], repeated["status"]) == (400, 200)
    assert len(thinking_in(refused)) == 1
    assert thinking_in(repeated) == []


def test_d21_only_once(client: OpenAI, upstream: Upstream) -> None:
    question, message = answered_with_a_call(client, "claude-opus-5-5")
    order = {"key": KEY, "fault": {"status": 400, "message": "Invalid `signature` in `thinking` block"}, "times": 2}
    requests.post(f"{upstream.url}/_sim/faults", json=order, timeout=5)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(
            model="claude-opus-5-5", messages=[*question, message, *with_results(message)], tools=[WEATHER]
        )
    upstream.requests(3)


@pytest.mark.parametrize("stream", [False, True])
def test_d27_a_temperature_goes_through_the_sdk_of_version_2(client: OpenAI, upstream: Upstream, stream: bool) -> None:
    answer: Any = client.chat.completions.create(
        model="claude-haiku-4-5", messages=HI, temperature=0.3, stream=stream, max_tokens=5
    )
    assert list(answer) if stream else answer.choices
    (sent,) = upstream.requests(1)
    assert (sent["body"]["temperature"], sent["headers"]["anthropic-version"]) == (0.3, "2023-06-01")


def given(client: OpenAI, stream: bool, **fields: Any) -> dict[str, Any]:
    """The message of an answer, streamed or whole."""
    if not stream:
        whole: dict[str, Any] = client.chat.completions.create(**fields).choices[0].message.to_dict()
        return whole
    with client.chat.completions.stream(**fields) as events:
        return events.get_final_completion().choices[0].message.to_dict()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-sonnet-5-5", "claude-opus-5", "sim-interleaved"])
def test_d30_thinking_comes_back_from_the_store_for_a_client_that_drops_it(
    client: OpenAI, upstream: Upstream, model: str, stream: bool
) -> None:
    question: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    message = given(client, stream, model=model, messages=question, tools=[WEATHER])
    bare = {name: message[name] for name in ("role", "content", "tool_calls") if name in message}
    for call in bare["tool_calls"]:
        call.pop("index", None)
    second = given(client, stream, model=model, messages=[*question, bare, *with_results(message)], tools=[WEATHER])
    assert "18 degrees" in second["content"] or model == "sim-interleaved"
    _, sent = upstream.requests(2)
    shown = [(detail["text"], detail["signature"]) for detail in message["reasoning_details"]]
    assert [(block["thinking"], block["signature"]) for block in thinking_in(sent)] == shown
    kinds = [block["type"] for block in sent["body"]["messages"][1]["content"]]
    assert kinds[0] == "thinking"
    if model == "sim-interleaved":
        assert kinds == ["thinking", "text", "tool_use", "thinking", "tool_use"]


@pytest.mark.parametrize(
    "model",
    [pytest.param("sim-cut-8", id="d31_a_broken_connection"), pytest.param("sim-eof-8", id="d32_an_end_that_is_none")],
)
def test_d31_d32_what_is_cut_short_is_an_error_and_never_a_stop(running: Gateway, client: OpenAI, model: str) -> None:
    with pytest.raises(openai.APIError) as caught:
        list(client.chat.completions.create(model=model, messages=HI, stream=True))
    assert caught.value.code == "upstream_disconnected"
    assert is_unfinished(raw_stream(running, model=model))
    for limit in (100, 64_000):  # asked for as JSON, and accumulated
        with pytest.raises(openai.APIStatusError) as whole:
            client.chat.completions.create(model=model, messages=HI, max_tokens=limit)
        assert whole.value.status_code == 502
    assert "Traceback" not in running.log


def test_d34_a_long_answer_that_is_not_streamed_needs_no_time_out(client: OpenAI, upstream: Upstream) -> None:
    answer = client.chat.completions.create(model="sim-text", messages=HI, max_tokens=64_000)
    assert answer.choices[0].message.content
    (sent,) = upstream.requests(1)
    assert (sent["body"]["max_tokens"], sent["body"]["stream"]) == (64_000, True)


def test_d35_a_retry_after_of_a_day_is_told_at_once(client: OpenAI, upstream: Upstream) -> None:
    upstream.fault(LIMITED_KEY, status=429, retry_after=86_400)
    started = time.monotonic()
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="limited.sim-text", messages=HI)
    assert time.monotonic() - started < 5
    assert caught.value.response.headers["retry-after"] == "86400"
    assert caught.value.response.headers["retry-after-ms"] == "86400000"
    upstream.requests(1)


def test_d36_an_error_event_is_known_by_its_type_and_not_by_the_status_of_its_stream(running: Gateway) -> None:
    error = orjson.loads(raw_stream(running, model=OVERLOADED_MIDWAY)[-1])["error"]
    assert (error["type"], error["code"], error["param"]) == ("server_error", "overloaded", None)
    assert error["message"]


def test_d38_a_stop_string_of_white_space_ends_the_answer_and_the_call_upstream(
    client: OpenAI, upstream: Upstream
) -> None:
    question: list[Any] = [{"role": "user", "content": "one\n\ntwo"}]
    chunks = list(client.chat.completions.create(model="claude-opus-5", messages=question, stop="\n\n", stream=True))
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == "You said: “one"
    assert chunks[-1].choices[0].finish_reason == "stop"
    (sent,) = upstream.requests(1)
    assert "stop_sequences" not in sent["body"]
    assert sent["ended"] == "aborted by client"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("limit", [100, 64_000])
def test_d40_pauses_are_one_seamless_answer(client: OpenAI, upstream: Upstream, stream: bool, limit: int) -> None:
    fields: dict[str, Any] = {"model": "sim-pause-2", "messages": HI, "max_tokens": limit}
    if stream:
        chunks = list(
            client.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True}),
        )
        assert len({chunk.id for chunk in chunks}) == 1
        assert [chunk.choices[0].delta.role for chunk in chunks[:-1]].count("assistant") == 1
        reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
        assert [reason for reason in reasons if reason] == ["stop"]
        said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        usage = chunks[-1].usage
    else:
        whole = client.chat.completions.create(**fields)
        assert whole.choices[0].finish_reason == "stop"
        assert whole.choices[0].message.tool_calls is None
        said, usage = str(whole.choices[0].message.content), whole.usage
    assert said == "Let me look that up. Let me look again (2). And this is the rest of it."
    sent = upstream.requests(3)
    assert [entry["body"]["messages"][-1]["role"] for entry in sent] == ["user", "assistant", "assistant"]
    assert [len(entry["body"]["messages"]) for entry in sent] == [1, 2, 2]
    assert usage is not None
    assert usage.to_dict()["server_tool_use"] == {"web_search_requests": 2, "web_fetch_requests": 0}


def test_every_defect_is_tested() -> None:
    here = Path(__file__)
    folders = [path.name for kind in ("request", "answer") for path in (here.parent / kind).iterdir()]
    names = [*folders, *re.findall(r"^def test_(\w+)", here.read_text(encoding="utf-8"), re.MULTILINE)]
    tested = {int(number) for name in names for number in re.findall(r"(?:^|_)d(\d\d)(?=_)", name)}
    assert tested >= set(range(1, 41)), sorted(set(range(1, 41)) - tested)

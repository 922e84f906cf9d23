"""Anthropic's SDK for Python."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, beta_tool

from tests.clients.conftest import THREADED, MessagesDoor, replayed_thinking

QUESTION = "What is the weather in Paris?"
ASKED: list[Any] = [{"role": "user", "content": QUESTION}]
THOUGHT = f"The user says: {QUESTION} I should answer that briefly and to the point."
WORDS = " ".join(f"w{number}" for number in range(20))


@beta_tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"18 degrees in {city}"


WEATHER: Any = get_weather.to_dict()


@pytest.fixture
def client(messages_door: MessagesDoor) -> Iterator[Anthropic]:
    with Anthropic(base_url=messages_door.url, api_key=messages_door.key, max_retries=0) as made:
        yield made


def whole(client: Anthropic, **asked: Any) -> Any:
    return client.messages.create(**asked)


def streamed(client: Anthropic, **asked: Any) -> Any:
    with client.messages.stream(**asked) as stream:
        return stream.get_final_message()


EITHER_WAY = pytest.mark.parametrize("ask", [whole, streamed])


@EITHER_WAY
def test_an_answer_has_text_reason_and_usage(client: Anthropic, ask: Any) -> None:
    answer = ask(client, model="sim-text:tokens=20", max_tokens=100, messages=ASKED)
    assert [block.text for block in answer.content] == [WORDS]
    assert (answer.stop_reason, answer.usage.output_tokens) == ("end_turn", 20)
    assert answer.usage.input_tokens > 0
    assert answer.id.startswith("msg_")


def test_a_stream_arrives_piece_by_piece(client: Anthropic) -> None:
    with client.messages.stream(model="sim-text:tokens=20", max_tokens=100, messages=ASKED) as stream:
        pieces = list(stream.text_stream)
    assert len(pieces) == 20
    assert "".join(pieces) == WORDS


@EITHER_WAY
def test_thinking_is_signed_and_taken_back(client: Anthropic, messages_door: MessagesDoor, ask: Any) -> None:
    asked = {"model": "claude-opus-5-5", "max_tokens": 500, "thinking": {"type": "adaptive", "display": "summarized"}}
    answer = ask(client, messages=ASKED, tools=[WEATHER], **asked)
    assert [block.type for block in answer.content] == ["thinking", "tool_use"]
    assert answer.content[0].thinking == THOUGHT
    result = {"type": "tool_result", "tool_use_id": answer.content[-1].id, "content": "18 degrees"}
    history = [*ASKED, {"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    assert "18 degrees" in ask(client, messages=history, tools=[WEATHER], **asked).content[-1].text
    *_, last = messages_door.messages()
    assert len(replayed_thinking(last["body"])) == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("thread", [pytest.param(False, id="whole history"), THREADED])
def test_the_sdk_runs_tools_until_the_answer_is_there(
    client: Anthropic, messages_door: MessagesDoor, stream: bool, thread: Any
) -> None:
    options: dict[str, Any] = {} if thread is None else {"thread": thread}
    is_threaded = thread is None and messages_door.keeps_threads
    runner = client.beta.messages.tool_runner(
        model="claude-opus-5-5", max_tokens=500, messages=ASKED, tools=[get_weather], stream=stream, **options
    )
    answer: Any = runner.until_done()
    assert "18 degrees in Paris" in answer.content[-1].text
    first, second = (entry["body"] for entry in messages_door.messages())
    assert first.get("thread") == ({"type": "create"} if is_threaded else None)
    assert len(second["messages"]) == (1 if is_threaded else 3)


def test_tokens_are_counted(client: Anthropic) -> None:
    few = client.messages.count_tokens(model="claude-opus-5-5", messages=ASKED).input_tokens
    more = client.messages.count_tokens(
        model="claude-opus-5-5", messages=ASKED, system="Be brief.", tools=[WEATHER]
    ).input_tokens
    assert 0 < few < more


def test_models_are_listed_page_by_page(client: Anthropic) -> None:
    pages = [[model.id for model in page.data] for page in client.models.list(limit=5).iter_pages()]
    ids = [model for page in pages for model in page]
    assert len(ids) == len(set(ids)) > 10
    assert {len(page) for page in pages[:-1]} == {5}
    assert "claude-opus-5-5" in ids
    assert client.models.retrieve("claude-opus-5-5").max_input_tokens == 1_000_000


@pytest.mark.parametrize(
    ("model", "kind", "status", "error_type"),
    [
        ("sim-error-400", anthropic.BadRequestError, 400, "invalid_request_error"),
        ("sim-error-429", anthropic.RateLimitError, 429, "rate_limit_error"),
        ("sim-error-529", anthropic.InternalServerError, 529, "overloaded_error"),
        ("claude-of-nobody", anthropic.NotFoundError, 404, "not_found_error"),
    ],
)
@EITHER_WAY
def test_errors_have_their_class_status_and_type(
    client: Anthropic, ask: Any, model: str, kind: type[anthropic.APIStatusError], status: int, error_type: str
) -> None:
    with pytest.raises(kind) as caught:
        ask(client, model=model, max_tokens=100, messages=ASKED)
    assert (caught.value.status_code, caught.value.type) == (status, error_type)
    assert caught.value.request_id


def test_a_key_that_is_not_known_is_an_authentication_error(client: Anthropic) -> None:
    with pytest.raises(anthropic.AuthenticationError):
        whole(client.with_options(api_key="not-a-key"), model="sim-text", max_tokens=100, messages=ASKED)


def test_a_key_may_be_a_bearer_token(messages_door: MessagesDoor) -> None:
    with Anthropic(base_url=messages_door.url, auth_token=messages_door.key, api_key=None) as client:
        assert whole(client, model="sim-text:tokens=1", max_tokens=100, messages=ASKED).content[0].text == "w0"


def test_an_answer_that_breaks_off_is_an_error(client: Anthropic, messages_door: MessagesDoor) -> None:
    model = f"{messages_door.paced}sim-error-midstream-6:gap_ms=20"
    with client.messages.stream(model=model, max_tokens=100, messages=ASKED) as stream:
        pieces: list[str] = []
        with pytest.raises(anthropic.APIStatusError) as caught:
            pieces.extend(stream.text_stream)
    assert "".join(pieces).startswith("w0 w1")
    assert caught.value.type == "overloaded_error"


def test_overload_is_asked_again(client: Anthropic, messages_door: MessagesDoor) -> None:
    messages_door.fail_next(2, status=529)
    patient = client.with_options(max_retries=2)
    assert whole(patient, model="sim-text:tokens=1", max_tokens=100, messages=ASKED).content[0].text == "w0"
    assert [entry["status"] for entry in messages_door.messages()] == [529, 529, 200]

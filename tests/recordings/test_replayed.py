"""Every recorded answer of Claude's once more, from the simulator through a real gateway to OpenAI's SDK.

What must come out is worked out in `recorded`, from the specification and not by our code.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import openai
import pytest
from jsonschema import Draft202012Validator
from openai import OpenAI

from tests.conftest import CLIENT_KEY, Gateway
from tests.recordings.recorded import (
    FOLDER,
    SCHEMAS,
    Answer,
    Recording,
    Seen,
    expected,
    in_chunks,
    in_completion,
    of_json,
    of_stream,
    recordings,
)

pytestmark = pytest.mark.skipif(not FOLDER.exists() or not SCHEMAS.exists(), reason=f"nothing in {FOLDER.parent}")

CITED_DOCUMENT: Any = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Green."}}
QUESTION: list[Any] = [
    {"role": "user", "content": [{**CITED_DOCUMENT, "citations": {"enabled": True}}, {"type": "text", "text": "hi"}]}
]
"""A document whose citations are wanted: only then may an answer cite one."""
SHORT, LONG = 1_000, 64_000
"""Limits of an answer that is asked for as JSON, and of one that the gateway has streamed in any case."""
THREADS = 16
ALL, LEFT_OUT = recordings() if FOLDER.exists() else ([], {})
ERRORS = [each for each in ALL if each.kind == "error"]


@pytest.fixture(scope="module")
def running(module_gateway: Any, replaying: str) -> Gateway:
    # An error puts its connection out of use for a while, so each has one of its own.
    prefixes = {str(n + 1): {"prefix_id": f"error{n}"} for n in range(len(ERRORS))}
    started: Gateway = module_gateway(
        ENABLE_ANTHROPIC_API="true",
        ANTHROPIC_API_KEYS=",".join(f"sk-ant-replay-{n}" for n in range(len(ERRORS) + 1)),
        ANTHROPIC_API_BASE_URLS=replaying,
        ANTHROPIC_API_CONFIGS=json.dumps(prefixes),
        WEB_CONCURRENCY="2",
    )
    return started


@pytest.fixture(scope="module")
def client(running: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{running.url}/v1", api_key=CLIENT_KEY, max_retries=0, timeout=60) as made:
        yield made


# ------------------------------------------------------------------------------------------------- OpenAI's schema

_checking = threading.Lock()


@cache
def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8")))


@cache
def problems_of(name: str, text: str) -> list[str]:
    found = validator(name).iter_errors(json.loads(text))
    return [f"{list(error.absolute_path)}: {error.message[:200]}" for error in found]


FREE_TEXTS = frozenset({"content", "reasoning_content", "arguments", "text", "signature", "data", "cited_text", "url"})
"""Fields whose text the schema leaves free: values that differ in nothing else need to be checked only once."""


def shape_of(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: shape_of(item, name) for name, item in value.items()}
    if isinstance(value, list):
        # Citations of documents are an extension for clients that ask for it: OpenAI's schema has none.
        return [shape_of(item) for item in value if not _is_document_citation(item)]
    return "" if key in FREE_TEXTS and isinstance(value, str) else value


def _is_document_citation(item: Any) -> bool:
    return isinstance(item, dict) and item.get("type") == "document_citation"


def check_schema(name: str, value: dict[str, Any]) -> None:
    text = json.dumps(shape_of(value), sort_keys=True)
    with _checking:
        found = problems_of(name, text)
    assert not found, found


# ------------------------------------------------------------------------------------------------ through the gateway


def whole(client: OpenAI, recording: Recording, limit: int) -> Seen:
    answer = client.chat.completions.create(
        model=f"sim-replay:{recording.name}", messages=QUESTION, max_tokens=limit
    ).to_dict()
    check_schema("CreateChatCompletionResponse", answer)
    return in_completion(answer)


def streamed(client: OpenAI, recording: Recording) -> Seen:
    stream = client.chat.completions.create(
        model=f"sim-replay:{recording.name}",
        messages=QUESTION,
        max_tokens=SHORT,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk.to_dict() for chunk in stream]
    for chunk in chunks:
        check_schema("CreateChatCompletionStreamResponse", chunk)
    return in_chunks(chunks)


def difference(seen: Seen, wanted: Seen) -> str:
    pairs = [(name, getattr(seen, name), value) for name, value in vars(wanted).items()]
    return "; ".join(f"{name}: {got!r:.300} instead of {value!r:.300}" for name, got, value in pairs if got != value)


def check_stream(client: OpenAI, recording: Recording) -> None:
    """Streamed, and accumulated by the gateway."""
    answer: Answer = of_stream(recording.body)
    wanted = expected(answer)
    seen, accumulated = streamed(client, recording), whole(client, recording, LONG)
    assert seen == wanted, difference(seen, wanted)
    assert accumulated == wanted, difference(accumulated, wanted)


def check_json(client: OpenAI, recording: Recording) -> None:
    wanted = expected(of_json(recording.body))
    seen = whole(client, recording, SHORT)
    # What the model wrote is not known here, only what it means.
    seen.calls, wanted.calls = (
        [(id_, name, json.loads(arguments)) for id_, name, arguments in each.calls] for each in (seen, wanted)
    )
    assert seen == wanted, difference(seen, wanted)


def replayed(kind: str, check: Callable[[OpenAI, Recording], None], client: OpenAI, capsys: Any) -> int:
    """How many recordings of a kind there are. All of them are tried before the test fails."""
    chosen = [each for each in ALL if each.kind == kind]

    def attempt(recording: Recording) -> str | None:
        try:
            check(client, recording)
        except (AssertionError, openai.OpenAIError, KeyError, ValueError, TypeError) as error:
            return f"{recording.name}: {type(error).__name__}: {str(error)[:1500]}"
        return None

    with ThreadPoolExecutor(THREADS) as threads:
        failures = [failure for failure in threads.map(attempt, chosen) if failure]
    with capsys.disabled():
        sys.stdout.write(f"\n{kind}: {len(chosen)} replayed, {len(chosen) - len(failures)} passed")
    assert not failures, "\n".join(failures)
    return len(chosen)


def test_recorded_streams_arrive_streamed_and_whole(client: OpenAI, running: Gateway, capsys: Any) -> None:
    assert replayed("stream", check_stream, client, capsys) > 100
    assert "Traceback" not in running.log


def test_recorded_json_answers_arrive_whole(client: OpenAI, running: Gateway, capsys: Any) -> None:
    assert replayed("json", check_json, client, capsys) > 300
    assert "Traceback" not in running.log


def test_recorded_errors_arrive_as_openai_has_them(client: OpenAI, capsys: Any) -> None:
    def check_error(client: OpenAI, recording: Recording) -> None:
        for stream in (False, True):
            with pytest.raises(openai.APIStatusError) as caught:
                client.chat.completions.create(
                    model=f"error{ERRORS.index(recording)}.sim-replay:{recording.name}",
                    messages=QUESTION,
                    max_tokens=SHORT,
                    stream=stream,
                )
            error: Any = caught.value
            assert (error.status_code, error.type, error.code, error.param) == error_of(recording), stream
            if not stream:  # the second time a connection may be out of use, and the gateway answers by itself
                assert missing_headers(recording, error.response.headers) == []

    assert replayed("error", check_error, client, capsys) > 10


def missing_headers(recording: Recording, headers: Any) -> list[str]:
    """What translation.md 4.4 passes on and did not arrive."""
    passed = ("request-id", "x-should-retry", "anthropic-ratelimit-")
    told = {name: value for name, value in recording.headers.items() if name.startswith(passed)}
    if "request-id" in told:
        told["x-request-id"] = told["request-id"]
    return [name for name, value in told.items() if headers.get(name) != value]


def error_of(recording: Recording) -> tuple[int, str, str | None, str | None]:
    """(status, type, code, param) by translation.md 4.2."""
    error = recording.body["error"]
    match error["type"]:
        case "not_found_error":
            return 404, "invalid_request_error", "model_not_found", "model"
        case "authentication_error":
            return 503, "server_error", "upstream_authentication_failed", None
        case "rate_limit_error":
            return 429, "rate_limit_error", "rate_limit_exceeded", None
        case "invalid_request_error" if "prompt is too long" in error["message"]:
            return 400, "invalid_request_error", "context_length_exceeded", None
        case "invalid_request_error":
            return 400, "invalid_request_error", None, "messages[0]"
    raise AssertionError(f"no rule for {error}")


def test_what_is_left_out_is_named(capsys: Any) -> None:
    with capsys.disabled():
        sys.stdout.write("".join(f"\nleft out: {name}: {why}" for name, why in LEFT_OUT.items()))
    assert len(ALL) + len(LEFT_OUT) == len(list(FOLDER.glob("*.json")))
    assert Counter(why.partition(":")[0] for why in LEFT_OUT.values()) == {
        "made by hand, no real traffic": 14,
        "no message": 6,
    }

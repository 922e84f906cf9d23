"""What recorded answers leave in the books: the same whole, in pieces, and as much of it as came."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
import pytest
from flask import Flask
from sqlalchemy import text

from app.blueprints import chat_stream
from app.blueprints.answer_stream import COMMENT
from app.storage import database
from app.upstream import pool
from app.upstream.limits import KEEP_ALIVE_S
from tests.conftest import CLIENT, AppMaker, Gateway, wait_for
from tests.recordings.recorded import FOLDER, Recording, events_of, expected, of_json, of_stream, recordings
from tests.storage.test_books_processes import rows

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason=f"no recordings in {FOLDER}")
ALL = recordings()[0] if FOLDER.exists() else []
COLUMNS = (
    *("key_id", "route", "model_asked", "model", "connection", "attempts", "status", "ending"),
    *("input_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "cache_read_tokens"),
    *("output_tokens", "thinking_tokens", "searches", "cost_micros", "saved_micros", "cost_state", "price_version"),
    *("tier", "speed", "geo", "upstream_ids", "warnings", "parts"),
)
"""All but the id, the times, and whether it was streamed."""
THREADS = 16
CITED: Any = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Green."}}
QUESTION = [
    {"role": "user", "content": [{**CITED, "citations": {"enabled": True}}, {"type": "text", "text": "hi"}]},
]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def variables(request: pytest.FixtureRequest, replaying: str) -> dict[str, str]:
    made = {
        "ENABLE_ANTHROPIC_API": "true",
        "ANTHROPIC_API_KEYS": "sk-ant-replay",
        "ANTHROPIC_API_BASE_URLS": replaying,
        "WEB_CONCURRENCY": "2",
    }
    if request.param == "postgresql":
        made["DATABASE_URL"] = request.getfixturevalue("postgresql").new_database()
        made["SECRET_KEY"] = "a secret key of the tests alone"
    return made


@pytest.fixture(scope="module")
def running(module_gateway: Any, variables: dict[str, str]) -> Gateway:
    started: Gateway = module_gateway(**variables)
    return started


def test_a_recorded_answer_is_the_same_row_whole_and_streamed(running: Gateway, variables: dict[str, str]) -> None:
    """Of one that was recorded as JSON both rows are of JSON, from two workers perhaps."""
    answers = [recording for recording in ALL if recording.kind != "error"]
    assert len(answers) > 450

    def both(recording: Recording) -> tuple[str, str]:
        asked = {"model": f"sim-replay:{recording.name}", "messages": QUESTION}
        # A limit of so many is asked for as a stream, whatever the client wants.
        whole = {**asked, "max_tokens": 64_000 if recording.is_stream else 1_000}
        other = {**asked, "stream": True} if recording.is_stream else whole
        ids = []
        for body in (whole, other):
            answer = running.post("/v1/chat/completions", body, headers=CLIENT)
            assert answer.status_code == 200, f"{recording.name}: {answer.text}"
            ids.append(answer.headers["x-gateway-request-id"])
        return ids[0], ids[1]

    with ThreadPoolExecutor(THREADS) as threads:
        pairs = list(threads.map(both, answers))

    def booked() -> dict[str, tuple[Any, ...]]:
        found = rows(running, variables, f"SELECT id, {', '.join(COLUMNS)} FROM requests")
        return {id: tuple(row) for id, *row in found}

    wait_for(lambda: len(booked()) == 2 * len(answers), what="all of them are entered")
    by_id = booked()
    differ = [r.name for r, (one, other) in zip(answers, pairs, strict=True) if by_id[one] != by_id[other]]
    assert differ == []
    wrong = []
    for recording, (id, _) in zip(answers, pairs, strict=True):
        row = dict(zip(COLUMNS, by_id[id], strict=True))
        wanted = used(recording)
        if wanted is not None and not wanted.items() <= row.items():
            wrong.append((recording.name, wanted, row))
    assert wrong == []


def used(recording: Recording, *, goes_on: bool = True) -> dict[str, int] | None:
    """By what was recorded; None where it is the sum of what several models did, and not told as one. Where it
    `goes_on` what paused is asked for again, and answered alike."""
    answer = of_stream(recording.body) if recording.is_stream else of_json(recording.body)
    usage = answer.usage
    if usage.get("iterations"):
        return None
    times = expected(answer).usage["completion"] // max(usage["output_tokens"], 1) if goes_on else 1
    written = usage.get("cache_creation_input_tokens") or 0
    long = (usage.get("cache_creation") or {}).get("ephemeral_1h_input_tokens") or 0
    counts = {
        "input_tokens": usage["input_tokens"],
        "cache_write_5m_tokens": written - long,
        "cache_write_1h_tokens": long,
        "cache_read_tokens": usage.get("cache_read_input_tokens") or 0,
        "output_tokens": usage["output_tokens"],
        "searches": (usage.get("server_tool_use") or {}).get("web_search_requests") or 0,
    }
    return {name: times * count for name, count in counts.items()}


# ------------------------------------------------------------------------------------------------ as much of it as came

BROKEN_OFF = (
    "llm.test_tools.0.json",
    "llm.test_opus_46_adaptive_thinking.0.json",
    "pydantic.anthropic_text_parts_ahead_of_built_in_tool_call.1.json",
)
"""With two tool calls; with thinking and text; with a web search and its citations."""


class Upstream:
    """Answers with the first so many events of a recording. Then it cuts, or nothing comes any more but pings."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.cuts = False
        self.is_over = threading.Event()
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(200)
                self.send_header("content-type", "text/event-stream; charset=utf-8")
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                self._send(b"".join(map(_sse, upstream.events)))
                ping = _sse({"type": "ping"})
                while not upstream.cuts and not upstream.is_over.wait(0.02):
                    self._send(ping)
                self.close_connection = True

            def _send(self, data: bytes) -> None:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                self.send_error(404)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"


def _sse(event: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event))


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    made = Upstream()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.05,))
    thread.start()
    yield made
    made.is_over.set()
    made.server.shutdown()
    made.server.server_close()
    thread.join(10)


@pytest.fixture
def app(make_app: AppMaker, upstream: Upstream) -> Flask:
    runtime = {
        "ENABLE_ANTHROPIC_API": "true",
        "ANTHROPIC_API_KEYS": "sk-ant-of-these-tests",
        "ANTHROPIC_API_BASE_URLS": upstream.url,
    }
    return make_app(runtime=runtime)


@pytest.mark.parametrize("name", BROKEN_OFF)
def test_a_client_that_leaves_after_any_event_pays_for_what_came_until_then(
    app: Flask, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(chat_stream, "A_MOMENT_S", KEEP_ALIVE_S)  # each ping is a sign of life at once
    events = recorded_events(name)
    for count in range(1, len(events)):
        upstream.events = events[:count]
        upstream.is_over.clear()
        answer = ask(app, stream=True)
        frames = answer.iter_encoded()
        while next(frames) != COMMENT:  # then all before the ping was read
            pass
        answer.close()
        upstream.is_over.set()
        check(app, answer, "client_gone", 200, events[:count])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", BROKEN_OFF)
def test_an_answer_that_is_cut_after_any_event_costs_what_came_until_then(
    app: Flask, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, name: str, stream: bool
) -> None:
    """As JSON it is asked for once more, and both are charged."""
    monkeypatch.setattr(pool, "SECOND_ATTEMPT_AFTER_S", (0, 0))
    events = recorded_events(name)
    upstream.cuts = True
    for count in range(1, len(events)):
        upstream.events = events[:count]
        answer = ask(app, stream=stream)
        told = answer.text
        answer.close()
        assert "error" in told and "[DONE]" not in told
        check(app, answer, "upstream_cut", 200 if stream else 502, events[:count], attempts=1 if stream else 2)


def recorded_events(name: str) -> list[dict[str, Any]]:
    (recording,) = (each for each in ALL if each.name == name)
    return events_of(recording.body)


def ask(app: Flask, *, stream: bool) -> Any:
    asked = {"model": "claude-opus-4-6", "messages": QUESTION, "stream": stream, "max_tokens": 64_000}
    return app.test_client().post("/v1/chat/completions", json=asked, headers=CLIENT)


def check(app: Flask, answer: Any, ending: str, status: int, came: list[dict[str, Any]], attempts: int = 1) -> None:
    """Its row, and no other of the same request."""
    id = answer.headers["x-gateway-request-id"]
    query = text("SELECT * FROM requests WHERE id = :id")
    (row,) = database.read(app, lambda session: session.execute(query, {"id": id}).mappings().all())
    usages = [event["message"]["usage"] for event in came if event["type"] == "message_start"]
    usages += [event["usage"] for event in came if event["type"] == "message_delta"]
    is_counted = any(event["type"] == "message_delta" for event in came)
    written = math.ceil(sum(map(bytes_of, came)) / 3.5)
    output = usages[-1]["output_tokens"] if is_counted else max(usages[-1]["output_tokens"], written)
    prompt: Mapping[str, Any] = {name: count for usage in usages for name, count in usage.items() if count is not None}
    wanted = {
        "ending": ending,
        "status": status,
        "cost_state": "exact" if is_counted else "estimated",
        "attempts": attempts,
        "input_tokens": attempts * prompt["input_tokens"],
        "cache_read_tokens": attempts * prompt["cache_read_input_tokens"],
        "output_tokens": attempts * output,
    }
    assert wanted.items() <= dict(row).items(), (len(came), wanted, dict(row))
    assert row["cost_micros"] > 0


def bytes_of(event: Mapping[str, Any]) -> int:
    """Of what it brings to text, thinking, arguments and quotations."""
    told = {**event.get("delta", {}), **event.get("content_block", {})}
    texts = [told[name] for name in ("text", "thinking", "partial_json") if isinstance(told.get(name), str)]
    texts += [told["citation"]["cited_text"]] if "citation" in told else []
    return sum(len(text.encode()) for text in texts)

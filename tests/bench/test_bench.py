"""The benchmark's own tools: an answer that is not whole must not count as one. No gateway and no peer is started."""

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from bench import alternating
from bench.__main__ import Tally
from bench.load import Load, Result, Run, fault_of, run
from bench.peers import HERE, Command, Process, Unavailable, answers, free_port
from bench.report import report, table
from bench.upstream import Behaviour, Upstream, word
from tests.traffic import run as to_the_end

FRAMES = [
    'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n',
    *(
        f'data: {{"choices":[{{"index":0,"delta":{{"content":"{word(number, 4)}"}},"finish_reason":null}}]}}\n\n'
        for number in range(4)
    ),
    'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
    "data: [DONE]\n\n",
]
HEAD = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


def load_on(handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], **options: Any) -> Result:
    """What a load makes of a server that answers as `handler` does."""

    async def both() -> Result:
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await run(Load(f"http://127.0.0.1:{port}/v1/chat/completions", **{"requests": 1, **options}))

    return to_the_end(both())


def load_on_answer(answer: str, **options: Any) -> Result:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (head := await reader.readline()).startswith(b"POST"):
            length = 0
            while head.strip():
                if head.lower().startswith(b"content-length:"):
                    length = int(head.split(b":")[1])
                head = await reader.readline()
            await reader.readexactly(length)
            writer.write(answer.encode())
            if "connection: close" in answer:
                break
        writer.close()

    return load_on(handler, **options)


def chunked(frames: list[str]) -> str:
    chunks = "".join(f"{len(frame):x}\r\n{frame}\r\n" for frame in frames)
    return f"{HEAD}transfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"


def load_on_upstream(behaviour: Behaviour, **options: Any) -> Result:
    async def both() -> Result:
        async with await Upstream(behaviour).listen(0) as server:
            port = server.sockets[0].getsockname()[1]
            return await run(Load(f"http://127.0.0.1:{port}/v1/messages", anthropic=True, **options))

    return to_the_end(both())


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("behaviour", [Behaviour(60), Behaviour(20, 0.02, 0.01), Behaviour(1), Behaviour(60, 0.05)])
def test_load_and_upstream_agree(stream, behaviour):
    result = load_on_upstream(behaviour, stream=stream, connections=5, requests=20)
    assert (result.complete, result.failures) == (20, {})
    assert len(result.ttft_s) == (20 if stream else 0)
    assert len(result.gap_s) == (20 * (behaviour.events - 1) if stream else 0)
    assert min(result.total_s) >= behaviour.ttft_s


def test_the_pace_of_a_stream_is_seen():
    summary = load_on_upstream(Behaviour(10, 0.1, 0.05), requests=1).summary()
    assert summary["ttft_ms"]["p50"] == pytest.approx(100, abs=40)
    assert summary["gap_ms"]["p50"] == pytest.approx(50, abs=20)


def test_a_load_of_seconds_ends():
    result = load_on_upstream(Behaviour(1), stream=False, seconds=0.1)
    assert result.complete > 1
    assert result.seconds < 1


def test_a_whole_stream_is_counted_and_its_connection_used_again():
    result = load_on_answer(chunked(FRAMES), requests=3)
    assert (result.complete, result.failures) == (3, {})


def test_the_end_of_the_connection_may_be_the_end_of_the_answer():
    result = load_on_answer(f"{HEAD}connection: close\r\n\r\n{''.join(FRAMES)}", requests=3)
    assert (result.complete, result.failures) == (3, {})


def test_frames_may_be_cut_anywhere_and_end_in_crlf():
    text = "".join(FRAMES).replace("\n", "\r\n")
    for size in (1, 2, 3, 50):
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        assert load_on_answer(chunked(pieces)).failures == {}, size


@pytest.mark.parametrize(
    ("frames", "fault"),
    [
        (FRAMES[:2] + FRAMES[3:], "text not whole"),
        (FRAMES[:4] + FRAMES[5:], "text not whole"),
        (FRAMES[:2] + FRAMES[1:], "text not whole"),
        ([FRAMES[0], FRAMES[2], FRAMES[1], *FRAMES[3:]], "text out of order"),
        (FRAMES[:1] + FRAMES[5:], "no numbered words in the text"),
        (FRAMES[:5] + FRAMES[6:], "no finish_reason"),
        (FRAMES[:6], "no [DONE]"),
        ([*FRAMES, FRAMES[1]], "something after [DONE]"),
        ([*FRAMES[:3], 'data: {"error":{"message":"overloaded"}}\n\n'], "error in the stream"),
        ([*FRAMES[:3], "data: {\n\n"], "not understood"),
    ],
)
def test_a_stream_that_is_not_whole_is_a_failure(frames, fault):
    result = load_on_answer(chunked(frames))
    assert result.complete == 0
    assert [each.startswith(fault) for each in result.failures] == [True], result.failures


@pytest.mark.parametrize(
    ("answer", "stream", "fault"),
    [
        (f"{HEAD}transfer-encoding: chunked\r\nconnection: close\r\n\r\n5\r\ndata:", True, "cut short"),
        ("HTTP/1.1 429 Too Many\r\ncontent-length: 4\r\n\r\nslow", True, "http 429 slow"),
        ('HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{"choices":[]', False, "not understood"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 99\r\nconnection: close\r\n\r\n{}", False, "cut short"),
    ],
)
def test_any_other_answer_is_a_failure(answer, stream, fault):
    result = load_on_answer(answer, stream=stream)
    assert result.complete == 0
    assert [each.startswith(fault) for each in result.failures] == [True], result.failures


def test_silence_is_a_failure():
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    assert load_on(handler, timeout_s=0.1).failures == {"timed out": 1}


def test_what_is_open_is_known():
    async def watch() -> tuple[int, int]:
        async with await Upstream(Behaviour(4, 0.1, 0.1)).listen(0) as server:
            port = server.sockets[0].getsockname()[1]
            held = Run(Load(f"http://127.0.0.1:{port}/v1/messages", connections=7, requests=7, anthropic=True))
            running = asyncio.create_task(held.finish())
            await asyncio.sleep(0.2)
            opened = held.open
            await running
            return opened, held.open

    assert to_the_end(watch()) == (7, 0)


def test_numbered_words_tell_what_is_missing():
    assert fault_of("0/2 1/2 ") is None
    assert fault_of("0/2 ") == "text not whole"
    assert fault_of("1/2 0/2 ") == "text out of order"
    assert fault_of("") == fault_of("Hello") == "no numbered words in the text"


def test_failures_of_all_rounds_reach_the_results():
    tally = Tally()
    for _ in range(2):
        tally.count(Result(total_s=[0.1, 0.2], failures=Counter({"timed out": 3})))
        tally.add(cpu_ms=1.23456, added_p50_ms=None)
    assert orjson.loads(orjson.dumps(tally.results())) == {
        "figures": {"cpu_ms": [1.235, 1.235], "added_p50_ms": [None, None]},
        "complete": 4,
        "failures": {"timed out": 6},
    }


def test_what_a_process_takes_is_measured_and_its_end_is_noticed(tmp_path):
    port = free_port()
    command = Command([sys.executable, "-m", "bench.upstream", str(port)], {}, HERE.parent)
    process = Process(command, port, "/v1/models", tmp_path / "log")
    try:
        assert 0 < process.started_in_s < 30
        assert process.pss_mb() > 1
        assert process.cpu_s() > 0
        process.post("/behaviour", orjson.dumps(Behaviour(events=3)))
        assert len(to_the_end(run(Load(f"{process.url}/v1/messages", requests=1, anthropic=True))).gap_s) == 2
    finally:
        process.stop()
    assert not answers(port, "/v1/models")
    with pytest.raises(Unavailable, match="ended by itself"):
        Process(replace(command, arguments=[*command.arguments[:3], "x"]), port, "/", tmp_path / "log")
    with pytest.raises(Unavailable, match="No such file"):
        Process(replace(command, arguments=["/no/such/program"]), port, "/", tmp_path / "log")


def test_the_table_shows_medians_ranges_failures_and_who_was_left_out():
    fast = {"figures": {"cpu_ms": [2.0, 1.5, 4.0], "requests_per_s": [400]}, "complete": 300, "failures": {}}
    half = {"figures": {"cpu_ms": [3.0, None]}, "complete": 5, "failures": {"no [DONE]": 3, "http 500 ": 2}}
    dead = {"figures": {"cpu_ms": [None]}, "complete": 0, "failures": {"timed out": 9}}
    results = {
        "conditions": {"date": "2026-01-02", "cores": 2},
        "peers": {
            "one": {"title": "One", "version": "1.0", "scenarios": {"json": fast, "burst": half, "paced": dead}},
            "two": {"title": "Two", "version": "2.0", "unavailable": "npm is missing"},
        },
    }
    lines = table(results).splitlines()
    assert lines[:2] == ["|  | One 1.0 |", "| --- | ---: |"]
    assert "| JSON request: CPU, ms | 2.00 (1.50-4.00) |" in lines
    assert "| JSON requests/s, 8 connections | 400 |" in lines
    assert "| 60-event stream arriving at once: CPU, ms | 3.00, **5 of 10 failed** |" in lines
    assert "| paced stream: CPU per event, ms | all 9 failed |" in lines
    assert "| exec to first answer, s | not measured |" in lines
    whole = report(results)
    assert "Two was left out: npm is missing" in whole
    assert "One, burst: 3 times: no [DONE]" in whole
    assert whole.endswith("date: 2026-01-02; cores: 2")


def test_two_checkouts_are_compared_start_by_start():
    """Starts differ, each for as long as it lives: how far they lie apart is told."""
    told = alternating.told([(1.1, 1.0), (2.2, 2.0), (1.2, 1.2)])
    assert told == (
        "CPU per request, ms: here 1.500, there 1.400; here - there +0.100 (+0.000, +0.100, +0.200), here / there 1.071"
    )


def test_a_slice_in_which_the_machine_did_something_else_does_not_count():
    assert alternating.of_one_start([(1.0, 1.1), (1.2, 9.0), (7.0, 1.3)]) == (1.2, 1.3)

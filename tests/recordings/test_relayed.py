"""Recorded answers through the relay: the same bytes as without the gateway, and what they used is in the books."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.conftest import CLIENT, wait_for
from tests.recordings.recorded import FOLDER, Recording, recordings
from tests.recordings.test_booked import THREADS, used
from tests.storage.test_books_processes import rows

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason=f"no recordings in {FOLDER}")
ALL = recordings()[0] if FOLDER.exists() else []
COUNTED = (
    *("input_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "cache_read_tokens"),
    *("output_tokens", "searches"),
)


def test_every_recorded_answer_is_the_same_bytes_and_is_booked_as_it_was_counted(
    module_gateway: Any, replaying: str
) -> None:
    variables = {
        "ENABLE_ANTHROPIC_API": "true",
        "ANTHROPIC_API_KEYS": "sk-ant-replay",
        "ANTHROPIC_API_BASE_URLS": replaying,
        "WEB_CONCURRENCY": "2",
    }
    running = module_gateway(**variables)

    def ask(recording: Recording) -> tuple[requests.Response, requests.Response]:
        body = {
            "model": f"sim-replay:{recording.name}",
            "max_tokens": 100,
            "messages": [{"role": "user", "content": "hi"}],
            "stream": recording.is_stream,
        }
        version = {"anthropic-version": "2023-06-01"}
        mine = requests.post(f"{running.url}/v1/messages", json=body, headers={**CLIENT, **version}, timeout=60)
        direct = {"x-api-key": "sk-ant-replay", **version}
        theirs = requests.post(f"{replaying}/v1/messages", json=body, headers=direct, timeout=60)
        return mine, theirs

    answers = [recording for recording in ALL if recording.kind != "error"]
    assert len(answers) > 450
    with ThreadPoolExecutor(THREADS) as threads:
        pairs = list(threads.map(ask, answers))
    differ = [
        recording.name
        for recording, (mine, theirs) in zip(answers, pairs, strict=True)
        if (mine.status_code, mine.content) != (theirs.status_code, theirs.content)
    ]
    assert differ == []

    def booked() -> dict[str, Any]:
        found = rows(running, variables, f"SELECT id, cost_state, {', '.join(COUNTED)} FROM requests")
        return {id: rest for id, *rest in found}

    wait_for(lambda: len(booked()) == len(answers), what="all of them are entered")
    by_id, wrong = booked(), []
    for recording, (mine, _) in zip(answers, pairs, strict=True):
        state, *counts = by_id[mine.headers["x-gateway-request-id"]]
        told, wanted = dict(zip(COUNTED, counts, strict=True)), used(recording, goes_on=False)
        if wanted is not None and not told.items() <= wanted.items():
            wrong.append((recording.name, state, wanted, told))
    assert wrong == []

    # Errors one after the other: an account without credit, or a limit, takes the connection out for a while.
    for recording in [each for each in ALL if each.status == 400]:
        mine, theirs = ask(recording)
        assert (mine.status_code, mine.content) == (theirs.status_code, theirs.content), recording.name

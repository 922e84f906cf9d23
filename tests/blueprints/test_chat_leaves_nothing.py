"""What a request was made of is gone when it is answered, without the collector, whose work holds everybody up."""

from __future__ import annotations

import collections
import gc
from typing import Any

import pytest

from tests.conftest import CLIENT, AppMaker

OF_A_REQUEST = (
    *("ChatRequest", "Booking", "Dispatch", "Answer", "Reply", "MessageAccumulator", "ChatStream", "Task"),
    *("Translation", "Choices", "StreamTranslator"),
)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model", "n"), [("sim-text", 1), ("sim-text", 2), ("sim-pause", 1), ("sim-error-529", 1)])
def test_no_circle_keeps_what_was_answered(
    make_app: AppMaker, simulator: str, stream: bool, model: str, n: int
) -> None:
    app = make_app(
        runtime={
            "ENABLE_ANTHROPIC_API": "true",
            "ANTHROPIC_API_KEYS": "sk-ant-of-these-tests",
            "ANTHROPIC_API_BASE_URLS": simulator,
        }
    )
    client = app.test_client()

    def ask() -> None:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream, "n": n}
        answer: Any = client.post("/v1/chat/completions", json=body, headers=CLIENT)
        answer.get_data()
        answer.close()

    ask()
    gc.collect()
    before = alive()  # of other tests, too
    gc.disable()
    try:
        for _ in range(10):
            ask()
        after = alive()
    finally:
        gc.enable()
    # The last may still be held, and it may be of two.
    assert {name: after[name] - before[name] for name in OF_A_REQUEST if after[name] > before[name] + 3} == {}


def alive() -> collections.Counter[str]:
    return collections.Counter(type(each).__name__ for each in gc.get_objects())

"""Several answers side by side: one that fails fails all, whatever it raises, and nobody waits for ever."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import gevent
import pytest

from app.errors import UpstreamError
from app.upstream.answer import Answer
from app.upstream.choices import Choices

CUT = UpstreamError("cut", status=502, type="server_error", code="upstream_disconnected")


class ReadyAnswer:
    def __init__(self, *batches: Any) -> None:
        self.closed = 0
        self._batches = batches

    def batches(self) -> Iterator[list[dict[str, Any]]]:
        for batch in self._batches:
            if isinstance(batch, Exception):
                raise batch
            yield batch

    def close(self) -> None:
        self.closed += 1


class EndlessAnswer(ReadyAnswer):
    def batches(self) -> Iterator[list[dict[str, Any]]]:
        yield [{"type": "ping"}]
        gevent.sleep(3600)


def choices_of(*answers: ReadyAnswer) -> Choices:
    return Choices([cast(Answer, answer) for answer in answers])


def test_all_batches_come_each_with_its_answer() -> None:
    events = [[{"type": "ping", "n": n}] for n in range(50)]
    seen: dict[int, list[Any]] = {0: [], 1: [], 2: []}
    for index, batch in choices_of(*[ReadyAnswer(*events) for _ in range(3)]).batches():
        seen[index].append(batch)
    assert all(batches == events for batches in seen.values())


@pytest.mark.parametrize("error", [CUT, ValueError("odd")], ids=["upstream", "unforeseen"])
def test_what_one_of_them_raises_is_raised(error: Exception) -> None:
    endless = EndlessAnswer()
    choices = choices_of(endless, ReadyAnswer([{"type": "ping"}], error))
    with gevent.Timeout(10), pytest.raises(type(error)):
        for _ in choices.batches():
            pass
    choices.close()
    assert endless.closed == 1


def test_closing_ends_those_that_are_still_read() -> None:
    answers = [EndlessAnswer(), EndlessAnswer()]
    choices = choices_of(*answers)
    next(choices.batches())
    choices.close()
    assert [answer.closed for answer in answers] == [1, 1]


def test_one_answer_is_read_without_a_detour() -> None:
    answer = ReadyAnswer([{"type": "ping"}])
    choices = choices_of(answer)
    assert list(choices.batches()) == [(0, [{"type": "ping"}])]
    choices.close()
    assert answer.closed == 1

"""Several answers to one request (`n`), side by side over one connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import gevent
from gevent.queue import Queue

from app.errors import GatewayError
from app.translate.continuation import Event
from app.upstream.answer import Answer, AnswerRequest, TranslatedRequest
from app.upstream.pool import Plan, Pool, Times
from app.upstream.waiting import spawn

T = TypeVar("T")
_BATCHES_AHEAD = 16


def open_answers(
    pool: Pool, request: TranslatedRequest, plan: Plan, *, n: int, stream: bool, times: Times
) -> list[Answer]:
    """`n` answers, whole ones without `stream`. Raises UpstreamError.

    The first goes ahead until it begins: it finds the connection that answers, and the others read the prompt from the
    cache that it filled.
    """
    if n == 1:
        one = AnswerRequest(request, stream, not stream, times.ends_at)
        return [pool.open(one, plan, stream=stream, times=times)]
    first = pool.open(AnswerRequest(request, True, False, times.ends_at), plan, stream=True, times=times)
    answers = [first]

    elsewhere = [connection for connection in plan.connections if connection.id != first.connection.id]
    again = Plan([first.connection, *elsewhere], plan.left_out)

    def one_more() -> None:
        another = AnswerRequest(request, True, not stream, times.ends_at)
        answers.append(pool.open(another, again, stream=True, times=times))

    def the_first() -> None:
        if not stream:
            first.complete()

    try:
        _at_once([the_first, *[one_more] * (n - 1)])
    except BaseException:
        close(answers)
        raise
    if not stream:
        close(answers)
    return answers


def _at_once(tasks: Sequence[Callable[[], None]]) -> None:
    """Returns when all have; raises what the first of them raises, when the others have been stopped."""
    errors: list[GatewayError] = []

    def run(task: Callable[[], None]) -> None:
        try:
            task()
        except GatewayError as error:
            errors.append(error)
            gevent.killall([other for other in greenlets if other is not gevent.getcurrent()], block=False)

    greenlets: list[Any] = []
    greenlets += [spawn(run, task) for task in tasks]
    try:
        gevent.joinall(greenlets, raise_error=True)
    finally:
        gevent.killall(greenlets)
    try:
        if errors:
            raise errors[0]
    finally:
        errors.clear()  # else they and this frame hold each other


def close(answers: Sequence[Answer]) -> None:
    for answer in answers:
        answer.close()


class Choices:
    """The batches of all answers in the order in which they arrive, each with the index of its answer."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self._answers = answers
        self._greenlets: list[Any] = []

    def batches(self) -> Iterator[tuple[int, list[Event]]]:
        """Raises what the first of the answers to fail raised."""
        if len(self._answers) == 1:
            for batch in self._answers[0].batches():
                yield 0, batch
            return
        queue: Any = Queue(_BATCHES_AHEAD)
        self._greenlets = [spawn(self._pump, index, queue) for index in range(len(self._answers))]
        running = len(self._greenlets)
        while running:
            index, batch = queue.get()
            if batch is None:
                running -= 1
            elif isinstance(batch, Exception):
                raise batch
            else:
                yield index, batch

    def _pump(self, index: int, queue: Any) -> None:
        try:
            for batch in self._answers[index].batches():
                queue.put((index, batch))
        except Exception as error:  # noqa: BLE001  # raised again by batches(), which waits for it
            queue.put((index, error))
        else:
            queue.put((index, None))
        finally:
            self._answers[index].close()

    def close(self) -> None:
        """Each answer is closed by whoever reads it: a read that is under way cannot be closed from outside."""
        if self._greenlets:
            with suppress(gevent.GreenletExit, gevent.Timeout):
                gevent.killall(self._greenlets, timeout=1.0)
            return
        close(self._answers)

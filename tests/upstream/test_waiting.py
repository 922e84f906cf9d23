"""Waits that end early: the function is stopped, and what it opened is closed."""

from __future__ import annotations

import functools
import gc
import weakref
from contextlib import suppress

import gevent
import pytest
from gevent.event import Event

from app.upstream.waiting import ClientGone, ClientWatch, Task

NOBODY = ClientWatch({})


def test_a_result_is_waited_for_in_parts() -> None:
    may_end = Event()
    task = Task(lambda: may_end.wait() and "done", discard=lambda _: None)
    with pytest.raises(TimeoutError):
        task.result(NOBODY, 0.01)
    may_end.set()
    assert task.result(NOBODY, None) == "done"


def test_an_error_goes_to_whoever_waits() -> None:
    def fail() -> str:
        raise LookupError("no")

    with pytest.raises(LookupError):
        Task(fail, discard=lambda _: None).result(NOBODY, None)


def test_a_wait_that_is_given_up_stops_the_function() -> None:
    ended: list[str] = []

    def wait_for_ever() -> str:
        try:
            Event().wait()
        finally:
            ended.append("ended")
        return "never"

    task = Task(wait_for_ever, discard=lambda _: None)
    waiter = gevent.spawn(task.result, NOBODY, None)
    gevent.idle()
    waiter.kill(ClientGone())
    gevent.idle()
    assert ended == ["ended"]


def test_a_result_that_nobody_takes_any_more_is_discarded() -> None:
    discarded: list[str] = []
    task = Task(lambda: "opened", discard=discarded.append)
    gevent.idle()
    task.cancel()
    assert discarded == ["opened"]


def test_a_result_that_comes_in_spite_of_the_stop_is_discarded() -> None:
    discarded: list[str] = []

    def stubborn() -> str:
        with suppress(gevent.GreenletExit):
            Event().wait()
        return "opened"

    task = Task(stubborn, discard=discarded.append)
    gevent.idle()
    task.cancel()
    gevent.idle()
    assert discarded == ["opened"]


def test_an_error_that_was_told_keeps_nothing_alive() -> None:
    class Body:
        pass

    def fail(body: Body) -> None:
        raise KeyError(str(body))

    body = Body()
    is_there = weakref.ref(body)
    gc.disable()
    try:
        with pytest.raises(KeyError):
            Task(functools.partial(fail, body), discard=lambda _: None).result(NOBODY, None)
        del body
        gevent.sleep(0)
        assert is_there() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("when", ["before it fails", "when it has failed", "and it is stopped"])
def test_a_task_that_is_given_up_keeps_nothing(when: str) -> None:
    class Request:
        pass

    def begin() -> tuple[Task[None], weakref.ref[Request], Event]:
        request, may_fail = Request(), Event()

        def fail() -> None:
            assert isinstance(request, Request)
            if when == "when it has failed":
                raise LookupError("no")
            with suppress(gevent.GreenletExit if when == "before it fails" else LookupError):
                may_fail.wait()
            raise LookupError("no")

        return Task(fail, discard=lambda _: None), weakref.ref(request), may_fail

    gc.disable()
    try:
        task, request, _ = begin()
        gevent.idle()
        task.cancel()
        gevent.idle()
        del task
        assert request() is None
    finally:
        gc.enable()

"""A turn that is given reaches those who wait."""

from __future__ import annotations

from itertools import pairwise

import gevent
import pytest
from gevent.event import Event
from gevent.socket import socketpair, wait_read

from app import turns


@pytest.fixture(autouse=True)
def everyone_has_worked_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "EVERY_S", 0.0)


def test_in_each_turn_whoever_has_something_to_read_reads_it() -> None:
    ours, theirs = socketpair()
    read: list[bytes] = []

    def reader() -> None:
        while data := theirs.recv(1):
            read.append(data)

    reading = gevent.spawn(reader)
    turns.give_turn()
    for n in range(1, 9):
        ours.send(b"x")
        turns.give_turn()
        assert len(read) == n
    ours.close()
    reading.join(timeout=10)
    theirs.close()


def test_of_several_that_work_one_goes_on_between_two_looks_at_what_has_arrived() -> None:
    ours, theirs = socketpair()
    log: list[str] = []

    def reader() -> None:
        while True:
            wait_read(theirs.fileno())
            theirs.recv(1)
            log.append("read")
            ours.send(b"x")

    def worker(name: str) -> None:
        for _ in range(5):
            turns.give_turn()
            log.append(name)

    reading = gevent.spawn(reader)
    ours.send(b"x")
    working = [gevent.spawn(worker, name) for name in ("one", "two", "three")]
    gevent.joinall(working, timeout=10)
    reading.kill()
    ours.close()
    theirs.close()
    steps = [step for step in log if step != "read"]
    assert sorted(steps) == sorted(["one", "two", "three"] * 5)
    assert all("read" in pair for pair in pairwise(log)), log


def test_who_reads_does_not_queue_up_behind_all_that_work() -> None:
    ours, theirs = socketpair()
    was_read = Event()
    log: list[str] = []

    def stream() -> None:
        while theirs.recv(1):
            turns.give_turn()
            log.append("read")
            was_read.set()

    def upstream() -> None:
        while was_read.wait():
            was_read.clear()
            ours.send(b"x")

    def worker() -> None:
        for _ in range(10):
            turns.give_turn()
            log.append("worked")

    working = [gevent.spawn(worker) for _ in range(8)]
    gevent.sleep(0)
    was_read.set()
    streaming = [gevent.spawn(stream), gevent.spawn(upstream)]
    gevent.joinall(working, timeout=10)
    gevent.killall(streaming)
    ours.close()
    theirs.close()
    assert log.count("worked") == 80
    once_it_reads = "".join("." if step == "read" else "w" for step in log[log.index("read") :])
    assert max(map(len, once_it_reads.split("."))) <= 2, once_it_reads


class Clock:
    """Time passes when somebody works."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(turns, "EVERY_S", 0.01)
    monkeypatch.setattr(turns, "_last", 0.0)
    monkeypatch.setattr(turns, "monotonic", clock)
    return clock


def test_of_many_that_come_in_one_round_each_works_in_a_round_of_its_own(clock: Clock) -> None:
    ours, theirs = socketpair()
    log: list[str] = []

    def reader() -> None:
        while True:
            wait_read(theirs.fileno())
            log.append("read")

    def newcomer(name: str) -> None:
        turns.give_turn()
        log.append(name)
        clock.now += 0.02
        turns.give_turn()

    reading = gevent.spawn(reader)
    ours.send(b"x")
    gevent.joinall([gevent.spawn(newcomer, name) for name in ("one", "two", "three", "four")], timeout=10)
    reading.kill()
    ours.close()
    theirs.close()
    assert sorted(step for step in log if step != "read") == ["four", "one", "three", "two"]
    assert all("read" in pair for pair in pairwise(log)), log


def test_a_small_request_does_not_queue_up_behind_large_ones_that_came_before() -> None:
    log: list[str] = []

    def large() -> None:
        for _ in range(5):
            turns.give_turn(is_large=True)
            log.append("large")

    def small() -> None:
        turns.give_turn()
        log.append("small")

    gevent.joinall([*(gevent.spawn(large) for _ in range(8)), gevent.spawn(small)], timeout=10)
    assert len(log) == 41
    assert log.index("small") <= 1


def test_what_turns_out_to_be_large_does_not_work_in_the_turn_of_the_small_ones(clock: Clock) -> None:
    log: list[str] = []

    def large() -> None:
        turns.give_turn()  # nobody knows yet
        turns.give_turn(is_large=True)
        log.append("large")

    def small() -> None:
        turns.give_turn()
        log.append("small")

    gevent.joinall([*(gevent.spawn(large) for _ in range(4)), gevent.spawn(small)], timeout=10)
    assert log == ["small", *["large"] * 4]


def test_who_is_stopped_while_waiting_for_a_turn_takes_none_from_the_others() -> None:
    done: list[str] = []

    def worker(name: str) -> None:
        turns.give_turn()
        done.append(name)

    first, second, third = (gevent.spawn(worker, name) for name in ("first", "second", "third"))
    gevent.sleep(0)  # all three wait now
    second.kill()
    gevent.joinall([first, third], timeout=10)
    assert done == ["first", "third"]

"""A worker looks for circles when there is little to look through, and not in the middle of a large request."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import gevent
import pytest
from gevent.event import Event

from app.serve import garbage


class Circle:
    def __init__(self) -> None:
        self.itself = self


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(garbage, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def nobody_else_collects() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


def circle() -> weakref.ref[Circle]:
    return weakref.ref(Circle())


def old_circle() -> weakref.ref[Circle]:
    made = Circle()
    gc.collect()
    return weakref.ref(made)


def test_circles_of_young_objects_are_found_soon(clock: Clock) -> None:
    collect, young = garbage.Collecting(lambda: False), circle()
    clock.now += 0.2
    collect()
    assert young() is None


def test_those_that_grew_old_are_found_within_half_a_minute(clock: Clock) -> None:
    collect, old = garbage.Collecting(lambda: False), old_circle()
    clock.now += 29
    collect()
    assert old() is not None
    clock.now += 2
    collect()
    assert old() is None


def test_what_a_large_request_is_made_of_is_not_looked_through(clock: Clock) -> None:
    collect, young = garbage.Collecting(lambda: False), circle()
    large = [[n] for n in range(200_000)]
    for _ in range(100):
        clock.now += 0.2
        collect()
    assert young() is not None
    del large
    clock.now += 0.2
    collect()
    assert young() is None


def test_what_is_held_for_long_does_not_keep_others_from_being_looked_through(clock: Clock) -> None:
    collect, young = garbage.Collecting(lambda: False), circle()
    held = [[n] for n in range(80_000)]
    clock.now += 29
    collect()
    assert young() is not None
    clock.now += 2
    collect()
    assert young() is None
    later = circle()
    clock.now += 0.2
    collect()
    assert later() is None
    assert len(held) == 80_000


def test_many_that_are_held_are_not_counted_one_by_one(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    collect = garbage.Collecting(lambda: False)
    large = [[n] for n in range(200_000)]
    monkeypatch.setattr(gc, "get_objects", None)
    clock.now += 100
    collect()
    assert len(large) == 200_000


def test_while_no_answer_is_under_way_there_may_be_many(clock: Clock) -> None:
    is_idle = False
    collect, young = garbage.Collecting(lambda: is_idle), circle()
    held = [[n] for n in range(200_000)]
    clock.now += 100
    collect()
    assert young() is not None
    is_idle = True
    collect()
    assert young() is None
    assert len(held) == 200_000


def test_before_all_memory_is_used_up_the_others_have_to_wait(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    collect, young = garbage.Collecting(lambda: False), circle()
    held = [[n] for n in range(200_000)]
    clock.now += 100
    collect()
    assert young() is not None
    monkeypatch.setattr(garbage, "_TOO_MANY_BLOCKS", 100_000)
    collect()
    assert young() is None
    assert len(held) == 200_000


def test_what_has_come_to_stay_is_not_looked_through_again(clock: Clock) -> None:
    collect = garbage.Collecting(lambda: False)
    before = gc.get_freeze_count()
    kept = [[n] for n in range(40_000)]
    clock.now += 31
    collect()
    assert gc.get_freeze_count() > before + len(kept)


def test_a_worker_collects_by_itself_alone() -> None:
    gc.enable()
    was_found = Event()
    watching = garbage.watch(lambda: False)
    try:
        gevent.sleep(0)
        assert not gc.isenabled()
        made = Circle()
        weakref.finalize(made, was_found.set)
        del made
        assert was_found.wait(10)
    finally:
        watching.kill()
    assert gc.isenabled()

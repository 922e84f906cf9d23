"""Circles among old objects are looked for in quiet moments, and not in the middle of a large request."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.serve import garbage

ROOT = Path(__file__).resolve().parents[2]


class Circle:
    def __init__(self) -> None:
        self.itself = self


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    thread_time = staticmethod(time.thread_time)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(garbage, "time", clock)
    return clock


@pytest.fixture
def circle() -> Iterator[weakref.ref[Circle]]:
    """Of something old, which only a full collection looks at; and none comes by itself."""
    made = Circle()
    gc.collect()
    gc.disable()
    found = weakref.ref(made)
    del made
    yield found
    gc.enable()


def test_what_a_large_request_is_made_of_is_not_looked_through_while_it_is_worked_on() -> None:
    code = (
        "import gc\n"
        "from app.serve import garbage\n"
        "garbage.begin()\n"
        "before = gc.get_stats()\n"
        "kept = [[n] for n in range(1_000_000)]\n"
        "after = gc.get_stats()\n"
        "assert after[1]['collections'] > before[1]['collections']\n"
        "assert after[2]['collections'] == before[2]['collections']\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_circles_that_grew_old_are_found_in_a_quiet_moment(clock: Clock, circle: weakref.ref[Circle]) -> None:
    collect = garbage.Collecting()
    clock.now += 29
    collect()
    assert circle() is not None
    clock.now += 2
    collect()
    assert circle() is None


def test_a_moment_in_which_much_is_held_is_let_pass_but_not_for_ever(clock: Clock, circle: weakref.ref[Circle]) -> None:
    collect = garbage.Collecting()
    kept = [[n] for n in range(200_000)]
    for _ in range(19):
        clock.now += 31
        collect()
        assert circle() is not None
    clock.now += 31
    collect()
    assert circle() is None
    assert len(kept) == 200_000


def test_what_has_come_to_stay_is_not_looked_through_again(clock: Clock, circle: weakref.ref[Circle]) -> None:
    collect = garbage.Collecting()
    kept = [[n] for n in range(500_000)]
    before = gc.get_freeze_count()
    clock.now += 601
    collect()
    try:
        assert gc.get_freeze_count() > before + len(kept)
    finally:
        gc.unfreeze()

"""Each attack alone: one row of the table for each, and what makes the whole a failure."""

from __future__ import annotations

from typing import Any

import pytest

from soak.alone import QUIET, Row, is_good, main, report
from soak.attack_books import Attack, AttackBooks, Gap

ONE, NGINX = "1 worker", "1 worker, nginx"


def row(name: str = "crumbs", setting: str = ONE, gap: Gap | None = None, **fields: Any) -> Row:
    books = AttackBooks(limit_ms=100)
    books.attacks.append(Attack(name, began=10, ended=13, sent=1_000_000, refused=2))
    books.gaps.append(gap or Gap(11, 11.05, 7, waited_s=0.03))
    (made,) = books.rows()
    return {**made, "setting": setting, "memory_mb": 120.4, "complaints": books.complaints(), **fields}


def test_each_attack_has_one_row_with_its_gap_in_each_setting() -> None:
    rows = [row(), row(QUIET, refused=0), row(setting=NGINX, gap=Gap(12, 12.2, 7), memory_mb=130.6, cut=1)]
    assert [line.split("  ") for line in report(rows).splitlines()] == [
        line.split("  ")
        for line in (
            "Longest gap, ms (own)  1 worker  1 worker, nginx  memory MB  answered  refused  cut  left",
            "crumbs                  50 (20)        200 (200)        131         0        4    1     0",
            "quiet                   50 (20)                -        120         0        0    0     0",
        )
    ]


def test_what_should_not_be_stands_below_the_table() -> None:
    rows = [row(complaints=["a worker went"])]
    assert report(rows).splitlines()[-1] == "! 1 worker, crumbs: a worker went"
    assert not is_good(rows, 100)


@pytest.mark.parametrize(
    ("gap", "is_within"),
    [(Gap(11, 11.09, 7), True), (Gap(11, 11.5, 7, waited_s=0.45), True), (Gap(11, 11.2, 7, waited_s=0.05), False)],
)
def test_the_limit_is_for_the_gateways_part_in_any_setting(gap: Gap, is_within: bool) -> None:
    assert is_good([row(), row(setting=NGINX, gap=gap)], 100) is is_within


def test_an_attack_during_which_no_stream_was_read_is_a_failure() -> None:
    unread = row(gap=Gap(1, 2, 7))
    assert "-" in report([unread]).splitlines()[1].split()
    assert not is_good([unread], 100)


def test_an_attack_that_does_not_exist_is_told_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "nothing of the kind"])
    assert "form of 8 MB" in capsys.readouterr().err

"""Attacks of the soak: they end by themselves, and the books tell whom they held up."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from dataclasses import replace

import orjson
import pytest

from soak.attack_books import AFTERMATH_S, OWN, WHOLE, Attack, AttackBooks, Gap, Staff
from soak.attackers import LARGE, MOST_BYTES, PLANS, Plan, Running
from soak.innocents import EACH_S, Gaps
from soak.stage import CLIENT_KEY
from tests.traffic import run as to_the_end

CRUMBS = Attack("crumbs", began=10, ended=13, sent=1_000_000, refused=2)
FORM = Attack("form", began=20, ended=23, sent=8_000_000, answered=1, cut=1)


def books_of(*gaps: Gap, attacks: tuple[Attack, ...] = (CRUMBS, FORM)) -> AttackBooks:
    books = AttackBooks(limit_ms=100, origin=0)
    books.attacks += attacks
    books.gaps += gaps
    return books


class TestGaps:
    def test_the_longest_under_attack_is_told_apart_from_the_longest_without(self) -> None:
        calm, small, large = Gap(5, 5.3, 7), Gap(12, 12.02, 7), Gap(21, 21.09, 8)
        books = books_of(calm, small, large)
        assert books.longest(attacked=True) == large
        assert books.longest(attacked=True, during="crumbs") == small
        assert books.longest(attacked=False) == calm
        assert books.is_within_limit
        assert "under attack 90 ms (form, worker 8, at 21.0 s), without attacks 300 ms" in books.text()

    @pytest.mark.parametrize(
        ("gap", "is_its_doing"),
        [
            (Gap(9, 10.5, 7), True),
            (Gap(12, 14, 7), True),
            (Gap(9, 30, 7), True),
            (Gap(13 + AFTERMATH_S / 2, 15, 7), True),
            (Gap(9, 9.9, 7), False),
            (Gap(13.1 + AFTERMATH_S, 15, 7), False),
        ],
    )
    def test_a_gap_is_an_attacks_doing_if_any_of_it_is_within_the_attack_or_soon_after(
        self, gap: Gap, is_its_doing: bool
    ) -> None:
        books = books_of(gap, attacks=(CRUMBS,))
        assert (books.longest(attacked=True) == gap) is is_its_doing
        assert books.is_within_limit is not is_its_doing

    def test_the_limit_is_for_the_gateways_part_and_the_whole_is_told(self) -> None:
        starved, held_up = Gap(11, 11.5, 7, waited_s=0.45), Gap(12, 12.2, 7, waited_s=0.01)
        assert books_of(starved).is_within_limit
        books = books_of(starved, held_up)
        assert not books.is_within_limit
        assert books.longest(attacked=True, by=WHOLE) == starved
        assert books.longest(attacked=True, by=OWN) == held_up
        (row, _) = books.rows()
        assert (row["gap_ms"], row["own_ms"]) == (500, 190)

    def test_a_stream_that_does_not_pass_the_gateway_is_no_innocent_one(self) -> None:
        straight, through = Gap(11, 11.9, None), Gap(11, 11.05, 7)
        books = books_of(straight, through)
        assert books.longest(attacked=True) == through
        assert books.longest(attacked=True, straight=True) == straight
        assert books.is_within_limit

    def test_a_stream_of_a_killed_worker_may_break_off_and_no_other(self) -> None:
        books = books_of(Gap(11, 11.01, 7))
        books.killed.add(7)
        for worker in (7, 8):
            books.innocent({"broke": "no end", "worker": worker, "at": 12.0})
        (told,) = books.complaints()
        assert "worker 8 broke off at 12.0 s: no end" in told

    def test_a_soak_that_measured_nothing_is_told(self) -> None:
        assert AttackBooks(limit_ms=100).complaints() == [
            "no attack was made",
            "no innocent stream was read while there were attacks",
        ]

    def test_a_reader_tells_the_longest_and_the_longest_without_waits_of_each_fraction_of_a_second(self) -> None:
        gaps = Gaps(7)
        assert gaps.piece(0.0, (5.0, 1.0)) == []
        assert gaps.piece(0.12, (5.12, 1.0)) == []
        assert gaps.piece(0.17, (5.12, 1.01)) == []
        told = gaps.piece(EACH_S, (5.19, 1.06))  # both waited, perhaps at the same time
        assert [(round(gap.ms), round(gap.own_ms)) for gap in sorted(told, key=OWN)] == [(120, 0), (50, 40)]
        assert gaps.rest(0.3) == []


class TestStaff:
    def test_a_worker_that_goes_undismissed_is_missed_once(self) -> None:
        staff = Staff()
        assert staff.look([1, 2]) == []
        assert staff.look([2, 3]) == [1]
        assert staff.look([2, 3]) == []
        staff.dismiss([2, 3])
        assert staff.look([2, 4, 5]) == []
        assert staff.look([4, 5]) == []


class TestBounds:
    @pytest.mark.parametrize(
        "plan", [plan for plan in (*PLANS, *LARGE) if not plan.is_endless], ids=lambda plan: plan.name
    )
    def test_what_one_connection_sends_ends_and_fits(self, plan: Plan) -> None:
        pieces = list(plan.pieces())
        assert 100_000 < sum(map(len, pieces)) < MOST_BYTES / plan.connections
        head, _, _ = pieces[0].partition(b"\r\n\r\n")
        if b"content-length" in head:
            assert int(head.rpartition(b": ")[2]) == sum(map(len, pieces[1:]))
        if b"Bearer " + CLIENT_KEY.encode() in head and b"application/json" in head:
            assert orjson.loads(b"".join(pieces[1:]))["model"].startswith("attackers.")

    @pytest.mark.parametrize("plan", [*PLANS, *LARGE], ids=lambda plan: plan.name)
    def test_nobody_asks_where_clients_are_counted(self, plan: Plan) -> None:
        first = b"".join(itertools.islice(plan.pieces(), 1))
        assert b" /v1/chat/completions" not in first

    @pytest.mark.parametrize("manner", ["reads all", "reads nothing", "answers", "hangs up"])
    @pytest.mark.parametrize(
        "plan",
        [
            Plan("endless", lambda: itertools.repeat(b"x" * 10_000), is_endless=True),
            Plan("unfinished", lambda: iter([b"POST / HT"]), is_endless=True, connections=9),
        ],
        ids=lambda plan: plan.name,
    )
    def test_an_attack_ends_in_time_whatever_it_is_answered(self, plan: Plan, manner: str) -> None:
        attack, received = attacked(plan, manner, seconds=0.3, most_bytes=1 << 40)
        assert attack.ended - attack.began < 1.5
        assert received <= attack.sent
        ending = {"answers": attack.answered, "hangs up": attack.cut}.get(manner, attack.left)
        assert ending >= plan.connections
        others = attack.answered + attack.refused + attack.cut + attack.left - ending
        assert others <= plan.connections, "those that were cut short by the end"

    def test_an_attack_ends_when_it_has_sent_enough(self) -> None:
        plan = Plan("endless", lambda: itertools.repeat(b"x" * 10_000), is_endless=True)
        attack, received = attacked(plan, "reads all", seconds=30, most_bytes=2_000_000)
        assert received <= 2_000_000
        assert attack.ended - attack.began < 5

    def test_only_this_machine_is_attacked(self) -> None:
        with pytest.raises(ValueError, match="not on this machine"):
            Running(PLANS[0], "http://192.0.2.1:80")


def attacked(plan: Plan, manner: str, *, seconds: float, most_bytes: int) -> tuple[Attack, int]:
    """The attack, and how many bytes of it have arrived at a server that behaves so."""

    async def both() -> tuple[Attack, int]:
        received = 0
        handlers: set[asyncio.Task[None] | None] = set()
        is_over = asyncio.Event()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal received
            handlers.add(asyncio.current_task())
            try:
                with contextlib.suppress(OSError):
                    if manner == "reads nothing":
                        await is_over.wait()
                    elif manner != "hangs up":
                        received += len(await reader.read(65536))
                        if manner == "answers":
                            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                        while data := await reader.read(65536):
                            received += len(data)
            finally:
                writer.transport.abort()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            running = Running(plan, url, seconds, most_bytes)
            await running.run()
            attack = replace(running.so_far(), ended=time.monotonic())
            is_over.set()
            await asyncio.gather(*(task for task in handlers if task is not None))
            return attack, received

    return to_the_end(both())

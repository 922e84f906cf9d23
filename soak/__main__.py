"""Hours of mixed traffic and faults against a real gateway, and books that must balance at the end.

Run: make soak MINUTES=30, or python -m soak --minutes 30 [--clients 60] [--workers 2] [--kills] [--attack]
[--longest-gap-ms N] [--seed N] [--json FILE]. Ctrl-C ends early, with the report. Each attack by itself: soak/alone.py.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import orjson

from soak.attack_books import AttackBooks, Staff
from soak.books import ANSWERED, Books, Growth, Report, Resources, Sample, leaks
from soak.client import Client
from soak.stage import (
    ATTACKERS,
    CLIENT_KEY,
    INNOCENTS,
    Connection,
    Gateway,
    Simulator,
    Unfit,
    change,
    guests,
    listen,
    random_fault,
    say,
    wait_for,
)
from soak.traffic_mix import Mix, Question

Act = Coroutine[Any, Any, None]

PATIENCE_S = 80.0
"""No answer takes so long: after REQUEST_DEADLINE_S it has begun, and none is written for longer than LONGEST_S."""
LONGEST_S = 6.0
SAMPLE_EVERY_S = 5.0
LOOK_EVERY_S = 0.2
SETTLING_S = 20.0
FOLLOWS_WITHIN_S = 5.0
STEADY_SHARE = 0.4
"""Of the time, at its end: no worker is replaced then, so that memory is watched on the same ones throughout."""


class Soak:
    """Connections: "steady" never suffers anything but changes of its settings and key, and "shaky" is at the same
    simulator; "spare" comes after them, and its simulator is killed now and then. There are never more than three, as
    many as the gateway tries, so that "steady" is always among those.

    Under attack there are two more, of guests()."""

    def __init__(self, options: argparse.Namespace, gateway: Gateway, simulators: list[Simulator]) -> None:
        self.options = options
        self.seconds = options.minutes * 60
        self.gateway = gateway
        self.simulators = simulators
        first, second, *others = simulators
        self.connections = [
            Connection("steady", first, {"name": "steady"}),
            Connection("shaky", first, {"name": "shaky", "weight": 3}),
            Connection("spare", second, {"name": "spare", "priority": 1}),
        ]
        self.guests = guests(others)
        self.attacks = AttackBooks(options.longest_gap_ms) if options.attack else None
        self.staff = Staff()
        self.missing: list[tuple[int, float]] = []
        """Workers that went though nobody sent them away, and when."""
        self.ports = {each.port for each in simulators}
        self.books = Books()
        self.resources = Resources()
        self.acts: Counter[str] = Counter()
        self.names: dict[str, str] = {}
        self.chance = random.Random(options.seed)
        self._is_ending = False
        self._calm = asyncio.Event()
        """Traffic, or the wish for it, is over: whoever pauses goes on and comes to an end."""
        self._generation = 0
        self._turn = asyncio.Lock()

    def end(self) -> None:
        """No new requests; the report is next."""
        self._is_ending = True
        self._calm.set()

    async def run(self) -> Report:
        began = time.monotonic()
        warm_up_s = min(max(0.1 * self.seconds, 5.0), 60.0)
        await self._open()
        await self._traffic(warm_up_s, [])
        self.resources.before = await self._at_rest()
        if not self._is_ending:
            await self._open()
            main_s = max(self.seconds - warm_up_s, 5.0)
            restless_s = main_s * (1 - STEADY_SHARE)
            steady_from = time.monotonic() + restless_s
            others = [self._play(main_s), self._replace_workers(restless_s), self._watch(), self._tell(), self._count()]
            if self.attacks is not None:
                others += self._attack(self.attacks)
            await self._traffic(main_s, others)
            self.resources.growth = self._growth(steady_from)
        self.resources.after = await self._at_rest()
        guests = {each.name for each in self.guests}
        apart = {id for id, name in self.names.items() if name in guests}
        counts = await asyncio.to_thread(self.gateway.counts, apart)
        self.books.compare_with_ledger(await asyncio.to_thread(self.gateway.booked, apart | guests))
        stats = {each.name: await asyncio.to_thread(each.stats) for each in self.simulators}
        self._close_books(counts, stats)
        return Report(
            seed=self.options.seed,
            seconds=time.monotonic() - began,
            clients=self.options.clients,
            workers=self.options.workers,
            books=self.books,
            counts=counts,
            names=self.names,
            simulators=stats,
            acts=self.acts,
            resources=self.resources,
            attacks=self.attacks,
        )

    def _close_books(self, counts: Any, stats: dict[str, dict[str, Any]]) -> None:
        books = self.books
        books.close()
        books.compare_with_gateway(counts)
        for name, each in stats.items():
            books.compare_with_simulator(name, each)
        for found in leaks(self.resources.before[:-1], self.resources.after[:-1]):
            books.complain(found)
        # Requests of tens of megabytes raise it by steps, to what the largest moment took: then what is in use counts.
        for growth in self.resources.growth if self.attacks is None else ():
            if growth.is_a_leak:
                books.complain(f"memory of {growth.pid} grows by {growth.overall:.2f} MB/min")
        for pid, moment in self.missing:
            during = [] if self.attacks is None else self.attacks.names_at(moment, moment)
            attacks = f" (attack: {', '.join(during)})" if during else ""
            at = f"{moment - books.origin:.1f} s"
            books.complain(f"worker {pid} went at {at}, though nobody killed it or reloaded the gateway{attacks}")
        if self.attacks is not None:
            for found in self.attacks.complaints():
                books.complain(found)
        for line in self.gateway.errors()[:20]:
            books.complain(f"the gateway logged: {line}")

    # ------------------------------------------------------------------------------------------------------- traffic

    async def _traffic(self, seconds: float, others: Sequence[Act]) -> None:
        """Clients ask for so long, and then finish what they have begun; so do the others."""
        until = time.monotonic() + seconds
        helpers = [asyncio.ensure_future(each) for each in others]
        clients = [self._client(number, until) for number in range(self.options.clients)]
        found = await asyncio.gather(*clients, return_exceptions=True)
        self._calm.set()
        for result in [*found, *await asyncio.gather(*helpers, return_exceptions=True)]:
            if isinstance(result, BaseException):
                self.books.complain(f"the soak itself failed: {result!r}")
        if not self._is_ending:
            self._calm.clear()

    async def _client(self, number: int, until: float) -> None:
        chance = random.Random(f"{self.options.seed} {number} {self.books.sent}")
        mix = Mix(chance, LONGEST_S)
        client = Client(self.gateway.url, {"authorization": f"Bearer {CLIENT_KEY}"}, PATIENCE_S)
        try:
            await self._pause(chance.uniform(0, 1))
            while time.monotonic() < until and not self._calm.is_set():
                question: Question | None = mix.next()
                while question is not None:
                    question = await self._ask(client, question, chance)
                await self._pause(chance.expovariate(2.0))
        finally:
            client.close()

    async def _ask(self, client: Client, question: Question, chance: random.Random) -> Question | None:
        """The client's next question, if it has one about the answer."""
        entry = self.books.begin(question)
        try:
            seen = await client.ask(question.body, question.manners)
        except BaseException as error:
            self.books.lose(entry, error)
            raise
        ending = self.books.settle(entry, seen)
        if ending == ANSWERED and question.second_turn is not None and chance.random() < 0.7:
            return question.second_turn(seen)
        return None

    async def _pause(self, seconds: float) -> None:
        """Or until it is calm."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._calm.wait(), seconds)

    # ------------------------------------------------------------------------------------------------------- troubles

    async def _play(self, seconds: float) -> None:
        """Every few seconds something changes or breaks."""
        until = time.monotonic() + seconds
        lasting: list[asyncio.Task[None]] = []
        acts: dict[Callable[[], Act], float] = {self._change: 5, self._fault: 5, self._kill_simulator: 1}
        while time.monotonic() < until and not self._calm.is_set():
            await self._pause(self.chance.uniform(0.5, 3.0))
            (act,) = self.chance.choices(list(acts), weights=list(acts.values()))
            lasting = [task for task in lasting if not task.done() or task.exception()]
            lasting.append(asyncio.create_task(act()))
        await asyncio.gather(*lasting)

    async def _change(self) -> None:
        what = change(self.chance, self.connections)
        self.acts[what] += 1
        await self._configure()

    async def _open(self) -> None:
        """Connections where there were none; no request comes before all workers know of them."""
        await self._configure()
        await self._followed()

    async def _followed(self) -> None:
        wait = asyncio.to_thread
        if not await wait(wait_for, lambda: self.gateway.follows(self._generation), SETTLING_S + FOLLOWS_WITHIN_S):
            workers = (await wait(self.gateway.ready)).get("workers")
            self.books.complain(f"not all workers follow generation {self._generation}: {workers}")

    async def _configure(self) -> None:
        async with self._turn:  # else the later of two might be overtaken
            configured = [each for each in (*self.connections, *self.guests) if each.is_configured]
            self._generation = await asyncio.to_thread(self.gateway.configure, configured)
            ready = await asyncio.to_thread(self.gateway.ready)
            if ready["generation"] == self._generation:
                ids = [each["id"] for each in ready["connections"]]
                self.names.update(zip(ids, [each.name for each in configured], strict=True))

    async def _fault(self) -> None:
        """For one key, lifted after a while."""
        which = self.chance.choice(self.connections[1:])
        fault, breaks_streams = random_fault(self.chance)
        key = which.key
        self.acts[f"fault {next(iter(fault))} {fault.get('status', '')}".rstrip()] += 1
        trouble = self.books.trouble(f"{which.name} {fault}", breaks_streams=breaks_streams)
        await asyncio.to_thread(which.simulator.fault, key, fault)
        await self._pause(self.chance.uniform(0.5, 5.0))
        await asyncio.to_thread(which.simulator.fault, key, None)
        trouble.ended = time.monotonic()

    async def _kill_simulator(self) -> None:
        simulator = self.connections[-1].simulator
        if not simulator.is_up:
            return
        self.acts["simulator killed and started again"] += 1
        trouble = self.books.trouble(f"{simulator.name} is down", breaks_streams=True)
        await asyncio.to_thread(simulator.kill)
        await self._pause(self.chance.uniform(0.5, 5.0))
        await asyncio.to_thread(simulator.start)
        trouble.ended = time.monotonic()

    async def _replace_workers(self, seconds: float) -> None:
        """By reloads, and with --kills by force."""
        until = time.monotonic() + seconds
        every_s = min(max(seconds / 5, 6.0), 120.0)
        turn = 0
        while True:
            await self._pause(self.chance.uniform(0.7, 1.0) * every_s)
            if self._calm.is_set() or time.monotonic() > until:
                return
            turn += 1
            if self.options.kills and turn % 2 == 0:
                pid = self.chance.choice(self.gateway.worker_pids())
                self.staff.dismiss([pid])
                self.books.kill()
                if self.attacks is not None:
                    self.attacks.killed.add(pid)
                self.gateway.kill(pid)
                self.acts["worker killed"] += 1
            else:
                self.staff.dismiss(self.gateway.worker_pids())
                self.gateway.reload()
                self.acts["gateway reloaded"] += 1

    async def _count(self) -> None:
        """The workers: none may go that the soak did not send away."""
        while not self._calm.is_set():
            self.missing += [(pid, time.monotonic()) for pid in self.staff.look(self.gateway.worker_pids())]
            await self._pause(LOOK_EVERY_S)

    # -------------------------------------------------------------------------------------------------------- attacks

    def _attack(self, books: AttackBooks) -> list[Act]:
        """Those who attack, and those whom it must not disturb, in processes of their own: neither waits for the other,
        nor for the clients."""
        url = self.gateway.url
        straight = self.guests[1].simulator
        told = [url, straight.url, str(self.options.workers), str(straight.pid)]
        return [
            listen("soak.innocents", told, books.innocent, self._calm),
            listen("soak.attackers", [url, str(self.options.seed)], books.attack, self._calm),
        ]

    # ------------------------------------------------------------------------------------------------------ resources

    async def _watch(self) -> None:
        while True:
            samples = await asyncio.to_thread(self.gateway.samples, self.ports)
            self.resources.samples += samples
            await self._pause(SAMPLE_EVERY_S)
            if self._calm.is_set():
                return

    async def _at_rest(self) -> list[Sample]:
        """The workers, and the master, when nobody asks for anything and no connection is configured: then no socket
        may be left but the one that listens."""
        await self._followed()
        wait = asyncio.to_thread
        generation = await wait(self.gateway.configure, [])
        await wait(wait_for, lambda: self.gateway.follows(generation), FOLLOWS_WITHIN_S)
        return await wait(self.gateway.at_rest, self.ports, SETTLING_S)

    def _growth(self, steady_from: float) -> list[Growth]:
        """Of the processes that were there through the steady phase, without the time that a young one fills up in."""
        whole = [s for s in self.resources.samples if s.at >= steady_from]
        if not whole:
            return []
        start_up_s = min(60.0, 0.25 * (whole[-1].at - whole[0].at))
        last = {s.pid for s in whole if s.at > whole[-1].at - SAMPLE_EVERY_S}
        by_pid = {pid: [s for s in whole if s.pid == pid and s.at - whole[0].at >= start_up_s] for pid in sorted(last)}
        return [Growth.of(samples) for samples in by_pid.values() if len(samples) > 2]

    async def _tell(self) -> None:
        """A line each minute."""
        began = time.monotonic()
        while not self._calm.is_set():
            await self._pause(60.0)
            books = self.books
            workers = [s for s in self.resources.samples[-self.options.workers - 1 :] if s.pid != self.gateway.pid]
            memory = ", ".join(f"{s.anonymous_mb:.0f}" for s in workers)
            say(
                f"{(time.monotonic() - began) / 60:.0f} min: {books.sent} sent, {len(books.open)} open, "
                f"{', '.join(f'{count} {ending}' for ending, count in books.endings.items())}; workers {memory} MB; "
                f"{len(books.discrepancies)} discrepancies"
            )


async def soak(options: argparse.Namespace) -> Report:
    """Raises Unfit when there is nothing to soak."""
    simulators = [Simulator("simulator 1"), Simulator("simulator 2")]
    if options.attack:
        simulators += [Simulator(f"simulator of {name}") for name in (ATTACKERS, INNOCENTS)]
    with tempfile.TemporaryDirectory(prefix="dragoman-soak-") as folder:
        gateway = None
        try:
            for each in simulators:
                each.start()
            gateway = Gateway(Path(folder), options.workers)
            run = Soak(options, gateway, simulators)
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, run.end)
            report = await run.run()
            if not gateway.stop():
                report.books.complain("the gateway did not stop by itself")
            return report
        finally:
            if gateway is not None:
                gateway.stop()
            for each in simulators:
                each.kill()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=60, help="how many at once (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="of the gateway (default: %(default)s)")
    parser.add_argument("--kills", action="store_true", help="kill a worker now and then")
    parser.add_argument(
        "--attack", action="store_true", help="attackers beside the clients, and how they hold others up"
    )
    parser.add_argument(
        "--longest-gap-ms",
        type=float,
        default=100.0,
        metavar="N",
        help="how long a stream of 10 ms may stand still under attack (default: %(default)g)",
    )
    parser.add_argument("--seed", type=int, help="to do the same again (default: by chance; it is printed)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args(arguments)
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1_000_000)
    say(f"Soaking for {options.minutes:g} min with {options.clients} clients, seed {options.seed}.")
    try:
        report = asyncio.run(soak(options))
    except Unfit as error:
        say(f"Error: {error}")
        return 2
    say(report.text())
    if options.json is not None:
        options.json.write_bytes(orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS))
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Dragoman beside other gateways: same machine, same run, taking turns. See bench/README.md.

Run: make bench, or python -m bench [--quick] [--peers dragoman,portkey] [--rounds 3] [--output FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from bench.load import Load, Result, Run, percentile_ms, run
from bench.peers import HERE, KEY, PEERS, Command, Peer, Process, Unavailable, free_port
from bench.report import LATEST, report
from bench.upstream import Behaviour

_AT_ONCE = Behaviour(events=60)


@dataclass(frozen=True)
class Scenario:
    """A load, and what of it is measured."""

    name: str
    behaviour: Behaviour
    load: Load
    per: int = 1
    """CPU is given per so many-th of a request: the events of a stream."""
    speaks: str = "chat"
    direct: bool = False
    """The same load goes straight to the upstream as well, and the latency above that is the figure."""


def scenarios(quick: bool) -> tuple[Scenario, ...]:
    seconds = 1.5 if quick else 4.0
    many = Load("", connections=8, seconds=seconds)
    one = Load("", connections=1, seconds=seconds / 2)
    # 64 that are spread evenly: 32 begin each second, and are in flight for two.
    crowd = Load("", connections=64, requests=64 if quick else 160, ramp_s=2.0)
    pace = Behaviour(events=100, ttft_s=0.2, gap_s=0.04)
    paced = Load("", connections=100, requests=100, ramp_s=1.0)
    relayed = replace(many, anthropic=True)
    return (
        Scenario("json", _AT_ONCE, replace(many, stream=False)),
        Scenario("burst", _AT_ONCE, many),
        Scenario("paced", pace, paced, per=100),
        Scenario("relayed_json", _AT_ONCE, replace(relayed, stream=False), speaks="messages"),
        Scenario("relayed_burst", _AT_ONCE, relayed, speaks="messages"),
        Scenario("relayed_paced", pace, replace(paced, anthropic=True), per=100, speaks="messages"),
        Scenario("json_1", _AT_ONCE, replace(one, stream=False), direct=True),
        Scenario("json_64", Behaviour(events=60, ttft_s=2.0), replace(crowd, stream=False), direct=True),
        Scenario("stream_1", _AT_ONCE, one, direct=True),
        Scenario("stream_64", Behaviour(events=20, ttft_s=1.0, gap_s=0.05), crowd, direct=True),
    )


# Streams that are all open for some seconds, at a pace that every peer keeps up with.
_HELD = Behaviour(events=8, ttft_s=0.5, gap_s=1.0)


@dataclass
class Tally:
    """One scenario of one peer: a figure per round, and what became of the requests of all rounds."""

    figures: dict[str, list[float | None]] = field(default_factory=dict)
    complete: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    def add(self, **figures: float | None) -> None:
        for name, value in figures.items():
            self.figures.setdefault(name, []).append(None if value is None else round(value, 3))

    def count(self, result: Result) -> None:
        self.complete += result.complete
        self.failures += result.failures

    def results(self) -> dict[str, Any]:
        return {"figures": self.figures, "complete": self.complete, "failures": dict(self.failures)}


class Bench:
    """The upstream, the peers that could be installed, and their figures so far."""

    def __init__(self, peers: list[Peer], rounds: int, quick: bool, folder: Path) -> None:
        self._conditions = _conditions()
        self._rounds = rounds
        self._quick = quick
        self._warming = Load("", connections=8, seconds=1.0 if quick else 2.0)
        self._folder = folder
        self._peers = peers
        self._tallies: dict[str, dict[str, Tally]] = {peer.name: {} for peer in peers}
        self.unavailable: dict[str, str] = {}
        port = free_port()
        command = Command([sys.executable, "-m", "bench.upstream", str(port)], {}, HERE.parent)
        self._upstream = Process(command, port, "/v1/models", folder / "upstream.log")

    def stop(self) -> None:
        self._upstream.stop()

    @property
    def available(self) -> list[Peer]:
        return [peer for peer in self._peers if peer.name not in self.unavailable]

    def install(self) -> None:
        """A peer that cannot be installed or does not start is left out; that first start is not timed."""
        for peer in self._peers:
            with self._leaving_out(peer):
                _say(f"{peer.title}: installing {peer.version()}")
                peer.install()
                self._start(peer).stop()

    def measure(self) -> None:
        for number in range(self._rounds):
            for peer in self._in_turn(number, "chat"):
                with self._leaving_out(peer):
                    _say(f"round {number + 1} of {self._rounds}: start and memory of {peer.title}")
                    self._measure_alone(peer)
        with contextlib.ExitStack() as stack:
            running: dict[str, Process] = {}
            for peer in self.available:
                with self._leaving_out(peer):
                    running[peer.name] = process = self._start(peer)
                    stack.callback(process.stop)
                    self._warm_up(peer, process, self._warming)
            for scenario in scenarios(self._quick):
                for number in range(self._rounds):
                    _say(f"round {number + 1} of {self._rounds}: {scenario.name}")
                    self._behave(scenario.behaviour)
                    direct = asyncio.run(run(self._straight(scenario.load))) if scenario.direct else None
                    for peer in self._in_turn(number, scenario.speaks):
                        self._measure_together(scenario, peer, running[peer.name], direct)

    def results(self) -> dict[str, Any]:
        peers: dict[str, Any] = {}
        for peer in self._peers:
            peers[peer.name] = {"title": peer.title, "version": peer.version()}
            if peer.name in self.unavailable:
                peers[peer.name]["unavailable"] = self.unavailable[peer.name]
            else:
                tallies = self._tallies[peer.name].items()
                peers[peer.name]["scenarios"] = {name: tally.results() for name, tally in tallies}
        loads = {
            each.name: {"upstream": asdict(each.behaviour), "load": asdict(each.load)}
            for each in scenarios(self._quick)
        }
        conditions = {**self._conditions, "rounds": self._rounds, "quick": self._quick}
        return {"conditions": conditions, "loads": loads, "peers": peers}

    # -- one measurement

    def _measure_alone(self, peer: Peer) -> None:
        """With no other peer running: pages that two of them share would halve."""
        process = self._start(peer)
        tally = self._tally(peer, "memory")
        try:
            self._tally(peer, "start").add(seconds=process.started_in_s)
            # A few requests alone come before the open streams: a heap that a load has stretched would hide them.
            self._warm_up(peer, process, Load("", connections=4, requests=40))
            before = process.pss_mb()
            self._behave(_HELD)
            streams = 100 if self._quick else 200
            held = Load("", connections=streams, requests=streams, ramp_s=streams / 50)
            result, open_mb, opened = asyncio.run(_hold(self._through(peer, process, held), process))
            tally.count(result)
            self._warm_up(peer, process, self._warming)
            tally.add(pss_mb=process.pss_mb(), per_stream_kb=(open_mb - before) * 1024 / opened if opened else None)
        finally:
            process.stop()

    def _measure_together(self, scenario: Scenario, peer: Peer, process: Process, direct: Result | None) -> None:
        load = self._through(peer, process, scenario.load)
        before = process.cpu_s()
        result = asyncio.run(run(load))
        used_ms = (process.cpu_s() - before) * 1000
        tally = self._tally(peer, scenario.name)
        tally.count(result)
        tally.add(
            cpu_ms=used_ms / result.complete / scenario.per if result.complete else None,
            requests_per_s=result.complete / result.seconds if result.complete else None,
        )
        if direct is not None:
            for percent in (50, 99):
                through_ms, direct_ms = (_latency_ms(load, each, percent) for each in (result, direct))
                added = None if through_ms is None or direct_ms is None else through_ms - direct_ms
                tally.add(**{f"added_p{percent}_ms": added, f"direct_p{percent}_ms": direct_ms})

    def _warm_up(self, peer: Peer, process: Process, load: Load) -> None:
        self._behave(_AT_ONCE)
        for speaks in sorted(peer.speaks):
            for stream in (False, True):
                warming = replace(load, stream=stream, anthropic=speaks == "messages")
                asyncio.run(run(self._through(peer, process, warming)))

    # -- the pieces

    def _start(self, peer: Peer) -> Process:
        folder = self._folder / peer.name
        folder.mkdir(exist_ok=True)
        port = free_port()
        return Process(peer.command(port, self._upstream.url, folder), port, peer.alive, folder / "log")

    def _through(self, peer: Peer, process: Process, load: Load) -> Load:
        headers = peer.headers(self._upstream.url)
        path = "/v1/messages" if load.anthropic else "/v1/chat/completions"
        return replace(load, url=f"{process.url}{path}", key=KEY, headers=headers)

    def _straight(self, load: Load) -> Load:
        return replace(load, url=f"{self._upstream.url}/v1/messages", anthropic=True)

    def _behave(self, behaviour: Behaviour) -> None:
        self._upstream.post("/behaviour", orjson.dumps(behaviour))

    def _tally(self, peer: Peer, scenario: str) -> Tally:
        return self._tallies[peer.name].setdefault(scenario, Tally())

    def _in_turn(self, number: int, speaks: str) -> list[Peer]:
        """Another one begins in each round."""
        peers = [peer for peer in self.available if speaks in peer.speaks]
        first = number % len(peers) if peers else 0
        return peers[first:] + peers[:first]

    @contextlib.contextmanager
    def _leaving_out(self, peer: Peer) -> Iterator[None]:
        try:
            yield
        except Unavailable as reason:
            _say(f"{peer.title} is left out: {reason}")
            self.unavailable[peer.name] = str(reason)


async def _hold(load: Load, process: Process) -> tuple[Result, float, int]:
    """What became of the load, the memory when all its streams had been begun, and how many were open then."""
    held = Run(load)
    running = asyncio.create_task(held.finish())
    deadline = time.monotonic() + load.ramp_s + 1.5
    while not running.done() and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    opened, open_mb = held.open, process.pss_mb()
    return await running, open_mb, opened


def _latency_ms(load: Load, result: Result, percent: int) -> float | None:
    return percentile_ms(result.ttft_s if load.stream else result.total_s, percent)


def _conditions() -> dict[str, Any]:
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _said("git", "describe", "--always", "--dirty"),
        "cpu": cpu[0].partition(":")[2].strip() if cpu else platform.machine(),
        "cores": len(cpu),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "node": _said("node", "--version"),
        "load average before": os.getloadavg()[0],
    }


def _said(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    return subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False).stdout.strip() or None


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--peers", default=",".join(PEERS), help=f"some of {', '.join(PEERS)} (all)")
    parser.add_argument("--rounds", type=int, help="how often each is measured (3; 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="shorter loads, one round: rough figures")
    parser.add_argument("--output", type=Path, default=LATEST, help="where the JSON goes (bench/results/latest.json)")
    given = parser.parse_args()
    names = given.peers.split(",")
    if unknown := set(names) - set(PEERS):
        parser.error(f"there is no peer {', '.join(sorted(unknown))}")
    rounds = given.rounds or (1 if given.quick else 3)
    with tempfile.TemporaryDirectory(prefix="dragoman-bench-") as folder:
        bench = Bench([PEERS[name] for name in names], rounds, given.quick, Path(folder))
        try:
            bench.install()
            bench.measure()
        finally:
            bench.stop()
    results = bench.results()
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_bytes(orjson.dumps(results, option=orjson.OPT_INDENT_2))
    print(report(results))


if __name__ == "__main__":
    main()

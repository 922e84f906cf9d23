"""Two checkouts of Dragoman beside each other: what a request costs each of them, measured by turns.

Run: python -m bench.alternating OTHER [--starts 6] [--slices 6] [--requests 400] [--stream] [--databases URL URL]: this
checkout, and one in another folder, an earlier commit say. What a machine does meanwhile happens to both, so that
differences of a twentieth can be seen where two runs of the benchmark differ by more. Starts differ as
much, each for as long as it lives: both are started several times.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import orjson

from bench.load import Load, run
from bench.peers import HERE, KEY, PEERS, Command, Process, Unavailable, free_port
from bench.upstream import Behaviour

_WARMING = 600


@contextlib.contextmanager
def started(folder: Path, checkout: Path, database: str | None) -> Iterator[Process]:
    """A gateway of one worker, with an upstream of its own."""
    folder.mkdir()
    port = free_port()
    command = Command([sys.executable, "-m", "bench.upstream", str(port)], {}, HERE.parent)
    upstream = Process(command, port, "/v1/models", folder / "upstream.log")
    try:
        upstream.post("/behaviour", orjson.dumps(Behaviour()))
        dragoman = PEERS["dragoman"]
        port = free_port()
        usual = dragoman.command(port, upstream.url, folder)
        own = checkout / ".venv" / "bin" / "python"
        arguments = [str(own) if own.exists() else sys.executable, *usual.arguments[1:]]
        environment = usual.environment | ({"DATABASE_URL": database, "SECRET_KEY": "of the bench"} if database else {})
        process = Process(Command(arguments, environment, checkout), port, dragoman.alive, folder / "log")
        try:
            yield process
        finally:
            process.stop()
    finally:
        upstream.stop()


def cpu_ms(process: Process, load: Load) -> float:
    """Of a request. Raises Unavailable when one was not answered."""
    before = process.cpu_s()
    result = asyncio.run(run(replace(load, url=f"{process.url}/v1/chat/completions")))
    if result.failed:
        raise Unavailable(f"{result.failed} of {load.requests} requests failed: {dict(result.failures)}")
    return (process.cpu_s() - before) * 1000 / result.complete


Pair = tuple[float, float]
"""What a request costs here, and there."""


def of_one_start(pairs: Sequence[Pair]) -> Pair:
    """The medians of its slices."""
    here, there = zip(*pairs, strict=True)
    return statistics.median(here), statistics.median(there)


def told(starts: Sequence[Pair]) -> str:
    """The mean of the starts, and how far they lie apart."""
    here, there = (statistics.mean(column) for column in zip(*starts, strict=True))
    differences = [one - another for one, another in starts]
    return (
        f"CPU per request, ms: here {here:.3f}, there {there:.3f}; here - there {statistics.mean(differences):+.3f} "
        f"({', '.join(f'{each:+.3f}' for each in sorted(differences))}), here / there {here / there:.3f}"
    )


def one_start(other: Path, databases: Sequence[str | None], load: Load, slices: int) -> Pair:
    with tempfile.TemporaryDirectory(prefix="dragoman-bench-") as name, contextlib.ExitStack() as stack:
        both = [
            stack.enter_context(started(Path(name) / which, checkout, database))
            for which, checkout, database in zip(("here", "there"), (HERE.parent, other), databases, strict=True)
        ]
        for process in both:
            cpu_ms(process, replace(load, requests=_WARMING))
        pairs = []
        for number in range(slices):
            turn = both if number % 2 == 0 else both[::-1]
            used = {process.url: cpu_ms(process, load) for process in turn}
            pairs.append((used[both[0].url], used[both[1].url]))
        return of_one_start(pairs)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.alternating", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("other", type=Path, help="the other checkout; its .venv is used where it has one")
    parser.add_argument("--starts", type=int, default=6, metavar="N", help="of each (%(default)s)")
    parser.add_argument("--slices", type=int, default=6, metavar="N", help="of each start (%(default)s)")
    parser.add_argument("--requests", type=int, default=400, metavar="N", help="in a slice (%(default)s)")
    parser.add_argument(
        "--stream", action="store_true", help="streams of 60 events that arrive at once, instead of JSON"
    )
    parser.add_argument(
        "--databases", nargs=2, metavar="URL", default=(None, None), help="empty ones, for here and there"
    )
    options = parser.parse_args()
    load = Load("", connections=8, requests=options.requests, stream=options.stream, key=KEY)
    try:
        starts = [
            one_start(options.other.resolve(), options.databases, load, options.slices) for _ in range(options.starts)
        ]
    except Unavailable as error:
        sys.exit(str(error))
    print(told(starts))


if __name__ == "__main__":
    main()

"""Each attack alone: for how long it holds innocent streams up, and what memory it takes.

Run: python -m soak.alone [--workers 1 2] [--nginx] [--only NAME ...] [--longest-gap-ms N] [--json FILE]. It takes some
twelve seconds for each attack and number of workers, and as much again with nginx.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from soak.attack_books import AFTERMATH_S, OUTCOMES, Attack, AttackBooks
from soak.attackers import ATTACK_S, LARGE, PLANS
from soak.nginx import nginx_before, nginx_program
from soak.stage import ATTACKERS, INNOCENTS, Gateway, Simulator, Unfit, guests, listen, say, wait_for
from soak.table import table

QUIET = "quiet"
"""No attack: what the machine itself does to innocent streams."""
BEFORE_S = 0.5
"""From the first piece of an innocent stream to the attack: the other streams begin, too."""
READY_WITHIN_S = 40.0

Row = dict[str, Any]
"""As AttackBooks has it, and `setting`, `memory_mb` and `complaints` beside it."""


@dataclass(frozen=True)
class Front:
    """A gateway, and where innocents and attackers reach it: through nginx, if there is a proxy."""

    setting: str
    gateway: Gateway
    url: str
    straight: Simulator
    proxies: Sequence[int]
    """Their pids."""


@contextlib.contextmanager
def front(workers: int, simulators: Sequence[Simulator], program: str | None) -> Iterator[Front]:
    """With the program nginx is in front of it."""
    setting = ("1 worker" if workers == 1 else f"{workers} workers") + (", nginx" if program else "")
    with tempfile.TemporaryDirectory(prefix="dragoman-alone-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        gateway = Gateway(folder, workers, TRUSTED_PROXIES="1" if program else "0")
        stack.callback(gateway.stop)
        generation = gateway.configure(guests(simulators))
        if not wait_for(lambda: gateway.follows(generation), READY_WITHIN_S):
            raise Unfit("not all workers follow the configuration")
        url, proxies = gateway.url, list[int]()
        if program:
            url, proxies = stack.enter_context(nginx_before(gateway.url, program, folder))
        yield Front(setting, gateway, url, simulators[1], proxies)


async def measured(place: Front, name: str, limit_ms: float) -> Row:
    """Of one attack, on workers that have done nothing else."""
    gateway = place.gateway
    pids, errors = await asyncio.to_thread(_fresh, gateway), len(gateway.errors())
    books = AttackBooks(limit_ms)
    is_over = asyncio.Event()
    told = [place.url, place.straight.url, str(gateway.workers), str(place.straight.pid), *map(str, place.proxies)]
    reading = asyncio.create_task(listen("soak.innocents", told, books.innocent, is_over))
    await asyncio.to_thread(wait_for, lambda: any(gap.worker for gap in books.gaps), READY_WITHIN_S)
    await asyncio.sleep(BEFORE_S)
    if name == QUIET:
        began = time.monotonic()
        await asyncio.sleep(ATTACK_S)
        books.attacks.append(Attack(QUIET, began, time.monotonic(), sent=0))
    else:
        await listen("soak.attackers", [place.url, "", name], books.attack, is_over)
    await asyncio.sleep(AFTERMATH_S)
    is_over.set()
    await reading
    complaints = [*books.complaints(), *(f"the gateway logged: {line}" for line in gateway.errors()[errors:])]
    if gateway.worker_pids() != pids:
        complaints.append("a worker went")
    (row,) = books.rows()
    return {**row, "setting": place.setting, "memory_mb": gateway.most_memory_mb(), "complaints": complaints}


def _fresh(gateway: Gateway) -> list[int]:
    """The workers, once all of them are new: they hold nothing of what came before."""
    before = set(gateway.worker_pids())
    gateway.reload()

    def are_new() -> bool:
        pids = gateway.worker_pids()
        return len(pids) == gateway.workers and before.isdisjoint(pids) and len(gateway.ready()["workers"]) == len(pids)

    if not wait_for(are_new, READY_WITHIN_S):
        raise Unfit("the workers are not replaced")
    return gateway.worker_pids()


def report(rows: Sequence[Row]) -> str:
    """One line for each attack: the longest gap in each setting, and what it was told in all of them."""
    settings, names = (list(dict.fromkeys(row[key] for row in rows)) for key in ("setting", "attack"))
    lines = []
    for name in names:
        of_it = {row["setting"]: row for row in rows if row["attack"] == name}
        gaps = [_gap(of_it.get(setting)) for setting in settings]
        memory = max(row["memory_mb"] for row in of_it.values())
        lines.append([name, *gaps, round(memory), *(sum(r[outcome] for r in of_it.values()) for outcome in OUTCOMES)])
    complaints = [f"! {row['setting']}, {row['attack']}: {told}" for row in rows for told in row["complaints"]]
    text = table("Longest gap, ms (own)", ["", *settings, "memory MB", *OUTCOMES], lines)
    return "\n".join([text, *complaints])


def _gap(row: Row | None) -> str:
    return "-" if row is None or row["gap_ms"] is None else f"{row['gap_ms']} ({row['own_ms']})"


def is_good(rows: Sequence[Row], limit_ms: float) -> bool:
    return not any(row["complaints"] or row["own_ms"] > limit_ms for row in rows)


def main(arguments: list[str]) -> int:
    names = [plan.name for plan in (*PLANS, *LARGE)]
    parser = argparse.ArgumentParser(prog="python -m soak.alone", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], metavar="N", help="of the gateway (1 2)")
    parser.add_argument("--nginx", action="store_true", help="once more through nginx, with deploy/nginx.conf")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help="these attacks")
    parser.add_argument(
        "--longest-gap-ms",
        type=float,
        default=100.0,
        metavar="N",
        help="how long the gateway may hold a stream of 10 ms up (default: %(default)g)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args(arguments)
    program = nginx_program()
    if options.nginx and program is None:
        parser.error("nginx is missing; install it with: apt-get install -y nginx-light")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, so that nothing stays behind
    rows: list[Row] = []
    simulators = [Simulator(f"simulator of {name}") for name in (ATTACKERS, INNOCENTS)]
    try:
        for each in simulators:
            each.start()
        for behind in (None, program) if options.nginx else (None,):
            for workers in options.workers:
                with front(workers, simulators, behind) as place:
                    for name in [*options.only, QUIET]:
                        rows.append(asyncio.run(measured(place, name, options.longest_gap_ms)))
                        say(f"{place.setting}, {name}: {_gap(rows[-1])} ms")
    except Unfit as error:
        say(f"Error: {error}")
        return 2
    except KeyboardInterrupt:
        say("Ended early.")
    finally:
        for each in simulators:
            each.kill()
    say(report(rows))
    if options.json is not None:
        options.json.write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
    return 0 if is_good(rows, options.longest_gap_ms) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

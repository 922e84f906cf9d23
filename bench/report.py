"""The results as a Markdown table. Run: python -m bench.report [RESULTS.json]"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

LATEST = Path(__file__).resolve().parent / "results" / "latest.json"

# (scenario, figure, what the row is called, digits behind the point)
ROWS = (
    ("json", "cpu_ms", "JSON request: CPU, ms", 2),
    ("json", "requests_per_s", "JSON requests/s, 8 connections", 0),
    ("burst", "cpu_ms", "60-event stream arriving at once: CPU, ms", 2),
    ("burst", "requests_per_s", "60-event streams/s, 8 connections", 0),
    ("paced", "cpu_ms", "paced stream: CPU per event, ms", 3),
    ("relayed_json", "cpu_ms", "relayed message: CPU, ms", 2),
    ("relayed_burst", "cpu_ms", "relayed 60-event stream arriving at once: CPU, ms", 2),
    ("relayed_paced", "cpu_ms", "relayed paced stream: CPU per event, ms", 3),
    ("json_1", "added_p50_ms", "added to a JSON answer, 1 connection: p50, ms", 1),
    ("json_1", "added_p99_ms", "same: p99, ms", 1),
    ("json_64", "added_p50_ms", "added to a JSON answer, 64 connections: p50, ms", 1),
    ("json_64", "added_p99_ms", "same: p99, ms", 1),
    ("stream_1", "added_p50_ms", "added to the first token, 1 connection: p50, ms", 1),
    ("stream_1", "added_p99_ms", "same: p99, ms", 1),
    ("stream_64", "added_p50_ms", "added to the first token, 64 connections: p50, ms", 1),
    ("stream_64", "added_p99_ms", "same: p99, ms", 1),
    ("memory", "pss_mb", "memory after load (PSS), MB", 0),
    ("memory", "per_stream_kb", "memory per open stream, kB", 0),
    ("start", "seconds", "exec to first answer, s", 2),
)


def table(results: dict[str, Any]) -> str:
    """Peers as columns: the median of the rounds and their range; beside a figure, how many of its requests failed."""
    running = {name: peer for name, peer in results["peers"].items() if "unavailable" not in peer}
    head = ["", *(f"{peer['title']} {peer['version']}" for peer in running.values())]
    rows = [
        [label, *(_cell(peer["scenarios"].get(scenario), figure, digits) for peer in running.values())]
        for scenario, figure, label, digits in ROWS
    ]
    return "\n".join([_line(head), _line(["---", *("---:" for _ in running)]), *map(_line, rows)])


def report(results: dict[str, Any]) -> str:
    """The table, what failed and why, and the conditions."""
    parts = [table(results), *_troubles(results["peers"])]
    parts.append("; ".join(f"{name}: {value}" for name, value in results["conditions"].items()))
    return "\n\n".join(parts)


def _cell(scenario: dict[str, Any] | None, figure: str, digits: int) -> str:
    if scenario is None:
        return "not measured"
    failed = sum(scenario["failures"].values())
    counted = scenario["complete"] + failed
    values = [value for value in scenario["figures"].get(figure, []) if value is not None]
    if not values:
        return f"all {counted} failed" if failed else "not measured"
    text = f"{statistics.median(values):.{digits}f}"
    if len(values) > 1:
        text += f" ({min(values):.{digits}f}-{max(values):.{digits}f})"
    return f"{text}, **{failed} of {counted} failed**" if failed else text


def _troubles(peers: dict[str, Any]) -> Iterable[str]:
    for peer in peers.values():
        if "unavailable" in peer:
            yield f"{peer['title']} was left out: {peer['unavailable']}"
            continue
        for name, scenario in peer["scenarios"].items():
            for fault, count in scenario["failures"].items():
                yield f"{peer['title']}, {name}: {count} times: {fault}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=(__doc__ or "").partition(" Run:")[0])
    parser.add_argument("results", nargs="?", type=Path, default=LATEST, help="JSON of a run (the latest here)")
    print(report(orjson.loads(parser.parse_args().results.read_bytes())))

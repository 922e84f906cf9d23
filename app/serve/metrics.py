"""What is counted, for Prometheus.

Under gunicorn prometheus_client keeps the counts in files of PROMETHEUS_MULTIPROC_DIR (gunicorn.conf.py sets it), one
of each kind for each worker, so that any worker answers for all. A worker goes on with the files of one that has ended:
there are never more of them than there were workers at once.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, get_args

from flask import Flask, Response, g, request
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest, multiprocess, values
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.settings import metrics_folder
from app.storage.config import Connection
from app.storage.ledger import TOKENS as TOKENS_OF_A_ROW
from app.storage.ledger import Entry, alike
from app.upstream.health import Reason

log = logging.getLogger(__name__)
IS_SHARED = values.ValueClass.__name__ == "MmapedValue"
_files_of = "master"
if IS_SHARED:
    values.ValueClass = values.MultiProcessValue(lambda: _files_of)  # type: ignore[no-untyped-call]  # it has no types
_RESERVED_BYTES = 256 * 1024  # about a thousand series of each kind
REQUESTS = Counter("dragoman_requests_total", "Requests by route and status.", ["route", "status"])
SECONDS = Histogram(
    "dragoman_request_seconds",
    "Seconds until the head of the answer.",
    ["route"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
ANSWERS = Counter(
    "dragoman_answers_total", "Answers of the upstream by connection and how they ended.", ["connection", "ending"]
)
ATTEMPTS = Counter(
    "dragoman_attempts_total",
    "Attempts to have a chat request answered, by connection: answered, or the upstream's status, 502 or 504 without.",
    ["connection", "outcome"],
)
BOOKED = Counter(
    "dragoman_booked_requests_total",
    "Rows of the books by connection, model that answered and ending.",
    ["connection", "model", "ending"],
)
TOKENS = Counter("dragoman_tokens_total", "Tokens in the books by class.", ["connection", "model", "class"])
COST = Counter("dragoman_cost_micros_total", "Micro-dollars in the books.", ["connection", "model"])
COST_UNKNOWN = Counter(
    "dragoman_cost_unknown_total", "Rows of the books whose cost is not known.", ["connection", "model"]
)
FIRST_TOKEN = Histogram(
    "dragoman_first_token_seconds",
    "Seconds until a stream's answer began.",
    ["connection"],
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
WARNINGS = Counter("dragoman_warnings_total", "x-gateway-warnings by code.", ["code"])
LESSONS = Counter(
    "dragoman_lessons_total",
    "What refusals of the upstream taught of its models, by connection.",
    ["connection", "lesson"],
)


@lru_cache(4096)
def _series(metric: Any, *labels: str) -> Any:
    """`metric.labels()`, which costs as much as counting does."""
    return metric.labels(*labels)


_ENDINGS = frozenset(
    [
        *("complete", "client_gone", "gateway_stopping", "database_unavailable", "internal_error"),
        *("timeout", "upstream_timeout", "upstream_disconnected", "upstream_unreachable", "upstream_invalid_response"),
        *("upstream_authentication_failed", "insufficient_quota", "rate_limit_exceeded", "overloaded"),
        *("invalid_request_error", "permission_denied", "not_found", "model_not_found", "request_too_large"),
        *("context_length_exceeded", "invalid_image", "invalid_value", "all_connections_failed", "conflict"),
    ]
)
"""How an answer can end; an upstream may call its errors what it likes, and each would be a series for good."""


def init_app(app: Flask) -> None:
    """Counts each request, refused ones too: call before the hooks that refuse."""

    @app.before_request
    def begin() -> None:
        g.began_s = time.monotonic()

    @app.after_request
    def count(response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else "(no such route)"
        _series(REQUESTS, route, str(response.status_code)).inc()
        _series(SECONDS, route).observe(time.monotonic() - g.began_s)
        return response


def count_answer(connection: Connection, ending: str) -> None:
    _series(ANSWERS, connection.id, ending if ending in _ENDINGS else "other").inc()


_OF_ONE_SERIES = attrgetter("connection", "model", "ending")
_CLASSES = {name: name.removesuffix("_tokens") for name in TOKENS_OF_A_ROW if name.endswith("_tokens")}


def count_rows(rows: Iterable[Entry], listed: Callable[[str], str | None]) -> None:
    """What is counted of tokens and money is what the books say, from the same numbers. `listed` answers the name under
    which a model has a price: an upstream may call its models what it likes."""
    for (connection, served, ending), some in alike(rows, _OF_ONE_SERIES).items():
        model = listed(served) or "other"
        _series(BOOKED, connection, model, ending).inc(len(some))
        for name, kind in _CLASSES.items():
            if count := sum(map(attrgetter(name), some)):
                _series(TOKENS, connection, model, kind).inc(count)
        known = [row.cost_micros for row in some if row.cost_micros is not None]
        if known:
            _series(COST, connection, model).inc(sum(known))
        if len(known) < len(some):
            _series(COST_UNKNOWN, connection, model).inc(len(some) - len(known))
        for row in some:
            if row.ttft_ms is not None:
                _series(FIRST_TOKEN, connection).observe(row.ttft_ms / 1000)


def count_attempt(connection: Connection, outcome: str) -> None:
    _series(ATTEMPTS, connection.id, outcome).inc()


def count_warnings(codes: Iterable[str]) -> None:
    for code in codes:
        _series(WARNINGS, code).inc()


def count_lesson(connection: Connection, lesson: str) -> None:
    _series(LESSONS, connection.id, lesson).inc()


def begin(place: int) -> None:
    """A worker starts. No other that runs may have that place; the counts of one that had it go on."""
    global _files_of
    _files_of = f"worker-{place}"
    folder = metrics_folder()
    if folder is None:
        return
    # Writing to a mapped file that finds no space would kill the worker.
    for kind in ("counter", "histogram"):
        path = folder / f"{kind}_{_files_of}.db"
        try:
            with path.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, _RESERVED_BYTES)
        except OSError as error:
            log.warning("metrics: no space for %s (%s)", path, error.strerror)


class WorkerStates(Collector):
    """What the workers have published (app/serve/worker_state.py)."""

    def __init__(self, states: Sequence[Mapping[str, Any]]) -> None:
        self._states = states

    def collect(self) -> Iterator[Metric]:
        now = time.monotonic()
        generations = [s["generation"] for s in self._states if s["generation"] is not None]
        yield GaugeMetricFamily(
            "dragoman_config_generation", "The configuration in force.", value=min(generations, default=0)
        )
        yield GaugeMetricFamily("dragoman_workers", "Worker processes.", value=len(self._states))
        out = GaugeMetricFamily(
            "dragoman_connection_out",
            "Workers that send nothing to a connection, or nothing for some of its models, by reason.",
            labels=["connection", "reason"],
        )
        for id in sorted({id for state in self._states for id in state["connections"]}):
            told = [
                {o["reason"] for o in s["connections"].get(id, {"outs": ()})["outs"] if o["until"] > now}
                for s in self._states
            ]
            for reason in get_args(Reason):
                out.add_metric([id, reason], sum(reason in reasons for reasons in told))
        yield out
        info = GaugeMetricFamily(
            "dragoman_connection_info", "The names of the connections.", labels=["connection", "name", "base_url"]
        )
        names = {id: known for state in self._states for id, known in state["connections"].items()}
        for id, known in sorted(names.items()):
            info.add_metric([id, known["name"], known["base_url"]], 1)
        yield info


def exposition(states: Sequence[Mapping[str, Any]]) -> bytes:
    """All workers' counts, and their states, in Prometheus's text format."""
    counts = REGISTRY
    if IS_SHARED:
        counts = CollectorRegistry()
        multiprocess.MultiProcessCollector(counts)  # type: ignore[no-untyped-call]  # the library has no types here
    gauges = CollectorRegistry()
    gauges.register(WorkerStates(states))
    return generate_latest(counts) + generate_latest(gauges)

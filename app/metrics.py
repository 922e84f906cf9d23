"""What is counted, for Prometheus.

With several workers prometheus_client keeps the counts in files of PROMETHEUS_MULTIPROC_DIR (gunicorn.conf.py sets it),
so that any worker answers for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from prometheus_client.values import ValueClass

from app.storage.config import Connection

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
TOKENS = Counter("dragoman_tokens_total", "Tokens by connection and class.", ["connection", "class"])
WARNINGS = Counter("dragoman_warnings_total", "x-gateway-warnings by code.", ["code"])
GENERATION = Gauge("dragoman_config_generation", "Generation of the configuration in force.", multiprocess_mode="min")


def count_answer(connection: Connection, ending: str, usage: Mapping[str, Any]) -> None:
    ANSWERS.labels(connection.id, ending).inc()
    for kind in ("prompt_tokens", "completion_tokens"):
        if usage.get(kind):
            TOKENS.labels(connection.id, kind.removesuffix("_tokens")).inc(usage[kind])


def count_warnings(codes: Iterable[str]) -> None:
    for code in codes:
        WARNINGS.labels(code).inc()


def exposition() -> bytes:
    """All workers' counts in Prometheus's text format."""
    if ValueClass.__name__ == "MmapedValue":
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library has no types here
        return generate_latest(registry)
    return generate_latest()

"""Is it alive, is it ready, and what has it counted."""

from __future__ import annotations

import os
from typing import Any

from flask import Blueprint, Response

from app.access.callers import may_see_details
from app.access.endpoint import endpoint
from app.errors import DatabaseUnavailable
from app.schemas.health import AliveSchema, HealthSchema, ReadinessSchema
from app.serve import metrics, worker_state
from app.services import services, this_app
from app.storage import database

blueprint = Blueprint("health", __name__)


@blueprint.get("/v1")
@endpoint("anyone", "Is it alive", answers={200: AliveSchema})
def alive() -> dict[str, bool]:
    return {"status": True}


@blueprint.route("/", methods=["HEAD"])
@endpoint("anyone", documented=False)
def probe() -> str:
    """Editors ask so whether the gateway is there. Whoever wants to see it is sent to the pages (app/pages/docs.py)."""
    return ""


@blueprint.get("/api/hello")
@endpoint("anyone", documented=False)
def hello() -> str:
    """Claude Code opens its connection with it."""
    return ""


@blueprint.get("/healthz")
@endpoint("anyone", "Is the process up", answers={200: HealthSchema})
def healthz() -> dict[str, str]:
    return {"status": "ok"}


@blueprint.get("/readyz")
@endpoint(
    "anyone",
    "Can it serve requests",
    description="503 only for the database, secrets that cannot be decrypted, and a process that is stopping. Trouble "
    "upstream or nothing configured yet is 200 with the status degraded. Details are for admins and the metrics token.",
    answers={200: ReadinessSchema, 503: ReadinessSchema},
)
def readyz() -> tuple[dict[str, Any], int]:
    gateway = services()
    failures = []
    try:
        gateway.config.refresh()  # reads the row that every worker follows
    except DatabaseUnavailable as unavailable:
        failures.append(unavailable.message)
    snapshot = gateway.config.last_snapshot
    if snapshot is None:
        return {"status": "unavailable"}, 503
    if snapshot.undecryptable:
        failures.append(
            f"{', '.join(snapshot.undecryptable)} cannot be decrypted: the SECRET_KEY is another one than they were "
            "stored with. Bring the earlier key back as a fallback, or enter the values anew."
        )
    if database.is_out_of_space(gateway.settings):
        failures.append("There is no space left for the gateway's SQLite database: nothing can be saved.")
    states = worker_state.all_workers(this_app())
    connections = [worker_state.connection_as_told(c, states) for c in snapshot.connections if c.enable]
    workers = [worker_state.worker_as_told(state) for state in states]
    if worker_state.is_stopping:
        failures.append("This worker is stopping.")
    degraded = list(snapshot.problems)
    if not snapshot.enabled:
        degraded.append("The Anthropic integration is disabled.")
    elif not connections:
        degraded.append("No connection is configured.")
    for connection in connections:
        degraded += [f"{connection['name']}: {reason}" for reason in worker_state.reasons(connection)]
    answer: dict[str, Any] = {"status": "unavailable" if failures else "degraded" if degraded else "ok"}
    if may_see_details():
        answer.update(
            reasons=failures + degraded,
            generation=snapshot.generation,
            connections=connections,
            worker={**next(w for w in workers if w["pid"] == os.getpid()), **worker_state.held()},
            workers=workers,
        )
    return answer, 503 if failures else 200


@blueprint.get("/metrics")
@endpoint("metrics", "Counts for Prometheus", answers={200: "text/plain"})
def prometheus() -> Response:
    services().books.tell()
    states = worker_state.all_workers(this_app())
    return Response(metrics.exposition(states), content_type="text/plain; version=0.0.4; charset=utf-8")

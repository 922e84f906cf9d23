"""Is it alive, is it ready, what has it counted, and what does its API look like."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
from flask import Blueprint, Response, current_app, redirect, render_template
from werkzeug.wrappers import Response as AnyResponse

from app import metrics, worker_state
from app.access import may_see_details
from app.api import endpoint
from app.blueprints.pages import this_app
from app.errors import DatabaseUnavailable
from app.openapi import specification
from app.schemas.health import AliveSchema, HealthSchema, ReadinessSchema
from app.services import services
from app.storage.config import Connection
from app.upstream.pool import label

blueprint = Blueprint("health", __name__)


@blueprint.get("/v1")
@endpoint("anyone", "Is it alive", answers={200: AliveSchema})
def alive() -> dict[str, bool]:
    return {"status": True}


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
    states = worker_state.all_workers(this_app())
    connections = [_as_told(c, states) for c in snapshot.connections if c.enable]
    workers = [_worker_as_told(state) for state in states]
    if worker_state.is_stopping:
        failures.append("This worker is stopping.")
    degraded = list(snapshot.problems)
    if not snapshot.enabled:
        degraded.append("The Anthropic integration is disabled.")
    elif not connections:
        degraded.append("No connection is configured.")
    for connection in connections:
        degraded += [f"{connection['name']}: {reason}" for reason in _reasons(connection)]
    answer: dict[str, Any] = {"status": "unavailable" if failures else "degraded" if degraded else "ok"}
    if may_see_details():
        answer.update(
            reasons=failures + degraded,
            generation=snapshot.generation,
            connections=connections,
            worker=next(worker for worker in workers if worker["pid"] == os.getpid()),
            workers=workers,
        )
    return answer, 503 if failures else 200


def _worker_as_told(state: worker_state.State) -> dict[str, Any]:
    return {
        "pid": state["pid"],
        "up_s": round(time.monotonic() - state["started"]),
        "generation": state["generation"],
        "is_stopping": state["is_stopping"],
    }


def _as_told(connection: Connection, states: Sequence[worker_state.State]) -> dict[str, Any]:
    """A connection, with what each worker has to say of it."""
    now = time.monotonic()
    told = [(s["pid"], s["connections"][connection.id]) for s in states if connection.id in s["connections"]]
    learned = [known["models_learned"] for _, known in told if known["models_learned"]]
    errors = [known["models_error"] for _, known in told if known["models_error"]]
    lessons: dict[str, set[str]] = {}
    for _, known in told:
        for model, names in known["lessons"].items():
            lessons.setdefault(model, set()).update(names)
    return {
        "id": connection.id,
        "name": label(connection),
        "base_url": connection.base_url,
        "models_learned_s_ago": round(now - max(learned)) if learned else None,
        "learned_from_refusals": {model: sorted(names) for model, names in lessons.items()},
        "error": errors[0] if errors else None,
        "out": [
            {
                "reason": out["reason"],
                "model": out["model"],
                "for_s": math.ceil(out["until"] - now),
                "error": out["error"],
                "worker": pid,
            }
            for pid, known in told
            for out in known["outs"]
            if out["until"] > now
        ],
    }


_IN_WORDS = {
    "cooling_down": "is at its rate limit",
    "failing": "fails again and again",
    "key_refused": "refuses the key",
    "out_of_funds": "has no credit left",
}


def _reasons(connection: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a connection, each thing once, for however many workers it holds."""
    told = {(out["reason"], out["model"]): out for out in connection["out"]}
    for (reason, model), out in told.items():
        about = f" for {model}" if model else ""
        yield f"{_IN_WORDS[reason]}{about}; asked again in {out['for_s']} s ({out['error']})"
    if connection["error"]:
        yield f"its models could not be listed: {connection['error']}"


@blueprint.get("/metrics")
@endpoint("metrics", "Counts for Prometheus", answers={200: "text/plain"})
def prometheus() -> Response:
    states = worker_state.all_workers(this_app())
    return Response(metrics.exposition(states), content_type="text/plain; version=0.0.4; charset=utf-8")


@blueprint.get("/openapi.json")
@endpoint("anyone", "This description", answers={200: "application/json"})
def openapi() -> Response:
    return Response(orjson.dumps(specification(current_app)), mimetype="application/json")


@blueprint.get("/docs")
@endpoint("anyone", documented=False)
def docs() -> str:
    return render_template("docs.html", spec=specification(current_app))


@blueprint.get("/")
@endpoint("anyone", documented=False)
def front_page() -> AnyResponse:
    return redirect("/admin")

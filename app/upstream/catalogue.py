"""Which models there are: the overlay of app/models.json, what each connection's upstream says, the admin's entries.

Learned in the background and kept for an hour; a chat never waits for it.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from itertools import accumulate
from typing import Any

import gevent

from app.errors import GatewayError, ModelNotFound, UpstreamError
from app.storage.config import ConfigSnapshot, Connection
from app.translate.facts import MOST_TOKENS, ModelFacts, facts_for, with_operator, with_upstream
from app.translate.json_depth import is_deeper_than
from app.translate.learning import Lesson
from app.upstream import names
from app.upstream.client import UpstreamClient
from app.upstream.failures import not_understood
from app.upstream.health import bare
from app.upstream.names import OVERLAY, alias_in, bare_name, has_prefix, permission, plain, public_name, snapshot_of
from app.upstream.pool import Pool, candidates, label

log = logging.getLogger(__name__)

FRESH_S = 3600.0
RETRY_S = 30.0
FETCH_TIMEOUT_S = 10.0
FIRST_FETCH_WAIT_S = 2.0
_PAGE_SIZE = 1000
_MOST_PAGES = 20
_MOST_NAMES = 1000
_LONGEST_ID = 256
_DEEPEST = 20
_MOST_DIGITS = 3  # of a number of a version; longer ones are dates
_LINES = frozenset(model["line"] for model in OVERLAY.values())


@dataclass
class _Learned:
    """Of one account: its model objects by id, and when they were asked for; and by names that clients may have
    invented what was learned from refusals, and what is known altogether."""

    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    fetched_at: float = 0.0
    retry_at: float = 0.0
    error: GatewayError | None = None
    fetching: Any = None
    lessons: dict[str, dict[str, Lesson]] = field(default_factory=dict)
    facts: dict[str, tuple[float, ModelFacts]] = field(default_factory=dict)
    spelling: tuple[float, Mapping[str, str]] | None = None


@dataclass(frozen=True)
class Route:
    """Where a request for a model can go: connections, best first, each with the id that the model has there."""

    model: str
    """The name as the client may know it, without alias and provider prefix."""
    targets: tuple[tuple[Connection, str], ...]

    @property
    def connections(self) -> list[Connection]:
        return [connection for connection, _ in self.targets]

    def upstream_id(self, connection: Connection) -> str:
        return next(id for candidate, id in self.targets if candidate.id == connection.id)


class Catalogue:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._learned: dict[tuple[str, str], _Learned] = {}
        self._doubted_at = -1
        """The generation whose names were looked at."""
        self._doubts: list[str] = []

    def follow(self, snapshot: ConfigSnapshot) -> None:
        """Forgets what was learned of connections that are no longer configured, and of keys that were rotated, and
        tells in the log of names that nothing lists. Call it at each change, and now and then."""
        accounts = {_account(connection) for connection in snapshot.connections}
        self._learned = {account: learned for account, learned in self._learned.items() if account in accounts}
        self._tell_doubts(snapshot)

    def _tell_doubts(self, snapshot: ConfigSnapshot) -> None:
        """Who sets names in the environment sees no answer with warnings. Once the models of all connections are known:
        before, a name may be right."""
        in_use = [c for c in snapshot.connections if c.enable]
        if snapshot.generation == self._doubted_at or not in_use:
            return
        if not all(self._state(connection).fetched_at for connection in in_use):
            return
        before, self._doubts = self._doubts, names.doubts(snapshot, self._learned_ids(snapshot))
        self._doubted_at = snapshot.generation
        for doubt in self._doubts:
            if doubt not in before:  # a new key is a new generation, too
                log.warning("configuration: %s", doubt)

    def facts(self, connection: Connection, model: str, snapshot: ConfigSnapshot) -> ModelFacts:
        """What is known now; starts a refresh in the background when that is old."""
        learned = self._state(connection)
        self._refresh_if_old(connection, learned)
        cached = learned.facts.get(model)
        stamp = learned.fetched_at + snapshot.generation
        if cached is None or cached[0] != stamp:
            if len(learned.facts) >= _MOST_NAMES:
                learned.facts.clear()
            cached = learned.facts[model] = (stamp, _merged_facts(learned, model, snapshot))
        return cached[1]

    def learn(self, connection: Connection, model: str, lesson: Lesson) -> None:
        """What a refusal taught of the model holds for as long as this process runs and the connection's key stays:
        accounts differ in what they can, and models change."""
        learned = self._state(connection)
        if len(learned.lessons) >= _MOST_NAMES:
            learned.lessons.clear()
        learned.lessons.setdefault(model, {})[lesson.name] = lesson
        learned.facts.pop(model, None)
        log.info("%s, %s: learned from a refusal: %s", label(connection), model, lesson.name)

    def lessons(self, connection: Connection) -> dict[str, list[str]]:
        """By model, what was learned from refusals."""
        return {model: list(found) for model, found in self._state(connection).lessons.items()}

    def route(self, requested: str, snapshot: ConfigSnapshot, allowed: Sequence[str] | None = None) -> Route:
        """Raises ModelNotFound for a model that a connection's model_ids or the key's own list leave out."""
        in_use = candidates(snapshot)
        alias = alias_in(requested, snapshot)
        if alias is not None and not requested.endswith(alias) and self._is_listed(requested, in_use, snapshot):
            alias = None  # of the names that differ by case only the one that is asked for exactly
        asked = requested if alias is None else snapshot.values["MODEL_ALIASES"][alias]
        model = bare_name(asked) if alias is None else asked
        # A name with a connection's prefix is meant for that one; others would take it for a model they do not know.
        prefixed = [c for c in in_use if c.prefix_id and model.startswith(f"{c.prefix_id}.")]
        prefixed = prefixed or [c for c in in_use if c.prefix_id and has_prefix(model, c)]
        found = ((c, self._id_at(c, asked, model, snapshot)) for c in prefixed or in_use)
        targets = tuple((c, id) for c, id in found if id is not None)
        if targets:
            model = public_name(targets[0][1], targets[0][0])
        if not targets or not permission(allowed)(model, alias):
            raise ModelNotFound(requested, model)
        return Route(model, targets)

    def _id_at(self, connection: Connection, asked: str, model: str, snapshot: ConfigSnapshot) -> str | None:
        """The model's id at this connection, None where the connection does not serve it. A name that is listed as it
        was asked for wins over one that differs in how it is written."""
        if connection.prefix_id:
            if not has_prefix(model, connection):
                return None
            asked = model = bare_name(model[len(connection.prefix_id) + 1 :])
        spelling = self._spelling(connection, snapshot)
        for name in (asked, model, asked.lower(), model.lower()):
            if name in spelling:
                model = spelling[name]
                break
        return model if not connection.model_ids or model in connection.model_ids else None

    def _is_listed(self, name: str, connections: Iterable[Connection], snapshot: ConfigSnapshot) -> bool:
        return any(self._spelling(connection, snapshot).get(name) == name for connection in connections)

    def _spelling(self, connection: Connection, snapshot: ConfigSnapshot) -> Mapping[str, str]:
        """The ids that are known at a connection by themselves, and in small letters where that is no other id."""
        learned = self._state(connection)
        stamp = learned.fetched_at + snapshot.generation
        if learned.spelling is None or learned.spelling[0] != stamp:
            ids = [*(m["id"] for m in snapshot.models), *names.ids_at(connection, learned.models)]
            learned.spelling = (stamp, {**{id.lower(): id for id in ids}, **{id: id for id in ids}})
        return learned.spelling[1]

    def models(
        self, snapshot: ConfigSnapshot, allowed: Sequence[str] | None = None, *, waits: bool = True
    ) -> list[dict[str, Any]]:
        """Merged entries for to_model_object, newest first; the first connection that has an id wins.

        It waits up to two seconds for upstreams that have not answered yet, without `waits` for those alone that were
        never asked. Stale or overlay entries stand in for one that does not answer.
        """
        merged: dict[str, dict[str, Any]] = {}
        connections = candidates(snapshot)
        self._await_first_answers(connections, again=waits)
        for connection in connections:
            for entry in self._entries_of(connection):
                merged.setdefault(entry["id"], entry)
        for override in snapshot.models:
            known = merged.get(override["id"], {"id": override["id"]})
            merged[override["id"]] = {**known, **{k: v for k, v in override.items() if v is not None}}
        by_name = {plain(id): entry for id, entry in merged.items()}
        for alias, target in snapshot.values["MODEL_ALIASES"].items():
            known = merged.get(target) or by_name.get(plain(target)) or _overlay_entry(snapshot_of(target))
            name = known.get("name") or target
            merged[alias] = {**known, "id": alias, "name": alias, "alias_of": target, "alias_of_name": name}
        may_use = permission(allowed)
        listed = [
            m
            for m in merged.values()
            if m.get("lifecycle") != "retired"
            and may_use(m.get("alias_of", m["id"]), m["id"] if "alias_of" in m else None)
        ]
        return _in_order(listed, snapshot.values["MODEL_ORDER"])

    def nearest(self, name: str, snapshot: ConfigSnapshot, allowed: Sequence[str] | None = None) -> str | None:
        """Which of the models that models() lists a name that nothing knows was probably to be. Waits as it does."""
        return names.nearest(name, [m["id"] for m in self.models(snapshot, allowed)])

    def warnings(self, settings: Collection[str], snapshot: ConfigSnapshot) -> list[str]:
        """Of the names of models in these settings those that no connection lists, in sentences for the admin. Waits
        as models() does."""
        return names.warnings(settings, snapshot, self._learned_ids(snapshot))

    def unlisted_aliases(self, snapshot: ConfigSnapshot) -> frozenset[str]:
        """The aliases that stand for what no connection lists."""
        return names.unlisted_aliases(snapshot, self._learned_ids(snapshot))

    def key_warnings(self, models: Collection[str], snapshot: ConfigSnapshot) -> list[str]:
        """The same of the models that a client key may use."""
        return names.key_warnings(models, snapshot, self._learned_ids(snapshot))

    def _learned_ids(self, snapshot: ConfigSnapshot) -> names.Learned:
        asked = cache(lambda: self._await_first_answers([c for c in snapshot.connections if c.enable]))

        def learned(connection: Connection) -> list[str]:
            asked()
            found = self._state(connection).models.items()
            return [id for id, model in found if model.get("lifecycle") != "retired"]

        return learned

    def status(self, connection: Connection) -> tuple[float, GatewayError | None]:
        """(when its models were last learned, in monotonic seconds or 0; the error of the last attempt)."""
        learned = self._state(connection)
        return learned.fetched_at, learned.error

    def _entries_of(self, connection: Connection) -> Iterator[dict[str, Any]]:
        learned = self._state(connection)
        for id in names.ids_at(connection, learned.models):
            entry = _overlay_entry(id)
            if id in learned.models:
                entry.update(_learned_entry(learned.models[id]))
            if connection.tags:
                entry["tags"] = list(connection.tags)
            entry["id"] = public_name(id, connection)
            yield entry

    def _state(self, connection: Connection) -> _Learned:
        return self._learned.setdefault(_account(connection), _Learned())

    def _refresh_if_old(self, connection: Connection, learned: _Learned) -> None:
        now = time.monotonic()
        fresh = learned.fetched_at and now - learned.fetched_at < FRESH_S
        if fresh or now < learned.retry_at or learned.fetching is not None:
            return
        learned.fetching = gevent.spawn(self._fetch, connection, learned)

    def _await_first_answers(self, connections: Sequence[Connection], *, again: bool = True) -> None:
        waited_for = []
        for connection in connections:
            learned = self._state(connection)
            was_asked = learned.fetching is not None or learned.retry_at > 0
            self._refresh_if_old(connection, learned)
            if learned.fetched_at or learned.fetching is None or connection.model_ids:
                continue
            if again or not was_asked:
                waited_for.append(learned.fetching)
        gevent.joinall(waited_for, timeout=FIRST_FETCH_WAIT_S)

    def _fetch(self, connection: Connection, learned: _Learned) -> None:
        learned.retry_at = time.monotonic() + RETRY_S
        try:
            learned.models = {m["id"]: m for m in list_models(self._pool.client(connection))}
            learned.error = None
            learned.fetched_at = time.monotonic()
        except GatewayError as error:
            learned.error = bare(error) if isinstance(error, UpstreamError) else error
            log.warning("%s: its models could not be listed: %s", label(connection), error.message)
        finally:
            learned.fetching = None


def _account(connection: Connection) -> tuple[str, str]:
    """The key decides what is available, so a rotated one is asked anew."""
    return connection.id, connection.key


def _merged_facts(learned: _Learned, model: str, snapshot: ConfigSnapshot) -> ModelFacts:
    """The operator has the last word."""
    facts = facts_for(model, OVERLAY)
    info = learned.models.get(model)
    if info is not None:
        facts = with_upstream(facts, info)
    for lesson in learned.lessons.get(model, {}).values():
        facts = replace(facts, **lesson.facts)
    entry = next((e for e in snapshot.models if e["id"] == model), None)
    return facts if entry is None else with_operator(facts, entry)


def list_models(client: UpstreamClient) -> list[dict[str, Any]]:
    """All pages of the upstream's `GET /v1/models`. Raises UpstreamError."""
    models: dict[str, dict[str, Any]] = {}
    params: dict[str, Any] = {"limit": _PAGE_SIZE}
    for _ in range(_MOST_PAGES):
        page = client.get("/v1/models", timeout_s=FETCH_TIMEOUT_S, params=params)
        data = page.get("data")
        if not isinstance(data, list):
            raise not_understood("its list of models has no data")
        found = {m["id"]: m for m in data if _is_model(m)}
        is_news = bool(found.keys() - models.keys())
        models |= found
        if not page.get("has_more") or not is_news:
            break
        params["after_id"] = next(reversed(found))
    return [*models.values()]


def _is_model(entry: Any) -> bool:
    """And one that can be shown: what an upstream says of its models stands in the lists of all."""
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        return False
    return 0 < len(entry["id"]) <= _LONGEST_ID and not is_deeper_than(entry, _DEEPEST)


def _in_order(entries: Iterable[dict[str, Any]], wanted: Sequence[str]) -> list[dict[str, Any]]:
    """Those that MODEL_ORDER names first; then the newest Sonnet, since programs that start on the first of the list
    should not start on the dearest model; then the newest first. An alias stands right behind its model, so that a new
    one changes no other's place."""
    listed = [*entries]
    models = _newest_first([m for m in listed if "alias_of" not in m])
    usual = next((m for m in models if m.get("line") == "sonnet"), None)
    places = {plain(name): place for place, name in reversed([*enumerate(wanted)])}
    ranks = {m["id"]: rank for rank, m in enumerate(models)}
    by_name = {plain(m["id"]): m for m in reversed(models)} | {m["id"]: m for m in models}

    def place(entry: dict[str, Any]) -> tuple[Any, ...]:
        target = entry.get("alias_of", entry["id"])
        model = by_name.get(target) or by_name.get(plain(target)) or entry
        wanted_at = places.get(plain(entry["id"]), places.get(plain(model["id"]), len(wanted)))
        return (wanted_at, model is not usual, ranks.get(model["id"], len(ranks)), "alias_of" in entry, entry["id"])

    return sorted(listed, key=place)


def _newest_first(models: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A model whose date is unknown is newer than those of its line with a lower version."""

    def age(model: dict[str, Any]) -> tuple[Any, ...]:
        line, version = _line_and_version(model["id"])
        created = model.get("created") or 0
        if not created and line in dated:
            versions, newest = dated[line]
            below = bisect_left(versions, version)
            created = newest[below - 1] if below else 0
        return (-created, (*(-number for number in version), 1), model["id"])  # 5.5 before 5, which ends with the 1

    known: dict[str | None, list[tuple[tuple[int, ...], int]]] = {}
    for model in models:
        line, version = _line_and_version(model["id"])
        if line and model.get("created"):
            known.setdefault(line, []).append((version, model["created"]))
    dated = {}
    for line, entries in known.items():
        entries.sort()
        dated[line] = [v for v, _ in entries], [*accumulate((created for _, created in entries), max)]
    return sorted(models, key=age)


def _line_and_version(id: str) -> tuple[str | None, tuple[int, ...]]:
    """Of `claude-opus-4-5-20251101` these are opus and (4, 5)."""
    parts = plain(id).split("-")
    line = next((part for part in parts if part in _LINES), None)
    return line, tuple(int(part) for part in parts if part.isdecimal() and len(part) <= _MOST_DIGITS)


def _overlay_entry(id: str) -> dict[str, Any]:
    known = OVERLAY.get(id)
    if known is None:
        return {"id": id}
    return {
        "id": id,
        "name": known["display_name"],
        "created": _unix(known["created"]),
        "max_input_tokens": known["max_input_tokens"],
        "max_tokens": known["max_tokens"],
        "lifecycle": known["lifecycle"],
        "retires_at": known["retires_at"],
        "sampling": known["sampling"],
        "line": known["line"],
    }


def _learned_entry(info: Mapping[str, Any]) -> dict[str, Any]:
    """What the upstream says, as far as it is of the type that Anthropic documents: others imitate its API."""
    entry: dict[str, Any] = {"created": _unix(info.get("created_at"))}
    for name, upstream_name, kind in _LEARNED_FIELDS:
        value = info.get(upstream_name)
        is_nonsense = isinstance(value, int) and not 0 < value <= MOST_TOKENS
        if isinstance(value, kind) and not is_nonsense:
            entry[name] = value
    return {name: value for name, value in entry.items() if value}


_LEARNED_FIELDS: tuple[tuple[str, str, type], ...] = (
    ("name", "display_name", str),
    ("max_input_tokens", "max_input_tokens", int),
    ("max_tokens", "max_tokens", int),
    ("capabilities", "capabilities", dict),
    ("lifecycle", "lifecycle", str),
    ("retires_at", "retires_at", str),
    ("line", "line", str),
)


def _unix(moment: Any) -> int:
    """Unix seconds of an ISO date or time in UTC; 0 for what is none."""
    try:
        parsed = datetime.fromisoformat(moment if "T" in moment else f"{moment}T00:00:00+00:00")
        return max(0, int(parsed.timestamp()))
    except (TypeError, ValueError, OverflowError):
        return 0

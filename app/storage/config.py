"""Runtime settings that persist: database over environment over default, live in every worker within a second.

Requests read `PersistentConfig.snapshot`, an immutable value in memory. A change is validated as a whole and committed
with a new generation in one transaction; watch() compares the generation every half second and reloads.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import orjson
from flask import Flask
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.errors import Conflict, DatabaseUnavailable, InvalidRequest, NotFound, PreconditionFailed, shown
from app.money.prices import PriceList, to_rows
from app.money.shipped import PRICES
from app.settings import RUNTIME_SETTINGS, Settings
from app.storage import audit, database, masking, validation
from app.storage.connections import Connection, Pair, kept_ids, moved_configs, to_connections, unmasked_configs
from app.storage.secrets import Undecryptable, Vault
from app.storage.tables import GenerationRow, HistoryRow, SettingRow

if TYPE_CHECKING:
    from gevent import Greenlet

__all__ = ["PUBLIC", "ConfigSnapshot", "Connection", "HistoryEntry", "PersistentConfig"]

log = logging.getLogger(__name__)
Source = Literal["database", "environment", "default"]

WATCH_INTERVAL_S = 0.5
HISTORY_KEPT = 200
PUBLIC = (
    "ENABLE_ANTHROPIC_API",
    "ANTHROPIC_API_BASE_URLS",
    "ANTHROPIC_API_KEYS",
    "ANTHROPIC_API_CONFIGS",
    "ANTHROPIC_MODELS",
)
URLS, KEYS, CONFIGS = PUBLIC[1], PUBLIC[2], PUBLIC[3]
ALIASES_ROW = "(connection ids)"  # kept beside the settings, not one of them


@dataclass(frozen=True)
class ConfigSnapshot:
    """The configuration at one generation. `values` holds the effective value of every declared setting;
    `undecryptable` names stored settings whose key is lost (they have their type's empty value here); `problems` are
    sentences for the admin."""

    generation: int
    enabled: bool
    connections: tuple[Connection, ...] = field(repr=False)
    models: tuple[Mapping[str, Any], ...]
    values: Mapping[str, Any] = field(repr=False)
    sources: Mapping[str, Source]
    undecryptable: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @cached_property
    def alias_names(self) -> Mapping[str, str]:
        """The names of MODEL_ALIASES by these in small letters."""
        return {name.lower(): name for name in self.values["MODEL_ALIASES"]}

    @cached_property
    def prices(self) -> PriceList:
        """What is in force at any instant."""
        return PRICES.overridden(to_rows(self.values["MODEL_PRICES"], f"o:{self.generation}"))


@dataclass(frozen=True)
class HistoryEntry:
    """A change; restoring it brings back what was before it."""

    id: int
    at: int
    who: str
    fields: tuple[str, ...]
    generation: int


@dataclass(frozen=True)
class _Stored:
    """What the database holds."""

    generation: int
    salt: str
    overrides: Mapping[str, Any]
    undecryptable: tuple[str, ...]
    aliases: Mapping[str, str]


class PersistentConfig:
    """Raises ConfigError when a runtime setting's environment variable has a value it may not have."""

    def __init__(self, app: Flask, settings: Settings, vault: Vault) -> None:
        self._app = app
        self._vault = vault
        self._environment = {
            s.name: validation.from_environment(s, settings) for s in RUNTIME_SETTINGS if s.name in settings.runtime
        }
        self._snapshot: ConfigSnapshot | None = None
        self._turn = threading.Lock()
        self.database_ok = True
        """Whether the last look at the database succeeded."""
        self.on_change: list[Callable[[ConfigSnapshot], None]] = []
        """Called with each snapshot that comes into force."""
        self.on_watch: list[Callable[[], None]] = []
        """Called after each look of watch(): small periodic chores of other parts of storage."""
        vault.bind(app)

    @property
    def snapshot(self) -> ConfigSnapshot:
        """The configuration in force; no I/O once it was loaded. Raises DatabaseUnavailable if it never could be."""
        return self._snapshot or self.load()

    @property
    def last_snapshot(self) -> ConfigSnapshot | None:
        """The same, or None if it could never be loaded."""
        return self._snapshot

    def load(self) -> ConfigSnapshot:
        """Read everything anew."""
        first = self._snapshot is None
        try:
            stored = database.read(self._app, self._stored)
        except DatabaseUnavailable:
            self.database_ok = False
            raise
        self.database_ok = True
        snapshot = self._publish(self._to_snapshot(stored))
        if first:
            overridden = [name for name in self._environment if snapshot.sources[name] == "database"]
            if overridden:
                names = ", ".join(overridden)
                log.warning("the database overrides what the environment says of %s (reset it at /admin/config)", names)
            if KEYS in self._environment and snapshot.sources[PUBLIC[0]] == "default":
                log.warning("the environment has Anthropic keys, but no chat is answered: set %s=true", PUBLIC[0])
        for problem in snapshot.problems:
            log.error("configuration: %s", problem)
        return snapshot

    def refresh(self) -> bool:
        """Follow the generation and the secret key file; True when something was reloaded.

        Raises DatabaseUnavailable; the last snapshot stays.
        """
        rekeyed = self._vault.reload()
        before = self._snapshot
        try:
            generation = database.read(self._app, _generation)
        except DatabaseUnavailable:
            self.database_ok = False
            raise
        self.database_ok = True
        if before is not None and before.generation == generation and not (rekeyed and before.undecryptable):
            return rekeyed
        self.load()
        return True

    def watch(self) -> Greenlet[..., None]:
        """Refresh every half second, come what may."""
        import gevent

        def forever() -> None:
            while True:
                for work in (self.refresh, *self.on_watch):
                    try:
                        work()
                    except DatabaseUnavailable:
                        pass  # database.py logged it; the last snapshot stays in force
                    except Exception:  # a worker that stops following would serve revoked keys for ever
                        log.exception("what a worker does twice a second failed")
                gevent.sleep(WATCH_INTERVAL_S)

        return gevent.spawn(forever)

    def update(
        self, changes: Mapping[str, Any], *, who: str, expected_generation: int | None = None, ip: str = ""
    ) -> ConfigSnapshot:
        """Change settings, all or none. A mask in `changes` stands for the stored secret; the effective value makes no
        change. Raises InvalidRequest naming the field, PreconditionFailed, DatabaseUnavailable."""
        for name in changes:
            if name not in validation.DECLARED:
                validation.check(name, None)

        def overrides(now: ConfigSnapshot, stored: _Stored) -> dict[str, Any]:
            values = _checked(changes, now)
            changed = {name: value for name, value in values.items() if _differs(value, now.values[name])}
            return {**stored.overrides, **changed}

        return self._change(overrides, who=who, expected_generation=expected_generation, ip=ip, action="config.update")

    def reset(self, *names: str, who: str, expected_generation: int | None = None, ip: str = "") -> ConfigSnapshot:
        """Forget what the database says of `names`: the environment or the default holds again."""
        for name in names:
            if name not in validation.DECLARED:
                validation.check(name, None)

        def overrides(now: ConfigSnapshot, stored: _Stored) -> dict[str, Any]:
            left = {name: value for name, value in stored.overrides.items() if name not in names}
            if set(names) & {URLS, KEYS} and CONFIGS not in names and CONFIGS in left:
                values = {**now.values, **{name: self._fallback(name)[0] for name in names}}
                left[CONFIGS] = moved_configs(left[CONFIGS], _pairs(now.values), _pairs(values))
            return left

        return self._change(
            overrides, who=who, expected_generation=expected_generation, ip=ip, action="config.reset", forget=names
        )

    def history(self, *, limit: int = 50) -> list[HistoryEntry]:
        """The newest change first."""

        def work(session: Session) -> list[HistoryEntry]:
            rows = session.scalars(select(HistoryRow).order_by(HistoryRow.id.desc()).limit(limit))
            return [HistoryEntry(r.id, r.at, r.who, tuple(orjson.loads(r.fields)), r.generation) for r in rows]

        return database.read(self._app, work)

    def before_changes(self, *, limit: int = 50) -> dict[int, Mapping[str, Any] | None]:
        """By the id of a change in the history: all values as they were before it, secrets among them; None where they
        cannot be decrypted any more."""

        def work(session: Session) -> list[tuple[int, str]]:
            rows = session.scalars(select(HistoryRow).order_by(HistoryRow.id.desc()).limit(limit))
            return [(row.id, row.previous) for row in rows]

        return {id: self._values_of(token) for id, token in database.read(self._app, work)}

    def _values_of(self, token: str) -> Mapping[str, Any] | None:
        try:
            earlier = orjson.loads(self._vault.decrypt(token))
        except Undecryptable:
            return None
        return {name: earlier.get(name, self._fallback(name)[0]) for name in validation.DECLARED}

    def restore(
        self, history_id: int, *, who: str, expected_generation: int | None = None, ip: str = ""
    ) -> ConfigSnapshot:
        """Back to the settings as they were before a change of the history; this is a change itself.

        Raises NotFound, or Conflict when the earlier settings cannot be decrypted any more.
        """

        def work(session: Session) -> str | None:
            row = session.get(HistoryRow, history_id)
            return row.previous if row else None

        token = database.read(self._app, work)
        if token is None:
            raise NotFound(f"There is no change {history_id} in the history.")
        try:
            earlier: dict[str, Any] = orjson.loads(self._vault.decrypt(token))
        except Undecryptable:
            raise Conflict("The earlier settings were encrypted with a secret key that is gone.") from None
        known = {name: validation.check(name, value) for name, value in earlier.items() if name in validation.DECLARED}
        return self._change(
            lambda now, stored: known, who=who, expected_generation=expected_generation, ip=ip, action="config.restore"
        )

    def bump(self, session: Session) -> int:
        """Count the generation up in somebody else's transaction: every worker then looks again."""
        row = _locked_generation(session)
        row.number += 1
        return row.number

    def trial_connection(self, url: Any, key: Any, config: Any) -> Connection:
        """A connection that need not be stored, to be tried out. A mask, of a key or a header, stands for what is
        stored with this very base URL and nothing else. Raises InvalidRequest."""
        now = self.snapshot
        used = validation.base_url(url, "url")
        entry = validation.connection_config(config, "config")
        headers = entry.get("headers", {})
        here = [c for c in now.connections if c.base_url == used]
        if masking.is_mask(key):
            here = [c for c in here if masking.mask(c.key) == key]
            if len(here) != 1:
                reason = "no key" if not here else f"{len(here)} keys"
                raise InvalidRequest(
                    f"key: {reason} like {shown(key)} stored with this base URL; send the key itself.", param="key"
                )
            key = here[0].key
        stored = [{"headers": c.headers} for c in here]
        plain = {
            name: masking.unmask_header(value, name, None, stored, f"config.headers.{name[:100]}")
            if masking.is_mask(value)
            else value
            for name, value in headers.items()
        }
        key = validation.api_key(key, "key")
        known = next((c for c in here if c.key == key), None)
        if known is not None and not entry:
            return known
        entry = {**entry, "headers": plain}
        return to_connections([(used, key)], {"0": entry}, salt="trial", aliases={})[0]

    def reencrypt(self, *, who: str, ip: str = "") -> tuple[int, list[str]]:
        """Encrypt every stored secret with the current key. Answers how many there were, and what could not be
        decrypted (left untouched)."""

        def work(session: Session) -> tuple[int, list[str]]:
            self.bump(session)
            done, lost = 0, []
            for setting in session.scalars(select(SettingRow).where(SettingRow.encrypted)):
                try:
                    setting.value = self._vault.reencrypt(setting.value)
                    done += 1
                except Undecryptable:
                    lost.append(setting.name)
            for entry in session.scalars(select(HistoryRow)):
                try:
                    entry.previous = self._vault.reencrypt(entry.previous)
                    done += 1
                except Undecryptable:
                    lost.append(f"history entry {entry.id}")
            audit.add(session, who=who, action="secrets.reencrypt", detail=f"{done} values", ip=ip)
            return done, lost

        self._vault.reload()
        answer = database.write(self._app, work)
        self.load()
        return answer

    def public(
        self,
        *,
        reveal: bool = False,
        all: bool = False,
        also: Iterable[str] = (),
        snapshot: ConfigSnapshot | None = None,
    ) -> dict[str, Any]:
        """What GET /config answers: the five names, those of `also` (or all) and `generation`; secrets masked unless
        `reveal`."""
        now = snapshot or self.snapshot
        shown = {name: now.values[name] for name in validation.DECLARED if all or name in PUBLIC or name in also}
        if not reveal:
            shown[KEYS] = masking.mask_keys(shown[KEYS])
            shown[CONFIGS] = masking.mask_configs(shown[CONFIGS])
        return {**shown, "generation": now.generation}

    def _change(
        self,
        overrides: Callable[[ConfigSnapshot, _Stored], Mapping[str, Any]],
        *,
        who: str,
        expected_generation: int | None,
        ip: str,
        action: str,
        forget: Iterable[str] = (),
    ) -> ConfigSnapshot:
        def work(session: Session) -> ConfigSnapshot:
            generation = _locked_generation(session)
            if expected_generation is not None and expected_generation != generation.number:
                raise PreconditionFailed(
                    f"The configuration was changed meanwhile: it is at generation {generation.number}, "
                    f"your change is based on {expected_generation}. Read it again.",
                    param="generation",
                )
            stored = self._stored(session)
            now = self._to_snapshot(stored)
            after = dict(overrides(now, stored))
            fields = sorted(n for n in {*after, *stored.overrides} if _differs(after.get(n), stored.overrides.get(n)))
            lost = [name for name in stored.undecryptable if name in after or name in forget]
            fields = sorted({*fields, *lost})
            if not fields:
                return now
            values = {name: after.get(name, self._fallback(name)[0]) for name in validation.DECLARED}
            pairs = _pairs(values, strict=not {URLS, KEYS}.isdisjoint(fields))
            aliases = stored.aliases
            if KEYS in after or KEYS not in stored.undecryptable:
                aliases = kept_ids(_pairs(now.values), pairs, salt=stored.salt, aliases=stored.aliases)
            self._save(session, fields, after, aliases)
            session.add(
                HistoryRow(
                    at=int(time.time()),
                    who=who[:200],
                    fields=orjson.dumps(fields).decode(),
                    previous=self._vault.encrypt(orjson.dumps(stored.overrides).decode()),
                    generation=generation.number,
                )
            )
            session.flush()
            _prune_history(session)
            audit.add(session, who=who, action=action, detail=", ".join(fields), ip=ip)
            generation.number += 1
            session.flush()
            return self._to_snapshot(self._stored(session))

        self._vault.reload()
        return self._publish(database.write(self._app, work))

    def _save(
        self, session: Session, fields: Iterable[str], after: Mapping[str, Any], aliases: Mapping[str, str]
    ) -> None:
        for name in fields:
            session.execute(delete(SettingRow).where(SettingRow.name == name))
            if name in after:
                text = orjson.dumps(after[name]).decode()
                secret = validation.DECLARED[name].secret
                value = self._vault.encrypt(text) if secret else text
                session.add(SettingRow(name=name, value=value, encrypted=secret))
        session.execute(delete(SettingRow).where(SettingRow.name == ALIASES_ROW))
        if aliases:
            session.add(SettingRow(name=ALIASES_ROW, value=orjson.dumps(aliases).decode(), encrypted=False))

    def _publish(self, snapshot: ConfigSnapshot) -> ConfigSnapshot:
        """Never back to an earlier generation: a slow reader may come after a writer."""
        with self._turn:
            before = self._snapshot
            if before is not None and snapshot.generation < before.generation:
                return snapshot
            self._snapshot = snapshot
        if before is None or before.values[CONFIGS] != snapshot.values[CONFIGS]:
            for hint in validation.misspelt(snapshot.values[CONFIGS]):
                log.warning("configuration: %s.%s", CONFIGS, hint)
        for follow in self.on_change:
            follow(snapshot)
        return snapshot

    def _stored(self, session: Session) -> _Stored:
        generation = session.get_one(GenerationRow, 1)
        overrides: dict[str, Any] = {}
        undecryptable: list[str] = []
        aliases: dict[str, str] = {}
        for row in session.scalars(select(SettingRow).order_by(SettingRow.name)):
            if row.name == ALIASES_ROW:
                aliases = orjson.loads(row.value)
            elif row.name in validation.DECLARED:
                try:
                    text = self._vault.decrypt(row.value) if row.encrypted else row.value
                    overrides[row.name] = orjson.loads(text)
                except Undecryptable:
                    undecryptable.append(row.name)
        return _Stored(generation.number, generation.salt, overrides, tuple(undecryptable), aliases)

    def _fallback(self, name: str) -> tuple[Any, Source]:
        if name in self._environment:
            return self._environment[name], "environment"
        return validation.DECLARED[name].default, "default"

    def _to_snapshot(self, stored: _Stored) -> ConfigSnapshot:
        values: dict[str, Any] = {}
        sources: dict[str, Source] = {}
        for name, setting in validation.DECLARED.items():
            values[name], sources[name] = self._fallback(name)
            if name in stored.overrides:
                values[name], sources[name] = stored.overrides[name], "database"
            elif name in stored.undecryptable:
                # Not the environment's: a key that was replaced long ago may stand there.
                values[name], sources[name] = type(setting.default)(), "database"
        problems = [f"{n} cannot be decrypted: its secret key is gone. Enter it anew." for n in stored.undecryptable]
        pairs: list[Pair] = []
        if KEYS not in stored.undecryptable:
            try:
                pairs = validation.pairs(values[URLS], values[KEYS])
            except InvalidRequest as error:
                problems.append(error.message)  # pairing what does not pair would send a key to a foreign host
        return ConfigSnapshot(
            generation=stored.generation,
            enabled=values["ENABLE_ANTHROPIC_API"],
            connections=to_connections(pairs, values[CONFIGS], salt=stored.salt, aliases=stored.aliases),
            models=tuple(values["ANTHROPIC_MODELS"]),
            values=values,
            sources=sources,
            undecryptable=stored.undecryptable,
            problems=tuple(problems),
        )


def _checked(changes: Mapping[str, Any], now: ConfigSnapshot) -> dict[str, Any]:
    """`changes` validated and with masks resolved, and the index entries moved along with their pairs."""
    changes = dict(changes)
    posted: Sequence[Any] = ()
    if KEYS in changes:
        _check_list(changes[KEYS])
        posted = changes[KEYS]
        trimmed = [key.strip() if isinstance(key, str) else key for key in changes[KEYS]]
        changes[KEYS] = masking.unmask_keys(trimmed, now.values[KEYS], KEYS)
    values = {name: validation.check(name, value) for name, value in changes.items()}
    old = _pairs(now.values)
    if any(name in values and _differs(values[name], now.values[name]) for name in (URLS, KEYS)):
        new = validation.pairs(values.get(URLS, now.values[URLS]), values.get(KEYS, now.values[KEYS]))
        typed = {i for i, key in enumerate(changes.get(KEYS, ())) if not masking.is_mask(posted[i])}
        _keep_keys_at_their_hosts(old, new, typed, now, single=len(values.get(URLS, now.values[URLS])) == 1)
    else:
        new = old
    if CONFIGS in values:
        values[CONFIGS] = unmasked_configs(values[CONFIGS], now.values[CONFIGS], old, new, CONFIGS)
        validation.check(CONFIGS, values[CONFIGS])
    elif new != old and CONFIGS not in now.undecryptable:
        values[CONFIGS] = moved_configs(now.values[CONFIGS], old, new)
    return values


def _keep_keys_at_their_hosts(
    old: Sequence[Pair], new: Sequence[Pair], typed: Collection[int], now: ConfigSnapshot, *, single: bool
) -> None:
    """Whoever may change a URL need not know the key: a stored one goes to no other host than it was stored with,
    and not in the clear where it went encrypted.
    `typed` are the places of keys that were sent with this change. Raises InvalidRequest."""
    for index, (url, key) in enumerate(new):
        known = [was for was, its_key in old if its_key == key]
        if not old:  # the stored lists do not pair up
            known = [validation.base_url(was, URLS) for was in now.values[URLS]]
        if index not in typed and not any(validation.is_as_safe(url, was) for was in known):
            path = f"{URLS}[{0 if single else index}]"
            raise InvalidRequest(
                f"{path} names another host, {shown(validation.host_of(url))}, than the key was stored with, or the "
                f"same without TLS: send the key itself along, as {KEYS}[{index}].",
                param=path,
            )


def _check_list(value: Any) -> None:
    if not isinstance(value, list):
        raise validation.refuse(KEYS, "an array of strings", value)


def _pairs(values: Mapping[str, Any], *, strict: bool = False) -> list[Pair]:
    try:
        return validation.pairs(values[URLS], values[KEYS])
    except InvalidRequest:
        if strict:
            raise
        return []


def _differs(a: Any, b: Any) -> bool:
    """As JSON: in Python 1 == True."""
    return orjson.dumps(a, option=orjson.OPT_SORT_KEYS) != orjson.dumps(b, option=orjson.OPT_SORT_KEYS)


def _generation(session: Session) -> int:
    found = session.scalars(select(GenerationRow.number).where(GenerationRow.id == 1)).first()
    if found is None:
        raise DatabaseUnavailable("The gateway's database is empty.")
    return found


def _locked_generation(session: Session) -> GenerationRow:
    """Whoever holds it is the only one who changes something (SQLite: the transaction itself is)."""
    return session.scalars(select(GenerationRow).where(GenerationRow.id == 1).with_for_update()).one()


def _prune_history(session: Session) -> None:
    oldest = session.scalars(select(HistoryRow.id).order_by(HistoryRow.id.desc()).offset(HISTORY_KEPT).limit(1)).first()
    if oldest is not None:
        session.execute(delete(HistoryRow).where(HistoryRow.id <= oldest))

"""What models are called: what clients put around a name, which names are listed, and what one was meant to be.

It does without the SDK, so that the command line knows of a model's name what the gateway knows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from app.storage.config import ConfigSnapshot, Connection

_PROVIDER_PREFIX = re.compile(r"^(?:anthropic|claude)/", re.IGNORECASE)
_VERSION_DOT = re.compile(r"(?<=\d)\.(?=\d)")
_NO_DIGIT = re.compile(r"\D")
_MOST_TOLD = 10
_LONGEST_TOLD = 100
_MOST_COMPARED = 300  # for each of those that are told; it takes 10 ms

_DATA: dict[str, Any] = orjson.loads((Path(__file__).parent.parent / "models.json").read_bytes())
OVERLAY: Mapping[str, Mapping[str, Any]] = _DATA["models"]
_DATED: Mapping[str, str] = {alias: id for id, entry in OVERLAY.items() for alias in entry["aliases"]}

_WITH_NAMES = ("MODEL_ALIASES", "MODEL_ORDER", "ANTHROPIC_MODELS", "ANTHROPIC_API_CONFIGS")
Learned = Callable[[Connection], Collection[str]]
"""The ids that a connection's upstream lists; none while it was not asked."""


def alias_in(requested: str, snapshot: ConfigSnapshot) -> str | None:
    """The admin's alias that a client means, None if it means none."""
    known, asked = snapshot.alias_names, requested.lower()
    return known.get(asked) or known.get(_PROVIDER_PREFIX.sub("", asked))


def bare_name(model: str) -> str:
    """Without a provider's prefix, and `claude-opus-4.6`, as other gateways write it, as `claude-opus-4-6`."""
    model = _PROVIDER_PREFIX.sub("", model)
    return _VERSION_DOT.sub("-", model) if model[:7].lower() == "claude-" else model


def snapshot_of(model: str) -> str:
    """The dated id that a short one of earlier models stands for."""
    return _DATED.get(model, model)


def plain(model: str) -> str:
    """The same for all names of a model that differ in how it is written."""
    return snapshot_of(bare_name(model).lower())


def permission(allowed: Sequence[str] | None) -> Callable[[str, str | None], bool]:
    """Whether a key with these models may use a model, asked for by an alias or by its own name; None is all."""
    if allowed is None:
        return lambda model, alias: True
    models, aliases = {plain(name) for name in allowed}, {name.lower() for name in allowed}
    return lambda model, alias: plain(model) in models or (alias is not None and alias.lower() in aliases)


def has_prefix(model: str, connection: Connection) -> bool:
    prefix = f"{connection.prefix_id}."
    return model[: len(prefix)].lower() == prefix.lower()


def public_name(id: str, connection: Connection) -> str:
    """What clients call the model that has this id at the connection."""
    return f"{connection.prefix_id}.{id}" if connection.prefix_id else id


def ids_at(connection: Connection, learned: Collection[str]) -> Collection[str]:
    """The ids of the models that a connection lists."""
    return connection.model_ids or learned or OVERLAY


def warnings(settings: Collection[str], snapshot: ConfigSnapshot, learned: Learned) -> list[str]:
    """Of the names of models in these settings those that no connection lists, and of the aliases those that do not do
    what they seem to, in sentences for the admin. They may be right all the same: not every upstream lists all that it
    has."""
    odd = _odd_aliases(snapshot, learned) if "MODEL_ALIASES" in settings else ()
    return [*islice(odd, _MOST_TOLD), *_told(_doubtful(settings, snapshot, learned))]


def doubts(snapshot: ConfigSnapshot, learned: Learned) -> list[str]:
    """The same of all settings."""
    return warnings(_WITH_NAMES, snapshot, learned)


def unlisted_aliases(snapshot: ConfigSnapshot, learned: Learned) -> frozenset[str]:
    """The aliases that stand for what no connection lists."""
    listed = _Listed(_models(snapshot, learned))
    return frozenset(alias for alias, model in snapshot.values["MODEL_ALIASES"].items() if model not in listed)


def key_warnings(models: Collection[str], snapshot: ConfigSnapshot, learned: Learned) -> list[str]:
    """The same of the models that a client key may use."""
    if not models:
        return []
    listed = _Listed([*_models(snapshot, learned), *snapshot.values["MODEL_ALIASES"]])
    return _told((name, "which the key may use", listed, False) for name in models)


class _Listed:
    """Names, to be looked up however they are written."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {plain(name): name for name in names}
        self._compared = [name for name in islice(self._names, _MOST_COMPARED) if len(name) <= _LONGEST_TOLD]

    def __contains__(self, name: str) -> bool:
        return plain(name) in self._names

    def is_exactly(self, name: str) -> bool:
        return self._names.get(plain(name)) == name

    def nearest(self, name: str) -> str | None:
        return self._near(name, self._compared, 0.6)

    def meant_by(self, name: str) -> str | None:
        """What a typing error was to be. Another number is another version, and no error."""
        digits = _NO_DIGIT.sub("", name)
        return self._near(name, [each for each in self._compared if _NO_DIGIT.sub("", each) == digits], 0.8)

    def _near(self, name: str, compared: Sequence[str], likeness: float) -> str | None:
        dashed = "-".join(name[:_LONGEST_TOLD].split())  # "Claude Opus 5.5", as people and lists show it
        near = get_close_matches(plain(dashed), compared, 1, likeness)
        return self._names[near[0]] if near else None


def _odd_aliases(snapshot: ConfigSnapshot, learned: Learned) -> Iterator[str]:
    listed = _Listed(_models(snapshot, learned))
    for alias, model in snapshot.values["MODEL_ALIASES"].items():
        if _is_alias(model, listed, snapshot):
            told = f"{model[:_LONGEST_TOLD]}, which {alias[:_LONGEST_TOLD]} stands for, is itself an alias"
            yield f"{told}; an alias must name a model."
        if listed.is_exactly(alias) and plain(alias) != plain(model):
            told = f"The alias {alias[:_LONGEST_TOLD]} hides the model of that name"
            yield f"{told}: who asks for it gets {model[:_LONGEST_TOLD]}."


def _is_alias(model: str, listed: _Listed, snapshot: ConfigSnapshot) -> bool:
    """What an alias stands for is looked up among the models alone."""
    return model not in listed and alias_in(model, snapshot) is not None


def nearest(name: str, listed: Iterable[str]) -> str | None:
    """The one of these names that is likest, None if none is like it or it is that very name."""
    near = _Listed(listed).nearest(name)
    return None if near == name else near


Doubtful = tuple[str, str, _Listed, bool]
"""A name, what it is there for, the names that are listed, and whether it is told only if it looks like an error."""


def _doubtful(settings: Collection[str], snapshot: ConfigSnapshot, learned: Learned) -> Iterator[Doubtful]:
    aliases, order = snapshot.values["MODEL_ALIASES"], snapshot.values["MODEL_ORDER"]
    if "MODEL_ALIASES" in settings and aliases:
        listed = _Listed(_models(snapshot, learned))
        for alias, model in aliases.items():
            if not _is_alias(model, listed, snapshot):  # which _odd_aliases() tells
                yield model, f"which {alias[:_LONGEST_TOLD]} stands for", listed, False
    if "MODEL_ORDER" in settings and order:
        listed = _Listed([*_models(snapshot, learned), *aliases])
        for model in order:
            yield model, "which the order of models names", listed, False
    if "ANTHROPIC_MODELS" in settings and snapshot.models:
        listed = _Listed(_listed_upstream(snapshot, learned))
        for entry in snapshot.models:
            yield entry["id"], "which is added to the models", listed, True
    if "ANTHROPIC_API_CONFIGS" in settings:
        for connection in snapshot.connections:
            if connection.model_ids:
                known = learned(connection)
                listed = _Listed(known or OVERLAY)
                which = connection.name or f"connection {connection.index + 1}"
                for model in connection.model_ids:
                    yield model, f"which {which} is to serve", listed, not known


def _models(snapshot: ConfigSnapshot, learned: Learned) -> list[str]:
    """The names of all models that are listed, without aliases."""
    return [*_listed_upstream(snapshot, learned), *(entry["id"] for entry in snapshot.models)]


def _listed_upstream(snapshot: ConfigSnapshot, learned: Learned) -> list[str]:
    connections = [c for c in snapshot.connections if c.enable]
    found = [public_name(id, c) for c in connections for id in ids_at(c, learned(c))]
    return found or list(OVERLAY)


def _told(doubtful: Iterable[Doubtful]) -> list[str]:
    unlisted = (each for each in doubtful if each[0] not in each[2])
    told = []
    for name, purpose, listed, only_errors in islice(unlisted, _MOST_TOLD):
        near = listed.meant_by(name) if only_errors else listed.nearest(name)
        if near is not None or not only_errors:
            hint = f" Did you mean {near}?" if near is not None else ""
            told.append(f"No connection lists the model {name[:_LONGEST_TOLD]}, {purpose}.{hint}")
    more = sum(not only_errors for *_, only_errors in unlisted)
    return [*told, f"Nor does one list {more} more of these names."] if more else told

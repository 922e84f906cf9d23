"""The configuration form: settings to the texts of its fields, and the texts back to changes. Pure.

What is compared are texts: a field that reads as it was shown is no change, so what the form cannot show (unknown inner
fields, the form of a URL) stays as it is. `base` remembers what was shown, so that after somebody else's change only
what was typed here is kept.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any
from urllib.parse import urlsplit

import orjson
from werkzeug.datastructures import MultiDict

from app.errors import InvalidRequest
from app.settings import RUNTIME_SETTINGS, RuntimeSetting
from app.storage import masking, validation
from app.storage.config import ConfigSnapshot, Connection
from app.storage.connections import entry_by_url, entry_of, to_connections

URLS, KEYS, CONFIGS = "ANTHROPIC_API_BASE_URLS", "ANTHROPIC_API_KEYS", "ANTHROPIC_API_CONFIGS"
CONNECTION_SETTINGS = (URLS, KEYS, CONFIGS)
MODELS, ALIASES = "ANTHROPIC_MODELS", "MODEL_ALIASES"
OWN_PLACE = (*CONNECTION_SETTINGS, MODELS, ALIASES)
GENERAL_SETTINGS = tuple(s for s in RUNTIME_SETTINGS if s.name not in OWN_PLACE)


WHOLE_URL = "Write the whole URL, such as https://api.anthropic.com."
KEY_AGAIN = "Paste the key again: a saved key is sent to no other host than the one it was saved for."


class Wrong(Exception):
    """What was typed cannot be read; the message says what would be."""


@dataclass(frozen=True)
class CardField:
    """A field of a connection. `kind` is text, number, lines, switch, or choice with its `choices`."""

    name: str
    label: str
    kind: str
    help: str
    default: Any
    show: Callable[[Any], str]
    read: Callable[[str], Any]
    choices: tuple[tuple[str, str], ...] = ()


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


def _whole(text: str, least: int | None = None) -> int:
    wanted = "Write a whole number." if least is None else f"Write a whole number, {least} or more."
    try:
        number = int(text)
    except ValueError:
        raise Wrong(wanted) from None
    if least is not None and number < least:
        raise Wrong(wanted)
    return number


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number <= 1_000_000:
        raise Wrong("Write a number above 0.")
    return int(number) if number.is_integer() else number


def _headers(text: str) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in _lines(text):
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise Wrong("Write one header a line, as in X-Team: research.")
        headers[name.strip()] = value.strip()
    return headers


def _tag(tag: Any) -> str:
    return str(tag["name"] if isinstance(tag, Mapping) else tag)


def _as_lines(values: Iterable[Any]) -> str:
    return "\n".join(_tag(value) for value in values)


def _masked_headers(headers: Mapping[str, str]) -> str:
    masked = masking.mask_configs({"0": {"headers": dict(headers)}})["0"]["headers"]
    return "\n".join(f"{name}: {value}" for name, value in masked.items())


CARD_FIELDS: tuple[CardField, ...] = (
    CardField("name", "Name", "text", "For you: it stands in logs and on these pages.", "", str, str),
    CardField(
        "enable",
        "In use",
        "switch",
        "Off: kept, but not used.",
        True,
        lambda value: "on" if value else "",
        lambda text: text == "on",
    ),
    CardField("priority", "Priority", "number", "Lower goes first; the next is tried when one fails.", 0, str, _whole),
    CardField(
        "weight",
        "Weight",
        "number",
        "Its share of the conversations among connections of one priority.",
        1,
        lambda v: f"{v:g}",
        _number,
    ),
    CardField(
        "prefix_id",
        "Model prefix",
        "text",
        "With “team”, its models are called team.claude-…; others do not reach it.",
        "",
        str,
        str,
    ),
    CardField(
        "timeout_s",
        "Time limit in seconds",
        "number",
        "Longest wait for the first part of an answer. Empty: the gateway's own limit.",
        None,
        lambda value: "" if value is None else f"{value:g}",
        lambda text: _number(text) if text else None,
    ),
    CardField(
        "model_ids",
        "Only these models",
        "lines",
        "One id a line. Empty: all that the key can use.",
        (),
        _as_lines,
        _lines,
    ),
    CardField("tags", "Tags", "lines", "One a line; shown with the models.", (), _as_lines, _lines),
    CardField(
        "auth",
        "The key is sent as",
        "choice",
        "Anthropic takes x-api-key; some gateways want a Bearer token.",
        "x-api-key",
        str,
        str,
        (("x-api-key", "x-api-key"), ("bearer", "Authorization: Bearer")),
    ),
    CardField(
        "auto_cache",
        "Prompt caching",
        "choice",
        "Whether Anthropic keeps prompts that are likely to come again.",
        None,
        lambda value: {None: "", True: "yes", False: "no"}[value],
        lambda text: {"": None, "yes": True, "no": False}.get(text),
        (("", "As under Other settings"), ("yes", "By itself"), ("no", "Only where a client asks for it")),
    ),
    CardField(
        "headers",
        "Extra headers",
        "lines",
        "One a line, as in X-Team: research. A masked value (…) stays as it is stored.",
        {},
        _masked_headers,
        _headers,
    ),
)
MODEL_FIELDS: tuple[tuple[str, str], ...] = (
    ("id", "Model id"),
    ("name", "Name shown"),
    ("max_tokens", "Most output tokens"),
    ("tokens_per_message", "Context window"),
    ("tokens_per_request", "Tokens per request"),
    ("owned_by", "Owned by"),
)
_MODEL_NUMBERS = ("max_tokens", "tokens_per_message", "tokens_per_request")
GROUPS = {"models": (MODELS, ("was", *(name for name, _ in MODEL_FIELDS))), "aliases": (ALIASES, ("alias", "model"))}


@dataclass(frozen=True)
class Stored:
    """A stored pair, as the form refers to it: by the connection's id, or its place when the lists do not pair up."""

    origin: str
    connection: Connection

    def texts(self) -> dict[str, str]:
        return {
            "url": self.connection.base_url,
            "key": "",
            **{f.name: f.show(getattr(self.connection, f.name)) for f in CARD_FIELDS},
        }


@dataclass
class Card:
    """A connection as it stands in the form; `origin` is "" for a new one, `mask` the stored key's."""

    origin: str
    texts: dict[str, str]
    mask: str = ""


@dataclass
class Draft:
    """The whole form. `errors` are by the name of the field."""

    generation: int
    cards: list[Card]
    groups: dict[str, list[dict[str, str]]]
    settings: dict[str, str]
    base: Mapping[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def base_json(self) -> str:
        return orjson.dumps(self.base).decode()


def stored_connections(snapshot: ConfigSnapshot) -> list[Stored]:
    urls, keys = snapshot.values[URLS], snapshot.values[KEYS]
    if snapshot.connections:
        return [Stored(c.id, c) for c in snapshot.connections]
    if not keys:
        return []
    pairs = list(zip_longest(urls, keys, fillvalue=""))
    loose = to_connections(
        pairs, {p: e for p, e in snapshot.values[CONFIGS].items() if p.isdecimal()}, salt="", aliases={}
    )
    return [Stored(f"place {c.index}", c) for c in loose]


def new_card(snapshot: ConfigSnapshot) -> Card:
    urls = snapshot.values[URLS]
    texts = {f.name: f.show(f.default) for f in CARD_FIELDS}
    return Card("", {**texts, "url": _used(urls[0]) if urls else "https://api.anthropic.com", "key": ""})


def draft_of(snapshot: ConfigSnapshot) -> Draft:
    """The form as the configuration in force fills it."""
    draft = Draft(
        generation=snapshot.generation,
        cards=[Card(s.origin, s.texts(), masking.mask(s.connection.key)) for s in stored_connections(snapshot)],
        groups={
            "models": [
                {"was": str(m["id"]), **{name: _plain(m.get(name)) for name, _ in MODEL_FIELDS}}
                for m in snapshot.values[MODELS]
            ],
            "aliases": [{"alias": a, "model": str(m)} for a, m in snapshot.values[ALIASES].items()],
        },
        settings={s.name: setting_text(s, snapshot.values[s.name]) for s in GENERAL_SETTINGS},
    )
    draft.base = _digests(draft)
    return draft


def _plain(value: Any) -> str:
    return "" if value is None else str(value)


def setting_text(setting: RuntimeSetting, value: Any) -> str:
    """A secret is not shown."""
    if setting.secret:
        return ""
    match setting.type:
        case "bool":
            return "on" if value else ""
        case "list":
            return "\n".join(value)
        case "object" | "objects":
            return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    return str(value)


@dataclass(frozen=True)
class Change:
    """What a change did to a setting, in short; `old` and `new` are empty where they cannot be told."""

    name: str
    old: str = ""
    new: str = ""


def changes_in_words(
    names: Iterable[str], before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> list[Change]:
    """Secrets are counted, not told; None is a state that cannot be decrypted any more."""
    changes = []
    for name in names:
        setting = validation.DECLARED.get(name)
        if setting is None or before is None or after is None or before[name] == after[name]:
            changes.append(Change(name))
            continue
        old, new = (_in_short(setting, values[name]) for values in (before, after))
        changes.append(Change(name, old, new) if old != new else Change(name))
    return changes


def _in_short(setting: RuntimeSetting, value: Any) -> str:
    if setting.type == "bool":
        return "on" if value else "off"
    if setting.secret:
        return str(len(value))
    match setting.type:
        case "list":
            text = ", ".join(value)
        case "object":
            text = ", ".join(f"{key} → {entry}" for key, entry in value.items())
        case "objects":
            text = ", ".join(str(entry.get("id")) for entry in value)
        case _:
            text = str(value)
    return (text if len(text) <= 120 else f"{text[:119]}…") or "none"


def _setting_value(setting: RuntimeSetting, text: str) -> Any:
    match setting.type:
        case "bool":
            return text == "on"
        case "int":
            return _whole(text, setting.minimum)
        case "list":
            return _lines(text)
        case "object" | "objects":
            try:
                return orjson.loads(text or ("{}" if setting.type == "object" else "[]"))
            except orjson.JSONDecodeError as error:
                raise Wrong(f"This is not JSON: {error}.") from None
    return text


def draft_from(form: MultiDict[str, str], snapshot: ConfigSnapshot) -> Draft:
    """The form as it was sent."""

    def text(name: str) -> str:
        return form.get(name, "").replace("\r\n", "\n").strip()

    masks = {s.origin: masking.mask(s.connection.key) for s in stored_connections(snapshot)}
    cards = []
    for number in form.getlist("card"):
        origin = text(f"c{number}-origin")
        texts = {name: text(f"c{number}-{name}") for name in ("url", "key", *(f.name for f in CARD_FIELDS))}
        cards.append(Card(origin, texts, masks.get(origin, "")))
    groups = {
        group: [{name: text(f"{group}{number}-{name}") for name in names} for number in form.getlist(group)]
        for group, (_, names) in GROUPS.items()
    }
    try:
        base = orjson.loads(form.get("base", "{}"))
        generation = int(form.get("generation", ""))
    except ValueError:
        base, generation = {}, -1
    settings = {s.name: text(s.name) for s in GENERAL_SETTINGS}
    return Draft(generation, cards, groups, settings, base if isinstance(base, dict) else {})


def changes_of(draft: Draft, snapshot: ConfigSnapshot) -> dict[str, Any]:
    """What the form changes, as PersistentConfig.update takes it; what is wrong goes to `draft.errors`."""
    changes: dict[str, Any] = {}
    for setting in GENERAL_SETTINGS:
        typed = draft.settings[setting.name]
        if typed == setting_text(setting, snapshot.values[setting.name]).strip():
            continue
        with _Field(draft.errors, setting.name):
            changes[setting.name] = validation.check(setting.name, _setting_value(setting, typed))
    shown = draft_of(snapshot)
    if _texts(draft.groups["models"]) != _texts(shown.groups["models"]):
        changes[MODELS] = _models(draft, snapshot)
    if _texts(draft.groups["aliases"]) != _texts(shown.groups["aliases"]):
        changes[ALIASES] = _aliases(draft)
    if [(c.origin, c.texts) for c in draft.cards] != [(c.origin, _stripped(c.texts)) for c in shown.cards]:
        changes.update(_connections(draft, snapshot))
    return changes


class _Field:
    """Puts what goes wrong inside to the field it belongs to."""

    def __init__(self, errors: dict[str, str], name: str) -> None:
        self._errors, self._name = errors, name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool:
        if isinstance(error, Wrong):
            self._errors[self._name] = str(error)
        elif isinstance(error, InvalidRequest):
            self._errors[self._name] = at_its_field(error)
        else:
            return False
        return True


def at_its_field(error: InvalidRequest) -> str:
    """The message without the path of the field, which is plain where it stands."""
    path, message = error.param or "", error.message
    if " must be " in message and (path == "url" or path.startswith(URLS)):
        return WHOLE_URL
    if " must be " in message and (path == "key" or path.startswith(KEYS)):
        return "A key has no spaces and no letters beyond a to z. Copy it once more."
    if path and message.startswith(f"{path}: "):
        rest = message.removeprefix(f"{path}: ")
        return rest[:1].upper() + rest[1:]
    return f"This{message.removeprefix(path)}" if path and message.startswith(f"{path} ") else message


def _stripped(texts: Mapping[str, str]) -> dict[str, str]:
    return {name: text.strip() for name, text in texts.items()}


def _texts(rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Without rows that were left empty."""
    return [_stripped(row) for row in rows if any(text for name, text in row.items() if name != "was")]


def _models(draft: Draft, snapshot: ConfigSnapshot) -> list[dict[str, Any]]:
    stored = {m["id"]: m for m in snapshot.values[MODELS]}
    models = []
    for number, row in enumerate(draft.groups["models"]):
        if not any(text for name, text in row.items() if name != "was"):
            continue
        before = stored.get(row["was"], {})
        model = dict(before)
        for name, _ in MODEL_FIELDS:
            text = row[name]
            if text == _plain(before.get(name)).strip():
                continue
            with _Field(draft.errors, f"models{number}-{name}"):
                model[name] = _whole(text, 1) if text and name in _MODEL_NUMBERS else text
            if not text:
                model.pop(name, None)
        if not row["id"]:
            draft.errors[f"models{number}-id"] = "Write the model's id, or remove the row."
        models.append(model)
    return models


def _aliases(draft: Draft) -> dict[str, str]:
    aliases: dict[str, str] = {}
    for number, row in enumerate(draft.groups["aliases"]):
        if not row["alias"] and not row["model"]:
            continue
        if not row["alias"]:
            draft.errors[f"aliases{number}-alias"] = "Write the name that clients use."
        elif row["alias"].lower() in map(str.lower, aliases):
            draft.errors[f"aliases{number}-alias"] = "This name is there twice; large and small letters are the same."
        if not row["model"]:
            draft.errors[f"aliases{number}-model"] = "Write the id of a model."
        aliases[row["alias"]] = row["model"]
    return aliases


def _connections(draft: Draft, snapshot: ConfigSnapshot) -> dict[str, Any]:
    """The three settings that make the connections."""
    stored = stored_connections(snapshot)
    by_origin = {s.origin: s for s in stored}
    configs = snapshot.values[CONFIGS]
    urls: list[str] = []
    keys: list[str] = []
    after = {
        place: entry
        for place, entry in configs.items()
        if not place.isdecimal() or int(place) >= max(len(stored), len(draft.cards))
    }
    for number, card in enumerate(draft.cards):
        known = by_origin.get(card.origin)
        with _Field(draft.errors, f"c{number}-url"):
            urls.append(card.texts["url"])
            if not card.texts["url"]:
                raise Wrong(WHOLE_URL)
            validation.base_url(card.texts["url"], f"{URLS}[{number}]")
        with _Field(draft.errors, f"c{number}-key"):
            keys.append(_key(card, known))
            if _to_another_host(card, known) and f"c{number}-url" not in draft.errors:
                raise Wrong(KEY_AGAIN)
        entry = read_entry(draft, number, known, configs)
        used = _used(card.texts["url"])
        inherited = entry_by_url(used, configs) if used else None
        own = known is not None and str(known.connection.index) in configs
        if own or entry != dict(inherited or {}):
            after[str(number)] = entry
    if not draft.cards:
        return {URLS: snapshot.values[URLS][:1], KEYS: [], CONFIGS: after}
    same = {_used(url) for url in urls}
    if urls == [s.connection.base_url for s in stored] and len(keys) == len(stored):
        urls = snapshot.values[URLS]
    elif len(same) == 1:
        urls = snapshot.values[URLS] if [_used(u) for u in snapshot.values[URLS]] == list(same) else urls[:1]
    return {URLS: urls, KEYS: keys, CONFIGS: after}


def _used(url: str) -> str:
    try:
        return validation.base_url(url, "url")
    except InvalidRequest:
        return url


def _key(card: Card, known: Stored | None) -> str:
    typed = card.texts["key"]
    if typed:
        return str(validation.api_key(typed, KEYS))
    if known is None or not known.connection.key:
        raise Wrong("Paste the key. Anthropic's begin with sk-ant-.")
    return known.connection.key


def _to_another_host(card: Card, known: Stored | None) -> bool:
    """Whether the stored key would go where it was not meant for."""
    if known is None or card.texts["key"]:
        return False
    return urlsplit(_used(card.texts["url"])).netloc != urlsplit(known.connection.base_url).netloc


def read_entry(draft: Draft, number: int, known: Stored | None, configs: Mapping[str, Any]) -> dict[str, Any]:
    """One connection's entry of ANTHROPIC_API_CONFIGS after the form."""
    texts = draft.cards[number].texts
    before = known.connection if known else None
    entry: dict[str, Any] = dict(entry_of(before.index, before.base_url, configs)) if before else {}
    shown = _stripped(known.texts()) if known else {f.name: f.show(f.default) for f in CARD_FIELDS}
    for each in CARD_FIELDS:
        text = texts[each.name]
        if text == shown[each.name]:
            continue
        with _Field(draft.errors, f"c{number}-{each.name}"):
            value = each.read(text)
            if each.name == "headers":
                value = _plain_headers(value, before)
            validation.connection_config({each.name: value}, each.name)
            entry[each.name] = value
            if value == each.default or value in ("", [], {}):
                del entry[each.name]
    return entry


def _plain_headers(headers: Mapping[str, str], before: Connection | None) -> dict[str, str]:
    stored = {"headers": before.headers if before else {}}
    return {
        name: masking.unmask_header(value, name, stored, (), name) if masking.is_mask(value) else value
        for name, value in headers.items()
    }


def card_to_try(draft: Draft, number: int, snapshot: ConfigSnapshot) -> Connection | None:
    """The connection of a card, saved or not; None when the card cannot be read, with `errors` saying why. A key that
    was not typed is used only with the URL it is stored with."""
    card = draft.cards[number]
    known = next((s for s in stored_connections(snapshot) if s.origin == card.origin), None)
    with _Field(draft.errors, f"c{number}-url"):
        if not card.texts["url"]:
            raise Wrong(WHOLE_URL)
        url = validation.base_url(card.texts["url"], "url")
        if known is not None and not card.texts["key"] and known.connection.base_url != url:
            draft.errors[f"c{number}-key"] = (
                "Type the key too: a saved key is only ever tried with the URL it is saved with."
            )
    with _Field(draft.errors, f"c{number}-key"):
        key = _key(card, known)
    entry = read_entry(draft, number, known, snapshot.values[CONFIGS])
    if any(name.startswith(f"c{number}-") for name in draft.errors):
        return None
    return to_connections([(url, key)], {"0": entry}, salt="", aliases={})[0]


def with_connection(snapshot: ConfigSnapshot, url: str, key: str) -> dict[str, Any]:
    """The changes that add a pair, or bring it back into use, and turn the integration on."""
    used = validation.base_url(url, "url")
    changes: dict[str, Any] = {"ENABLE_ANTHROPIC_API": True}
    known = next((c for c in snapshot.connections if (c.base_url, c.key) == (used, key)), None)
    if known is not None:
        if not known.enable:
            configs = dict(snapshot.values[CONFIGS])
            configs[str(known.index)] = {**entry_of(known.index, known.base_url, configs), "enable": True}
            changes[CONFIGS] = configs
        return changes
    if snapshot.values[KEYS] and not snapshot.connections:
        raise InvalidRequest(" ".join(snapshot.problems), param=KEYS)
    keys = [c.key for c in snapshot.connections]
    before = snapshot.values[URLS]
    urls = before if len(before) > 1 else before * len(keys)
    if len(before) == 1 and _used(before[0]) == used:
        return {**changes, KEYS: [*keys, key]}
    return {**changes, URLS: [*urls, url], KEYS: [*keys, key]}


def place_error(draft: Draft, error: InvalidRequest) -> bool:
    """Put what the storage layer refused to the field it names; False when no field has that name."""
    path = error.param or ""
    name = _field_of(path, draft)
    if name is None:
        return False
    draft.errors[name] = at_its_field(error)
    card = re.fullmatch(r"c(\d+)-url", name)
    if card and draft.cards[int(card[1])].origin and not draft.cards[int(card[1])].texts["key"]:
        draft.errors.setdefault(f"c{card[1]}-key", KEY_AGAIN)
    return True


def _field_of(path: str, draft: Draft) -> str | None:
    if path in draft.settings:
        return path
    if match := re.fullmatch(rf"(?:{URLS}|{KEYS})\[(\d+)\]", path):
        number = int(match[1])
        return f"c{number}-{'url' if path.startswith(URLS) else 'key'}" if number < len(draft.cards) else None
    if match := re.match(rf"{CONFIGS}\.(\d+)\.(\w+)", path):
        return f"c{match[1]}-{match[2]}" if match[2] in {f.name for f in CARD_FIELDS} else None
    if match := re.fullmatch(rf"{MODELS}\[(\d+)\]\.(\w+)", path):
        filled = [n for n, row in enumerate(draft.groups["models"]) if _texts([row])]
        return f"models{filled[int(match[1])]}-{match[2]}" if int(match[1]) < len(filled) else None
    if path.startswith(f"{ALIASES}."):
        alias = path.removeprefix(f"{ALIASES}.")
        return next((f"aliases{n}-alias" for n, r in enumerate(draft.groups["aliases"]) if r["alias"] == alias), None)
    return None


def merged(draft: Draft, snapshot: ConfigSnapshot) -> Draft:
    """The draft on top of a configuration that somebody else changed: what was not touched here follows them."""
    fresh = draft_of(snapshot)
    mine = _digests(draft)

    def touched(name: str) -> bool:
        return mine.get(name) != draft.base.get(name)

    theirs = {card.origin: card for card in fresh.cards}
    result = Draft(fresh.generation, [], dict(fresh.groups), dict(fresh.settings), fresh.base)
    for name, text in draft.settings.items():
        if touched(name):
            result.settings[name] = text
    for group, rows in draft.groups.items():
        if touched(group):
            result.groups[group] = rows
    for card in draft.cards:
        there = theirs.get(card.origin)
        if there is not None:
            texts = {n: t if touched(f"{card.origin}/{n}") else there.texts[n] for n, t in card.texts.items()}
            result.cards.append(Card(card.origin, texts, there.mask))
        elif not card.origin or any(touched(f"{card.origin}/{name}") for name in card.texts):
            if card.origin and not card.texts["key"]:
                result.errors[f"c{len(result.cards)}-key"] = (
                    "This connection was removed meanwhile, or its URL changed. Paste its key to keep it, or remove it."
                )
            result.cards.append(Card("", card.texts))
    seen = {card.origin for card in draft.cards}
    result.cards += [c for c in fresh.cards if c.origin not in seen and f"{c.origin}/url" not in draft.base]
    return result


def _digests(draft: Draft) -> dict[str, str]:
    texts = {f"{card.origin}/{name}": text for card in draft.cards if card.origin for name, text in card.texts.items()}
    texts.update(draft.settings)
    texts.update({group: orjson.dumps(_texts(rows)).decode() for group, rows in draft.groups.items()})
    return {n: hashlib.blake2s(t.strip().encode(), digest_size=6).hexdigest() for n, t in texts.items()}

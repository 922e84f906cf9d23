"""What became of each field of a request, in words: for whoever wants to know what Claude was told, and why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from app.translate.chat.extensions import flattened
from app.translate.chat.fields import FIELDS, Field
from app.translate.notes import Note
from app.translate.pause import Pause, no_pause, paced
from app.translate.translation import Translation

_NULL = "It is null, as if it were not there."
_HARMLESS = "With this value it changes nothing."
_UNKNOWN = "This gateway does not know the field."


def explained(
    request: Mapping[str, Any],
    translation: Translation | None,
    sent: Mapping[str, Any],
    refused: str | None,
    pause: Pause = no_pause,
) -> list[dict[str, Any]]:
    """One entry for each top-level field in the order of the request, and one for each message: `became` is sent,
    mapped, ignored, rejected or, beside a rejected one, unchecked. `sent` is the body that goes upstream. `refused` is
    the path of the field for which the request is refused, without a translation."""
    nested = request.get("extra_body")
    can_be_flat = isinstance(nested, dict) and nested.get("extra_body") is None
    flat = flattened(request) if can_be_flat else request
    notes = _by_place(paced(translation.notes, pause)) if translation else {}
    entries = []
    for name, value in flat.items():
        pause()
        entry = _entry(name, value, notes.get(name, []) if translation else None, sent, refused)
        entries.append(entry)
        if name == "messages" and translation is not None and isinstance(value, list):
            entries += _messages(value, translation, notes, pause)
    if can_be_flat:
        reason = FIELDS["extra_body"].reason
        entries.append(_of("extra_body", "mapped" if translation else "unchecked", [], reason, ()))
    return entries


def _by_place(notes: Iterable[Note]) -> dict[str, list[Note]]:
    """By field, and by message (`messages[3]`) as well."""
    found: dict[str, list[Note]] = {}
    for note in notes:
        field, message = _PLACE.fullmatch(note.param).groups()  # type: ignore[union-attr]  # it matches any text
        found.setdefault(field, []).append(note)
        if message:
            found.setdefault(f"{field}{message}", []).append(note)
    return found


_PLACE = re.compile(r"([^.\[]*)(\[\d+\])?.*", re.DOTALL)


def _entry(
    name: str, value: Any, notes: list[Note] | None, sent: Mapping[str, Any], refused: str | None
) -> dict[str, Any]:
    if refused is not None and _is_in(refused, name):
        reason = FIELDS[name].reason if name in FIELDS and FIELDS[name].disposition == "rejected" else ""
        return _of(name, "rejected", [], reason or f"{refused} is at fault: see `refused`.", ())
    if refused is not None:
        return _of(name, "unchecked", [], f"The request is refused for {refused}.", ())
    notes = notes or []
    warnings = tuple(dict.fromkeys(note.code for note in notes))
    field = FIELDS.get(name)
    if field is None:
        return _of(name, "ignored", [], _UNKNOWN, warnings)
    if value is None:
        return _of(name, "ignored", [], _NULL, warnings)
    if not field.applies(value):
        return _of(name, "ignored", [], _HARMLESS, warnings)
    if field.disposition != "mapped":
        return _of(name, "ignored", [], field.reason, warnings)
    upstream = _upstream(field, sent)
    was_sent = upstream == [name] and sent[name] == value
    reasons = [field.reason, *(note.reason for note in notes)]
    is_lost = bool(notes) and bool(field.sent_as) and not upstream
    became = "ignored" if is_lost else "sent" if was_sent else "mapped"
    return _of(name, became, upstream, " ".join(dict.fromkeys(reasons)), warnings)


def _upstream(field: Field, sent: Mapping[str, Any]) -> list[str]:
    """The paths in Anthropic's request that it went to, as far as they are there."""
    found = [path for path in field.sent_as if _is_there(path, sent)]
    return found[:1] if field.in_one else found


def _is_there(path: str, sent: Mapping[str, Any]) -> bool:
    name, _, inner = path.partition(".")
    return name in sent and (not inner or inner in sent[name])


def _messages(
    messages: list[Any], translation: Translation, by_place: Mapping[str, list[Note]], pause: Pause
) -> list[dict[str, Any]]:
    places: dict[int | None, list[str]] = {}
    for place, source in enumerate(translation.system_sources):
        places.setdefault(source, []).append(f"system[{place}]")
    for place, sources in enumerate(translation.reply.message_sources):
        for source in sources:
            places.setdefault(source, []).append(f"messages[{place}]")
    entries = []
    for i, message in enumerate(messages):
        pause()
        name = f"messages[{i}]"
        notes = by_place.get(name, [])
        role = message.get("role") if isinstance(message, dict) else None
        reason = f"A message of the role {role}." if i in places else "It is empty; Claude takes no empty messages."
        codes = tuple(dict.fromkeys(note.code for note in notes))
        told = " ".join(dict.fromkeys([reason, *(note.reason for note in notes)]))
        entries.append(_of(name, "mapped" if i in places else "ignored", places.get(i, []), told, codes))
    return entries


def _is_in(param: str, name: str) -> bool:
    return param == name or param.startswith((f"{name}.", f"{name}["))


def _of(name: str, became: str, upstream: list[str], reason: str, warnings: tuple[str, ...]) -> dict[str, Any]:
    entry: dict[str, Any] = {"field": name, "became": became, "upstream": upstream, "reason": reason}
    if warnings:
        entry["warnings"] = list(warnings)
    return entry

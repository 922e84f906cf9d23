"""The configuration form: one page, one transaction; app/pages/forms.py reads and writes its fields."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from flask import Blueprint, flash, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from app.access.endpoint import endpoint
from app.errors import InvalidRequest, PreconditionFailed
from app.pages import forms
from app.pages.forms import CONNECTION_SETTINGS, Draft
from app.pages.page import (
    answer,
    author,
    current_snapshot,
    page,
    see_other,
    wants_json,
)
from app.pages.trying import connection_name, doubts, try_out
from app.services import services
from app.settings import RUNTIME_SETTINGS, RuntimeSetting
from app.storage.config import ConfigSnapshot, HistoryEntry
from app.upstream.names import OVERLAY

blueprint = Blueprint("configuration", __name__)
_ACTION = re.compile(r"(save|add|remove|verify|reset)(?: ([A-Za-z_]+))?(?: (\d+))?")


@blueprint.get("/admin/config")
@endpoint("session", documented=False)
def form() -> AnyResponse:
    snapshot = current_snapshot()
    return _page(forms.draft_of(snapshot), snapshot)


@blueprint.post("/admin/config")
@endpoint("session", documented=False)
def submit() -> AnyResponse:
    """Its buttons say what to do: `do` is save, or one of those that work without script too, as `add cards` or
    `remove cards 1`."""
    action = _ACTION.fullmatch(request.form.get("do", "save"))
    if action is None:
        raise InvalidRequest("This button is not known.", param="do")
    snapshot = current_snapshot()
    draft = forms.draft_from(request.form, snapshot)
    match action.groups():
        case ("add", group, _):
            _add(draft, group or "", snapshot)
        case ("remove", group, number):
            rows: list[Any] = draft.cards if group == "cards" else draft.groups.get(group or "", [])
            numbers = request.form.getlist("card" if group == "cards" else group or "")
            if number in numbers:
                del rows[numbers.index(number)]
        case ("verify", _, number):
            return _verify(draft, request.form.getlist("card"), number or "", snapshot)
        case ("reset", name, _):
            return _reset(draft, name or "", snapshot)
        case _:
            return _save(draft, snapshot)
    return _page(draft, snapshot)


def _add(draft: Draft, group: str, snapshot: ConfigSnapshot) -> None:
    if group == "cards":
        draft.cards.append(forms.new_card(snapshot))
    elif group in forms.GROUPS:
        draft.groups[group].append(dict.fromkeys(forms.GROUPS[group][1], ""))


def _verify(draft: Draft, numbers: Sequence[str], number: str, snapshot: ConfigSnapshot) -> AnyResponse:
    if number not in numbers:
        raise InvalidRequest("This connection is not in the form.", param="do")
    position = numbers.index(number)
    connection = forms.card_to_try(draft, position, snapshot)
    if connection is not None:
        found = try_out(connection)
    else:
        found = {"ok": False, "message": next(iter(draft.errors.values())), "models": []}
    if wants_json():
        return answer(found)
    return _page(draft, snapshot, tried={position: found})


def _reset(draft: Draft, name: str, snapshot: ConfigSnapshot) -> AnyResponse:
    """At once; what else was typed stays in the form, unsaved."""
    names = CONNECTION_SETTINGS if name == "connections" else (name,)
    if any(n not in snapshot.values for n in names):
        raise InvalidRequest("This setting is not known.", param="do")
    after = services().config.reset(*names, **author())
    where = "the environment's value" if any(n in services().settings.runtime for n in names) else "the default"
    flash(f"{label(name)}: {where} is in force again.", "success")
    fresh = forms.draft_of(after)
    rest = forms.merged(draft, after)
    if name == "connections":
        rest.cards = fresh.cards
    elif name in rest.settings:
        rest.settings[name] = fresh.settings[name]
    else:
        group = next(group for group, (setting, _) in forms.GROUPS.items() if setting == name)
        rest.groups[group] = fresh.groups[group]
    if not forms.changes_of(rest, after) and not rest.errors:
        return see_other(url_for("configuration.form"))
    return _page(rest, after, unsaved=True)


def _save(draft: Draft, snapshot: ConfigSnapshot) -> AnyResponse:
    theirs = _changes_since(draft.generation)
    if theirs:
        return _page(forms.merged(draft, snapshot), snapshot, theirs=theirs, status=409)
    changes = forms.changes_of(draft, snapshot)
    if draft.errors:
        return _page(draft, snapshot, status=400)
    try:
        after = services().config.update(changes, expected_generation=snapshot.generation, **author())
    except PreconditionFailed:
        snapshot = current_snapshot()
        theirs = _changes_since(draft.generation)
        return _page(forms.merged(draft, snapshot), snapshot, theirs=theirs, status=409)
    except InvalidRequest as error:
        unplaced = "" if forms.place_error(draft, error) else error.message
        return _page(draft, snapshot, message=unplaced, status=400)
    if after.generation == snapshot.generation:
        flash("Nothing was changed.", "info")
    else:
        found = doubts(snapshot, after)
        for doubt in found:
            flash(f"Saved, but {doubt}", "warning")
        if not found:
            flash("Saved. It is in force everywhere within a second.", "success")
    return see_other(url_for("configuration.form"))


def _changes_since(generation: int) -> list[HistoryEntry]:
    """The changes of settings that the form does not know; new client keys count the generation up as well."""
    return [entry for entry in services().config.history() if entry.generation >= generation]


_HELP = {
    "COMPAT": "Lenient: what Claude does not have is left out, and the header x-gateway-warnings says so. "
    "Strict: such a request is answered with an error 400.",
    "DEFAULT_MAX_TOKENS": "For requests without a limit of their own. 0 means the most the model can write.",
    "MODEL_ORDER": "One id a line: these come first in the list of models, in this order. Programs often start on the "
    "first one. Then come the newest Sonnet and the others, the newest first.",
    "PROMPT_CACHE": "Auto: Anthropic keeps prompts that are likely to come again. "
    "Passive: only where a client asks for it. Off: never.",
}
"""Where a setting's own help is written for those who know the field."""


@blueprint.app_template_filter("help")
def help_of(setting: RuntimeSetting) -> str:
    text = _HELP.get(setting.name, setting.help)
    return text[:1].upper() + text[1:]


def label(name: str) -> str:
    """A setting's name for people."""
    known = {
        "ENABLE_ANTHROPIC_API": "Anthropic integration",
        "ANTHROPIC_API_BASE_URLS": "Base URLs",
        "ANTHROPIC_API_KEYS": "Anthropic keys",
        "ANTHROPIC_API_CONFIGS": "Connection settings",
        "ANTHROPIC_MODELS": "Models",
        "MODEL_ALIASES": "Model aliases",
        "COMPAT": "Strictness",
        "connections": "Connections",
    }
    words = name.replace("_", " ").capitalize()
    return known.get(name) or re.sub(r" s$", " (seconds)", words)


blueprint.add_app_template_filter(connection_name)


@blueprint.app_template_filter("label")
def label_filter(name: str) -> str:
    return label(name)


def _page(
    draft: Draft,
    snapshot: ConfigSnapshot,
    *,
    tried: dict[int, dict[str, Any]] | None = None,
    theirs: Sequence[HistoryEntry] = (),
    message: str = "",
    unsaved: bool = False,
    status: int = 200,
) -> AnyResponse:
    environment = services().settings.runtime
    body = render_template(
        "admin/config.html",
        draft=draft,
        snapshot=snapshot,
        tried=tried or {},
        theirs=theirs,
        message=message,
        unsaved=unsaved or request.method == "POST",
        general=[s for s in forms.GENERAL_SETTINGS if s.name != "ENABLE_ANTHROPIC_API"],
        fallbacks={
            s.name: ("environment", "" if s.secret else environment[s.name])
            if s.name in environment
            else ("default", forms.setting_text(s, s.default))
            for s in RUNTIME_SETTINGS
        },
        connection_settings=CONNECTION_SETTINGS,
        card_fields=forms.CARD_FIELDS,
        model_fields=forms.MODEL_FIELDS,
        blank_card=forms.new_card(snapshot),
        known_models=list(OVERLAY),
    )
    return page(body, status)

"""Anthropic's prompt cache: the breakpoints that clients set, and one set for those who set none.

OpenAI caches by itself, so its clients expect that; with Anthropic the request must say so.
https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from app.errors import UntranslatableRequest
from app.translate.native import THINKING
from app.translate.notes import Notes
from app.translate.pause import Pause, paced

Control = dict[str, Any]
Caching = Literal["auto", "passive", "off"]

MOST_BREAKPOINTS = 4
_TTLS = ("5m", "1h")
_OPENAI_TTLS = {None: None, "5m": "5m", "30m": "1h", "1h": "1h", "12h": "1h", "24h": "1h"}  # never shorter than asked
_RETENTIONS = {"in_memory": None, "24h": "1h"}
_MODES = ("explicit", "implicit")


def to_cache_control(holder: Mapping[str, Any], path: str) -> Control | None:
    """The breakpoint that a message, a part or a tool carries: Anthropic's cache_control, or OpenAI's
    prompt_cache_breakpoint. Raises UntranslatableRequest."""
    if holder.get("cache_control") is not None:
        return checked_control(holder["cache_control"], f"{path}.cache_control")
    breakpoint = holder.get("prompt_cache_breakpoint")
    if breakpoint is None:
        return None
    param = f"{path}.prompt_cache_breakpoint"
    ttl = breakpoint.get("ttl") if isinstance(breakpoint, dict) else breakpoint
    if not isinstance(breakpoint, dict) or not isinstance(ttl, str | None) or ttl not in _OPENAI_TTLS:
        accepted = ", ".join(str(t) for t in _OPENAI_TTLS if t)
        raise UntranslatableRequest(
            f"{param} must be an object whose ttl, if it has one, is one of {accepted}.",
            param=param,
            code="invalid_value",
        )
    return _control(_OPENAI_TTLS[ttl])


def checked_control(control: Any, param: str) -> Control:
    ttl = control.get("ttl") if isinstance(control, dict) else None
    if not isinstance(control, dict) or control.get("type") != "ephemeral" or ttl not in (None, *_TTLS):
        raise UntranslatableRequest(
            f'{param} must be {{"type": "ephemeral"}}, with a ttl of 5m or 1h if any.',
            param=param,
            code="invalid_value",
        )
    return _control(ttl)


def _control(ttl: str | None) -> Control:
    return {"type": "ephemeral", "ttl": ttl} if ttl else {"type": "ephemeral"}


def takes_breakpoint(block: Mapping[str, Any]) -> bool:
    return block.get("type") not in THINKING


def mark_last(blocks: list[dict[str, Any]], control: Control | None) -> None:
    """A message's own breakpoint stands on its last block; thinking takes none."""
    if control is None:
        return
    last = next(filter(takes_breakpoint, reversed(blocks)), None)
    if last is not None:
        last["cache_control"] = control


def apply_caching(body: dict[str, Any], request: Mapping[str, Any], caching: Caching, notes: Notes) -> bool:
    """Brings the breakpoints of `body` to what the API takes, and adds an automatic one where none was set. Answers
    whether all that is written into the cache stays for an hour."""
    asked = _asked(request)
    marked = list(_marked(body, notes.pause))
    if caching == "off":
        for block in marked:
            del block["cache_control"]
        if marked or request.get("cache_control") is not None:
            notes.warn("caching_off", "cache_control", "Prompt caching is switched off (PROMPT_CACHE).")
        return False
    if request.get("cache_control") is not None:
        automatic = checked_control(request["cache_control"], "cache_control")
        if "cache_control" not in body["messages"][-1]["content"][-1]:  # where the automatic one would stand
            body["cache_control"] = automatic
    elif (
        not marked
        and asked.mode != "explicit"
        and (caching == "auto" or asked.mode)
        and _is_worth_caching(body, request)
    ):
        # What many conversations share is kept apart from what only this one says.
        mark_last([tool for tool in body.get("tools", ()) if not tool.get("defer_loading")], _control(asked.ttl))
        mark_last(body.get("system", []), _control(asked.ttl))
        body["cache_control"] = _control(asked.ttl)
        return asked.ttl == "1h"
    return _limit(body, marked, notes)


class _Asked:
    """What the top-level caching fields of OpenAI's request ask for."""

    def __init__(self, mode: str | None, ttl: str | None) -> None:
        self.mode = mode
        self.ttl = ttl


def _asked(request: Mapping[str, Any]) -> _Asked:
    retention = request.get("prompt_cache_retention")
    if retention is not None and (not isinstance(retention, str) or retention not in _RETENTIONS):
        raise UntranslatableRequest(
            f"prompt_cache_retention must be one of {', '.join(_RETENTIONS)}.",
            param="prompt_cache_retention",
            code="invalid_value",
        )
    options = request.get("prompt_cache_options") or {}
    mode = options.get("mode") if isinstance(options, dict) else options
    ttl = options.get("ttl") if isinstance(options, dict) else None
    if mode not in (None, *_MODES) or not isinstance(ttl, str | None) or ttl not in _OPENAI_TTLS:
        raise UntranslatableRequest(
            "prompt_cache_options must be an object with a mode of explicit or implicit, and a ttl if any.",
            param="prompt_cache_options",
            code="invalid_value",
        )
    return _Asked(mode, _OPENAI_TTLS[ttl] or (_RETENTIONS[retention] if retention else None))


def _marked(body: Mapping[str, Any], pause: Pause) -> Iterator[dict[str, Any]]:
    """The blocks with a breakpoint, in the order in which the prompt is put together."""
    blocks = [*body.get("tools", ()), *body.get("system", ())]
    for message in paced(body["messages"], pause):
        blocks += message["content"]
    return (block for block in paced(blocks, pause) if "cache_control" in block)


def _is_worth_caching(body: Mapping[str, Any], request: Mapping[str, Any]) -> bool:
    """A lone question is not asked again, unless the client says so."""
    says_so = request.get("prompt_cache_key") is not None
    return bool(says_so or body.get("tools") or body.get("system") or len(body["messages"]) > 1)


def _limit(body: Mapping[str, Any], marked: list[dict[str, Any]], notes: Notes) -> bool:
    room = MOST_BREAKPOINTS - ("cache_control" in body)
    if len(marked) > room:
        firsts = [[b for b in body.get(name, ()) if "cache_control" in b] for name in ("tools", "system")]
        others = {id(block) for blocks in firsts for block in blocks}
        kept = [blocks[-1] for blocks in firsts if blocks]
        kept += [b for b in reversed(marked) if id(b) not in others][: room - len(kept)]
        stay = {id(block) for block in kept}
        for block in marked:
            if id(block) not in stay:
                del block["cache_control"]
        notes.warn("cache_breakpoints_dropped", "messages", f"Claude takes at most {MOST_BREAKPOINTS} breakpoints.")
        marked = [block for block in marked if "cache_control" in block]
    return _lengthen([*marked, *([body] if "cache_control" in body else [])])


def _lengthen(holders: list[Any]) -> bool:
    """A breakpoint of an hour may not follow one of five minutes: those before it last as long. Where it is the last
    one, then all do."""
    last_hour = max((i for i, holder in enumerate(holders) if holder["cache_control"].get("ttl") == "1h"), default=0)
    for holder in holders[:last_hour]:
        holder["cache_control"] = _control("1h")
    return bool(holders) and holders[-1]["cache_control"].get("ttl") == "1h"

"""What an answer says beside its content: what was dropped, what safeguards found, what was edited away."""

from collections.abc import Iterable, Iterator
from typing import Any

from app.simulator.events import Event

Drop = dict[str, str]
"""A thinking block that was left out: its `path` in the request, and the `reason`."""


def reported(events: Iterable[Event], body: dict[str, Any], dropped: list[Drop] | None) -> Iterable[Event]:
    """The events with `input_transformations` in message_start unless `dropped` is None, and in message_delta
    `safeguard_results` and `context_management` where the request has what they answer."""
    if dropped is None and not body.get("safeguards") and body.get("context_management") is None:
        return events
    return _told(events, body, dropped)


def _told(events: Iterable[Event], body: dict[str, Any], dropped: list[Drop] | None) -> Iterator[Event]:
    calls: list[str] = []
    for event in events:
        match event.get("type"):
            case "message_start" if dropped is not None:
                transformations = [{"type": "thinking_dropped", **drop} for drop in dropped]
                message = {**event["message"], "input_transformations": transformations}
                yield {"type": "message_start", "message": message}
            case "message_delta":
                yield _ended(event, body, calls)
            case _:
                block = event.get("content_block") or {}
                if block.get("type") == "tool_use":
                    calls.append(block["id"])
                yield event


def _ended(event: Event, body: dict[str, Any], calls: list[str]) -> Event:
    found: Event = {"type": "message_delta", "delta": event["delta"], "usage": event["usage"]}
    if body.get("context_management") is not None:
        found["context_management"] = {"applied_edits": []}
    if wanted := body.get("safeguards"):
        status = {"type": "available", "tool_uses": {call: {"verdict": "allow"} for call in calls}}
        results = [{"type": safeguard.get("type"), "status": status} for safeguard in wanted]
        found["delta"] = {**event["delta"], "safeguard_results": results}
    return found

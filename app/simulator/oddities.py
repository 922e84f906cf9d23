"""Scenarios of answers that are right in themselves and odd in their form."""

from collections.abc import Iterator

from app.simulator.events import Event
from app.simulator.reply import Ask, Reply, message, numbered, paced, say, scenario, text

MEGABYTE = 1024 * 1024


@scenario("sim-huge-event")
def _huge_event(ask: Ask) -> Reply:
    """One delta of as many megabytes as its number says (2)."""
    return say(ask, text("x" * (MEGABYTE * (ask.number or 2))))


@scenario("sim-comments")
def _comments(ask: Ask) -> Reply:
    """A comment behind each event."""
    return paced(ask, _commented(ask))


def _commented(ask: Ask) -> Iterator[Event]:
    for event in message(ask, [numbered(5)], "end_turn"):
        yield event
        if event["type"] != "message_stop":
            yield {"type": "comment", "_raw": b": still there\n\n"}


@scenario("sim-retry-after")
def _retry_after(ask: Ask) -> Reply:
    """An answer like any other, with `retry-after` of as many seconds as its number says (30)."""
    reply = say(ask, numbered(5))
    reply.headers["retry-after"] = str(30 if ask.number is None else ask.number)
    return reply


@scenario("sim-json-for-stream")
def _json_for_stream(ask: Ask) -> Reply:
    """JSON, also where a stream was asked for."""
    reply = say(ask, numbered(5))
    reply.as_stream = False
    return reply


@scenario("sim-stream-for-json")
def _stream_for_json(ask: Ask) -> Reply:
    """A stream, also where JSON was asked for."""
    reply = say(ask, numbered(5))
    reply.as_stream = True
    return reply


@scenario("sim-error-redirect")
def _redirect(ask: Ask) -> Reply:
    """A 302, or what its number says, to another host."""
    return Reply(
        raw=(ask.number or 302, "text/html", b""), headers={"location": "https://elsewhere.invalid/v1/messages"}
    )


@scenario("sim-error-empty")
def _empty_body(ask: Ask) -> Reply:
    """A 200, or what its number says, without a single byte."""
    return Reply(raw=(ask.number or 200, "application/json", b""))

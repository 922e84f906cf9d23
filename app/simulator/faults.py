"""Faults that a test orders for a key: `POST /_sim/faults {"key": …, "fault": {…}, "times": N}`.

{"status": 429, "retry_after": 30}                 an error in the API's words
{"status": 400, "message": "prompt is too long"}   an error in the words of the test
{"status": 402, "error_code": "…", "type": "…"}    its details.error_code and its type
{"status": 429, "bare": true}                      without the headers that say when to ask again
{"status": 502, "html": true}                      a page of the edge instead of JSON
{"cut_after": 4}, {"eof_inside": 4}, {"stall": true}, {"reset": true}, {"delay_s": 1}
{"headers": {"retry-after": "30", "cf-ray": null}} laid over the answer's headers, whatever it is; null takes one off
{"gzip": true}                                     compressed, whatever was asked for
{"crlf": true}, {"tight": true}, {"ping_ms": 500}  as the parameters of scenarios of these names

They hit `POST /v1/messages`; with "path" (say "/v1/messages/count_tokens") another one.
"""

from dataclasses import dataclass, field
from typing import Any

from app.simulator.refusal import Refusal
from app.simulator.reply import Ending, Reply
from app.simulator.scenarios import LOW_CREDIT, edge_page, error_message

ANY_KEY = "*"
MESSAGES = "/v1/messages"
FIELDS = frozenset(
    [
        *("status", "message", "retry_after", "error_code", "type", "bare", "html", "headers", "path"),
        *("cut_after", "eof_inside", "stall", "delay_s", "reset", "gzip", "crlf", "tight", "ping_ms"),
    ]
)


@dataclass(slots=True)
class Fault:
    """What happens to requests with a key: a delay, then an error status, or an early end, or other bytes."""

    delay_s: float = 0.0
    status: int | None = None
    message: str | None = None
    retry_after: int | None = None
    error_code: str | None = None
    type: str | None = None
    bare: bool = False
    html: bool = False
    ending: Ending | None = None
    headers: dict[str, str | None] = field(default_factory=dict)
    gzip: bool = False
    crlf: bool = False
    tight: bool = False
    ping_ms: float = 0
    path: str = MESSAGES
    times: int | None = None
    """How many requests are still to be hit; None: all."""

    def alter(self, reply: Reply) -> None:
        """Makes the reply end or look as ordered."""
        reply.ending = self.ending or reply.ending
        reply.gzip = self.gzip or reply.gzip
        reply.crlf = self.crlf or reply.crlf
        reply.tight = self.tight or reply.tight
        reply.ping_ms = self.ping_ms or reply.ping_ms


def parse(fault: dict[str, Any], times: int | None) -> Fault:
    """The fault that a control request describes. Raises a Refusal for what it does not know."""
    if unknown := set(fault) - FIELDS:
        raise Refusal(f"fault: unknown fields {sorted(unknown)}; known are {sorted(FIELDS)}")
    if "message" in fault and (not isinstance(fault["message"], str) or "status" not in fault):
        raise Refusal("fault: a message is a string and needs a status")
    ending = None
    if fault.get("reset"):
        ending = Ending("reset")
    elif fault.get("stall"):
        ending = Ending("stall", 0)
    elif "cut_after" in fault:
        ending = Ending("cut", int(fault["cut_after"]))
    elif "eof_inside" in fault:
        ending = Ending("eof_inside", int(fault["eof_inside"]))
    return Fault(
        delay_s=float(fault.get("delay_s", 0)),
        status=fault.get("status"),
        message=fault.get("message"),
        retry_after=fault.get("retry_after"),
        error_code=fault.get("error_code"),
        type=fault.get("type"),
        bare=bool(fault.get("bare")),
        html=bool(fault.get("html")),
        ending=ending,
        headers={name.lower(): value for name, value in (fault.get("headers") or {}).items()},
        gzip=bool(fault.get("gzip")),
        crlf=bool(fault.get("crlf")),
        tight=bool(fault.get("tight")),
        ping_ms=float(fault.get("ping_ms", 0)),
        path=str(fault.get("path", MESSAGES)),
        times=times,
    )


@dataclass
class Faults:
    """The orders in force. One for the key itself goes before one for all keys."""

    by_key: dict[str, Fault] = field(default_factory=dict)

    def order(self, document: Any) -> None:
        """Takes an order; `"fault": null` lifts the one for that key. Raises a Refusal."""
        if not isinstance(document, dict) or not isinstance(document.get("key"), str) or "fault" not in document:
            raise Refusal('A fault is {"key": "sk-ant-…" or "*", "fault": {…} or null, "times": N or null}')
        if document["fault"] is None:
            self.by_key.pop(document["key"], None)
        else:
            self.by_key[document["key"]] = parse(document["fault"], document.get("times"))

    def take(self, key: str, path: str = MESSAGES) -> Fault | None:
        """The fault for this request, counted."""
        for name in (key, ANY_KEY):
            fault = self.by_key.get(name)
            if fault is None or fault.times == 0 or fault.path != path:
                continue
            if fault.times is not None:
                fault.times -= 1
            return fault
        return None


KEYS_THAT_FAIL = {
    "sk-ant-invalid": (401, "invalid x-api-key"),
    "sk-ant-forbidden": (403, "Your API key does not have permission to use the specified resource."),
}
"""Keys with these beginnings fail everywhere."""
KEY_WITHOUT_CREDIT = "sk-ant-broke"


def authenticate(headers: dict[str, str]) -> str:
    """The key of the request. Raises a 401 or 403 Refusal: exactly one credential is needed."""
    key, bearer = headers.get("x-api-key"), headers.get("authorization")
    if key is not None and bearer is not None:
        raise Refusal("Only one of x-api-key and authorization may be sent", 401)
    if bearer is not None:
        scheme, _, key = bearer.partition(" ")
        if scheme.lower() != "bearer":
            raise Refusal("Invalid authorization header", 401)
    if not key:
        raise Refusal("x-api-key header is required", 401)
    for prefix, (status, message) in KEYS_THAT_FAIL.items():
        if key.startswith(prefix):
            raise Refusal(message, status)
    if not key.startswith("sk-ant-"):
        raise Refusal("invalid x-api-key", 401)
    return key


def check_credit(key: str) -> None:
    """Raises the 400 of an account that has no money left."""
    if key.startswith(KEY_WITHOUT_CREDIT):
        raise Refusal(LOW_CREDIT)


def fail(fault: Fault) -> None:
    """Raises the error that a fault orders, if it orders one in JSON."""
    if fault.status is not None and not fault.html:
        headers = {} if fault.retry_after is None else {"retry-after": str(fault.retry_after)}
        message = fault.message or error_message(fault.status)
        raise Refusal(message, fault.status, fault.error_code, headers=headers, type=fault.type, bare=fault.bare)


def page(fault: Fault) -> Reply | None:
    """The answer from the edge that a fault orders, if it orders one."""
    return Reply(raw=edge_page(fault.status or 502)) if fault.html else None

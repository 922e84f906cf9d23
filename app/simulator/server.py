"""The simulator on a socket: HTTP/1.1 with keep-alive, optionally TLS, one task per request.

GET  /_sim/requests   the last requests    DELETE /_sim/requests   forget them
GET  /_sim/requests/7/body                 the bytes of the body of number 7, or of "last"
GET  /_sim/stats      counters             POST   /_sim/faults     see `faults`
POST /_sim/policies   see `policies`       POST   /_sim/clock      {"forward_s": 301}, for threads and caches
POST /_sim/reports    {"refreshed_at": …}  until when the Analytics reports are complete; null for now
"""

import argparse
import asyncio
import hashlib
import re
import secrets
import signal
import ssl
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

from app.simulator import faults, journal, scenarios
from app.simulator.analytics import Bill, Meter, heard
from app.simulator.clock import Clock
from app.simulator.connection import Connection, made_up_id
from app.simulator.delivery import Delivery
from app.simulator.encodings import decoded, gzipped, takes_gzip
from app.simulator.faults import Fault, Faults
from app.simulator.http import Request
from app.simulator.journal import Entry, Journal
from app.simulator.models import SIM_PREFIX, Catalogue, Model, catalogue, model_info
from app.simulator.policies import USUAL, Policies, Policy
from app.simulator.refusal import Refusal
from app.simulator.replay import Replay
from app.simulator.reply import Ask, Reply
from app.simulator.reports import Drop, reported
from app.simulator.rules import Leniency
from app.simulator.signatures import account_of
from app.simulator.threads import Threads
from app.simulator.usage import PromptCache, count_prompt
from app.simulator.validator import betas_of, validate, validate_count_tokens, validate_version

PARAMETER_HEADERS = {
    "x-sim-tokens": "tokens",
    "x-sim-gap-ms": "gap_ms",
    "x-sim-ttft-ms": "ttft_ms",
    "x-sim-delay-ms": "delay_ms",
    "x-sim-retry-after": "retry_after",
    "x-sim-crlf": "crlf",
    "x-sim-tight": "tight",
    "x-sim-gzip": "gzip",
    "x-sim-ping-ms": "ping_ms",
}
RAW_BODY = re.compile(r"/_sim/requests/(\d+|last)/body")
BINDING_BETA = "thinking-binding-controls-"
FROM_THE_EDGE = {
    "server": "cloudflare",
    "via": "1.1 google",
    "cf-cache-status": "DYNAMIC",
    "strict-transport-security": "max-age=31536000; includeSubDomains; preload",
}
PAGE_LIMIT, MAX_PAGE_LIMIT = 20, 1000
OPEN_TO_ALL = frozenset({("HEAD", "/"), ("HEAD", "/api/hello"), ("GET", "/api/hello")})
"""What clients ask without a key, to see whether anybody is there."""
BY_INVITATION = ("mythos",)
"""Lines of models that an account like any other is not listed."""
_HELP = """\
A stand-in for Anthropic's Messages API on this machine, for trying things out
without a key of Anthropic's. It prints its URL, and stops with Ctrl-C.

Use that URL as a connection's base URL, with any key that begins with sk-ant-.
Claude's own model names are answered with made-up text. Further models each
play one part:

  sim-text                a few words; sim-text:tokens=200,gap_ms=10,ttft_ms=50
                          says how many, how fast, and after how long
  sim-cut-3               a stream that breaks off after three events
  sim-error-529           an error with that status;
                          sim-error-429:retry_after=30 with a wait

With --scenarios GET /v1/models lists these, too. Faults for all models of a key, or of every key
("*"), are ordered with POST /_sim/faults until null ends them:

  {"key": "*", "fault": {"status": 429, "retry_after": 30}, "times": 5}
  {"key": "*", "fault": {"reset": true}}    or "stall": true, "cut_after": 3,
                                            "delay_s": 2
  {"key": "*", "fault": {"headers": {"retry-after": "30"}, "gzip": true}}
  {"key": "*", "fault": null}"""


@dataclass(slots=True)
class Exchange:
    """One request to the API on its way to an answer."""

    request: Request
    connection: Connection
    entry: Entry
    request_id: str
    policy: Policy = USUAL
    fault: Fault | None = None

    def headers(self, more: dict[str, str] | None = None, bare: bool = False) -> dict[str, str]:
        """Those of an answer, with `more`, and with what a fault says about them; `bare` ones say nothing of limits."""
        headers: dict[str, str | None] = {
            **FROM_THE_EDGE,
            "cf-ray": f"{secrets.token_hex(8)}-CDG",
            "set-cookie": f"_cfuvid={secrets.token_hex(8)}; HttpOnly; SameSite=None; Secure; Path=/",
            "request-id": self.request_id,
        }
        if not bare:
            headers |= self.policy.limits() or rate_limits()
            headers |= {
                "anthropic-organization-id": organization(self.entry.key),
                "anthropic-workspace-id": workspace(self.entry.key),
                **(more or {}),
            }
        headers |= self.fault.headers if self.fault else {}
        return {name: value for name, value in headers.items() if value is not None}

    def respond(self, status: int, body: bytes, headers: dict[str, str] | None = None, bare: bool = False) -> None:
        self.entry.status = status
        headers = self.headers(headers, bare)
        if self.request.method == "HEAD":
            body = b""
        if body and (takes_gzip(self.request.headers) or (self.fault and self.fault.gzip)):
            body, headers = gzipped(body), {**headers, "content-encoding": "gzip"}
        self.connection.respond(status, headers, body)

    def refuse(self, refusal: Refusal) -> None:
        body = orjson.dumps(refusal.envelope(self.request_id))
        self.respond(refusal.status, body, refusal.headers, refusal.is_bare)


@dataclass
class Simulator:
    """All state that outlives a request."""

    replay: Replay
    journal: Journal = field(default_factory=Journal)
    faults: Faults = field(default_factory=Faults)
    policies: Policies = field(default_factory=Policies)
    clock: Clock = field(default_factory=Clock)
    cache: PromptCache = field(default_factory=PromptCache)
    models: Catalogue = field(default_factory=catalogue)
    bill: Bill = field(default_factory=Bill)

    def __post_init__(self) -> None:
        self.threads = Threads(self.clock)

    async def handle(self, request: Request, connection: Connection) -> None:
        """Answers one request; the journal says how it ended."""
        if request.path.startswith("/_sim/"):
            self._control(request, connection)
            return
        entry = self.journal.open(request, credential(request.headers), time.time())
        exchange = Exchange(request, connection, entry, made_up_id("req_01"), self.policies.of(entry.key))
        try:
            try:
                broken = await self._route(exchange)
            except Refusal as refusal:
                exchange.refuse(refusal)
                broken = False
            self.journal.close(entry, journal.ERROR if broken else journal.FINISHED, time.time())
        except asyncio.CancelledError:
            self.journal.close(entry, journal.ABORTED, time.time())
            raise
        except Exception:
            self.journal.close(entry, journal.ERROR, time.time())
            connection.transport.abort()
            raise

    # ------------------------------------------------------------------------------------------------------ control

    def _control(self, request: Request, connection: Connection) -> None:
        match request.method, request.path:
            case "GET", "/_sim/requests":
                answer: Any = {"requests": [entry.as_json() for entry in self.journal.entries]}
            case "DELETE", "/_sim/requests":
                self.journal.entries.clear()
                answer = {"ok": True}
            case "GET", "/_sim/stats":
                answer = self.journal.stats()
            case "GET", path if match := RAW_BODY.fullmatch(path):
                raw = self.journal.raw_body(match[1])
                if raw is None:
                    connection.respond(404, {}, b'{"ok": false, "error": "no such body"}')
                else:
                    connection.respond(200, {"content-type": "application/octet-stream"}, raw)
                return
            case "POST", "/_sim/faults" | "/_sim/policies":
                orders = self.faults if request.path == "/_sim/faults" else self.policies
                try:
                    orders.order(parse_json(request.body))
                    answer = {"ok": True}
                except Refusal as refusal:
                    connection.respond(400, {}, orjson.dumps({"ok": False, "error": refusal.message}))
                    return
            case "POST", "/_sim/clock":
                self.clock.ahead_s += parse_json(request.body)["forward_s"]
                answer = {"ok": True}
            case "POST", "/_sim/reports":
                told = parse_json(request.body)["refreshed_at"]
                self.bill.refreshed_at = None if told is None else datetime.fromisoformat(told)
                answer = {"ok": True}
            case _:
                connection.respond(404, {}, b'{"ok": false, "error": "no such control"}')
                return
        connection.respond(200, {}, orjson.dumps(answer))

    # ------------------------------------------------------------------------------------------------------- routes

    async def _route(self, exchange: Exchange) -> bool:
        """Answers; says whether the answer was broken off on purpose."""
        request = exchange.request
        if (request.method, request.path) in OPEN_TO_ALL:
            exchange.respond(200, b"")
            return False
        key = faults.authenticate(request.headers)
        match request.method, request.path:
            case "POST", "/v1/messages":
                return await self._messages(exchange, key)
            case "POST", "/v1/messages/count_tokens":
                await self._count_tokens(exchange, key)
            case "GET", "/v1/models":
                validate_version(request.headers)
                exchange.respond(200, orjson.dumps(self._page_of_models(request.query)))
            case "GET", path if path.startswith("/v1/models/"):
                validate_version(request.headers)
                exchange.respond(200, orjson.dumps(model_info(self._model(path.removeprefix("/v1/models/")))))
            case "GET", "/v1/organizations/analytics/usage":
                exchange.respond(200, orjson.dumps(self.bill.usage(request, key)))
            case "GET", "/v1/organizations/analytics/cost":
                exchange.respond(200, orjson.dumps(self.bill.cost(request, key)))
            case "GET", "/v1/organizations/api_keys":
                exchange.respond(200, orjson.dumps(self.bill.api_keys(key)))
            case _, "/v1/messages" | "/v1/messages/count_tokens" | "/v1/models":
                raise Refusal("Method Not Allowed", 405)
            case _:
                raise Refusal("Not found", 404)
        return False

    def _page_of_models(self, query: dict[str, str]) -> dict[str, Any]:
        limit = query.get("limit", str(PAGE_LIMIT))
        if not limit.isdigit() or not 1 <= int(limit) <= MAX_PAGE_LIMIT:
            raise Refusal(f"limit: Input should be between 1 and {MAX_PAGE_LIMIT}")
        wanted = query.get("lifecycle")
        listed = [m for m in self.models if m.line not in BY_INVITATION and wanted in (None, m.lifecycle)]
        ids = [model.id for model in listed]
        start, end = 0, min(int(limit), len(ids))
        if after := query.get("after_id"):
            start = place_of(after, ids, "after_id") + 1
            end = min(start + int(limit), len(ids))
        elif before := query.get("before_id"):
            end = place_of(before, ids, "before_id")
            start = max(0, end - int(limit))
        page = listed[start:end]
        return {
            "data": [model_info(model) for model in page],
            "has_more": start > 0 if query.get("before_id") else end < len(ids),
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
        }

    def _model(self, name: Any) -> Model:
        """The model that a request names. Raises the API's 404."""
        if not isinstance(name, str):
            raise Refusal("model: Field required" if name is None else "model: Input should be a valid string")
        model = self.models.find(name)
        if model is None or (name.startswith(SIM_PREFIX) and scenarios.find(name) is None):
            raise Refusal(f"model: {name}", 404)
        return model

    async def _take_fault(self, exchange: Exchange, key: str) -> Reply | None:
        """Lets the fault for this request happen, as far as it comes before the answer; a page of the edge is one."""
        fault = exchange.fault = self.faults.take(key, exchange.request.path)
        if fault is None:
            return None
        await asyncio.sleep(fault.delay_s)
        faults.fail(fault)
        return faults.page(fault)

    async def _count_tokens(self, exchange: Exchange, key: str) -> None:
        headers = exchange.request.headers
        validate_version(headers)
        body = parse_object(exchange)
        if page := await self._take_fault(exchange, key):
            await self._deliver(exchange, page, stream=False)
            return
        model, betas = self._model(body.get("model")), betas_of(headers)
        exchange.policy.check(headers, betas)
        counted = validate_count_tokens(body, headers, model, account_of(key), leniency_of(exchange.policy))
        exchange.policy.check_fields(body, betas)
        exchange.respond(200, orjson.dumps({"input_tokens": count_prompt(counted)}))

    async def _deliver(self, exchange: Exchange, reply: Reply, stream: bool) -> bool:
        exchange.entry.status = reply.raw[0] if reply.raw else 200
        zips = takes_gzip(exchange.request.headers)
        return await Delivery(exchange.connection, exchange.headers(), exchange.fault, zips).send(reply, stream)

    async def _messages(self, exchange: Exchange, key: str) -> bool:
        headers = exchange.request.headers
        body = parse_object(exchange)
        if page := await self._take_fault(exchange, key):
            return await self._deliver(exchange, page, stream=False)
        if name := self.replay.name_for(headers, body.get("model")):
            recording = self.replay.get(name)
            exchange.entry.status = recording.status
            Delivery(exchange.connection, exchange.headers()).replay(recording)
            return False
        validate_version(headers)
        faults.check_credit(key)
        account, betas, policy = account_of(key), betas_of(headers), exchange.policy
        policy.check(headers, betas)
        turn = self.threads.open(body, account, self._model(body.get("model")).id, betas, policy.threads)
        meter = Meter(self.bill, key)
        try:
            ask, dropped = self._ask(turn.body if turn else body, headers, account, policy)
            policy.check_fields(body, betas)
            reply = scenarios.answer(ask)
            reports_drops = any(beta.startswith(BINDING_BETA) for beta in betas)
            reply.events = reported(reply.events, ask.body, dropped if reports_drops else None)
            reply.events = heard(meter, turn.remembered(reply.events) if turn else reply.events)
            return await self._deliver(exchange, reply, stream=body.get("stream") is True)
        except Refusal:
            meter.forget()
            raise
        finally:
            meter.close()
            if turn:
                turn.close()

    def _ask(
        self, body: dict[str, Any], headers: dict[str, str], account: str, policy: Policy
    ) -> tuple[Ask, list[Drop]]:
        """The request for its scenario, and the thinking that was left out. Raises a Refusal when it is not valid."""
        model = self._model(body.get("model"))
        body, dropped = validate(body, headers, model, account, leniency_of(policy))
        found = scenarios.find(headers.get("x-sim-scenario", model.id))
        run, number, params = found or (None, None, {})
        prompt = self.cache.bill(account, model.id, model.cache_minimum, body, self.clock.now_s())
        ask = Ask(
            body=body,
            headers=headers,
            model=model,
            message_id=made_up_id("msg_01"),
            prompt=prompt,
            account=account,
            scenario=run,
            number=number,
            params={**params, **header_parameters(headers)},
        )
        return ask, dropped


def parse_json(data: bytes) -> Any:
    """The JSON value in a body. Raises a Refusal."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Refusal(f"The request body is not valid JSON: {error}") from None


def parse_object(exchange: Exchange) -> dict[str, Any]:
    """The JSON object in the request's body, noted in the journal."""
    body = exchange.entry.body = parse_json(decoded(exchange.request.body, exchange.request.headers))
    if not isinstance(body, dict):
        raise Refusal("Input should be an object")
    return body


def leniency_of(policy: Policy) -> Leniency:
    return Leniency(betas=policy.beta_fields == "taken")


def credential(headers: dict[str, str]) -> str:
    """The key as it was sent, for the journal."""
    return headers.get("x-api-key") or headers.get("authorization", "").partition(" ")[2]


def header_parameters(headers: dict[str, str]) -> dict[str, int]:
    """The scenario's parameters that came as headers."""
    return {
        name: int(headers[header]) for header, name in PARAMETER_HEADERS.items() if headers.get(header, "").isdigit()
    }


def place_of(model_id: str, ids: list[str], field_name: str) -> int:
    if model_id not in ids:
        raise Refusal(f"{field_name}: no such model: {model_id}")
    return ids.index(model_id)


def organization(key: str) -> str:
    """The organisation id of a key, shaped as the API's."""
    return str(UUID(account_of(key).ljust(32, "0")))


def workspace(key: str) -> str:
    """The workspace id of a key, shaped as the API's."""
    return "wrkspc_01" + hashlib.blake2b(account_of(key).encode(), digest_size=11).hexdigest()


def rate_limits() -> dict[str, str]:
    """Rate-limit headers of an account that is far from its limits."""
    reset = (datetime.now(UTC) + timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    limits = {"requests": 4_000, "input-tokens": 2_000_000, "output-tokens": 400_000, "tokens": 2_400_000}
    headers = {}
    for name, limit in limits.items():
        headers[f"anthropic-ratelimit-{name}-limit"] = str(limit)
        headers[f"anthropic-ratelimit-{name}-remaining"] = str(limit - 1 if name == "requests" else limit)
        headers[f"anthropic-ratelimit-{name}-reset"] = reset
    return headers


async def serve(
    port: int,
    host: str = "127.0.0.1",
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    replay: Path | None = None,
    lists_scenarios: bool = False,
) -> None:
    """Serves until SIGTERM or SIGINT. The first line on stdout says where, once it listens."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    context = None
    if tls_cert:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls_cert, tls_key)
    models = catalogue(scenarios.listed_names() if lists_scenarios else ())
    simulator = Simulator(Replay(replay), models=models)
    server = await loop.create_server(lambda: Connection(simulator.handle), host, port, ssl=context, backlog=4096)
    bound = server.sockets[0].getsockname()[1]
    sys.stdout.write(f"simulator listening on {'https' if context else 'http'}://{host}:{bound}\n")
    sys.stdout.flush()
    await stop.wait()
    server.close()


def main(argv: list[str]) -> None:
    """`dragoman simulator`: see `--help`."""
    parser = argparse.ArgumentParser(
        prog="dragoman simulator", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=0, help="port to listen on; without it a free one is picked")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="serve https with this certificate (PEM)")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, unless it is in the same file")
    parser.add_argument("--replay", type=Path, metavar="PATH", help="answer from recordings: one, or a folder of them")
    parser.add_argument("--scenarios", action="store_true", help="list the sim-… models as well as Claude's")
    options = parser.parse_args(argv)
    asyncio.run(serve(options.port, options.host, options.tls_cert, options.tls_key, options.replay, options.scenarios))

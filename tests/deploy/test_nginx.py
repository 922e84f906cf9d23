"""deploy/nginx.conf in a real nginx: what a client meets in front of it, and what the gateway sees behind it."""

from __future__ import annotations

import http.client
import queue
import re
import signal
import socket
import sqlite3
import ssl
import statistics
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests

from tests.conftest import ADMIN, CLIENT, CLIENT_KEY, Gateway, GatewayMaker, free_port, needs, wait_for
from tests.deploy.conftest import Nginx, NginxMaker, Node, Stream, children, read_stream, upstream

HI: list[Any] = [{"role": "user", "content": "hi"}]
NodeMaker = Callable[[Callable[[socket.socket, bytes], None]], Node]
MEGABYTE = 1024 * 1024


def chat(front: Nginx, **fields: Any) -> requests.Response:
    return front.post("/v1/chat/completions", {"model": "sim-text", "messages": HI, **fields}, headers=CLIENT)


def error_of(answer: requests.Response) -> dict[str, Any]:
    """The error in OpenAI's envelope."""
    assert answer.headers["content-type"] == "application/json", answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    return error


def seen_upstream(simulator: str, model: str) -> list[dict[str, Any]]:
    """The requests for `model` that the simulator received."""
    journal = requests.get(f"{simulator}/_sim/requests", timeout=5).json()["requests"]
    return [entry for entry in journal if isinstance(entry["body"], dict) and entry["body"]["model"] == model]


def answered(connection: socket.socket, text: str = "{}") -> None:
    """A node's plain answer, on a connection that stays."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n"
    connection.sendall(head.encode() + text.encode())


class TestStreams:
    @pytest.mark.parametrize("fronts", ["front", "secure"])
    def test_each_piece_arrives_when_it_was_said(
        self, request: pytest.FixtureRequest, running: Gateway, fronts: str
    ) -> None:
        through = read_stream(**request.getfixturevalue(fronts).usual, model="sim-text:tokens=30,gap_ms=50")
        direct = read_stream(running.url, "sim-text:tokens=30,gap_ms=50")
        assert through.is_whole
        # 30 tokens take 1.5 s: held back, they would come together.
        assert len(through.pieces) >= 25
        assert through.at_s[-1] - through.at_s[0] > 1.0
        gaps = [later - earlier for earlier, later in pairwise(through.at_s)]
        assert 0.02 < statistics.median(gaps) < 0.2
        assert abs(through.at_s[0] - direct.at_s[0]) < 1.0

    @pytest.mark.parametrize("tls", [False, True])
    def test_nothing_is_held_back_even_of_a_node_that_does_not_ask_for_it(
        self, nginx: NginxMaker, node: NodeMaker, tls: bool
    ) -> None:
        arrived = [threading.Event() for _ in range(3)]
        in_time = []

        def play(connection: socket.socket, _: bytes) -> None:
            connection.sendall(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            for event in arrived:
                connection.sendall(b"9\r\ndata: x\n\n\r\n")
                in_time.append(event.wait(5))
            connection.sendall(b"0\r\n\r\n")

        found = read_stream(
            **nginx(node(play).url, tls=tls).usual, model="any", on_piece=lambda number: arrived[number].set()
        )
        assert found.pieces == [b"data: x\n\n"] * 3
        assert in_time == [True, True, True]

    def test_its_type_stays_and_it_is_not_compressed(self, front: Nginx) -> None:
        found = read_stream(front.url, "sim-text:tokens=5", headers={"Accept-Encoding": "gzip"})
        assert found.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert "content-encoding" not in found.headers
        assert found.headers["x-accel-buffering"] == "no"  # for a proxy further out
        whole = front.get("/openapi.json", headers={"Accept-Encoding": "gzip"})
        assert "content-encoding" not in whole.headers

    def test_an_answer_in_one_piece_comes_as_the_gateway_made_it(self, front: Nginx) -> None:
        answer = chat(front, model="sim-text:tokens=3")
        assert answer.json()["choices"][0]["message"]["content"] == "w0 w1 w2"
        assert answer.headers["openai-version"] == "2020-10-01"

    @pytest.mark.parametrize("path", ["/v1/models?a=%20b", "//v1//models/", "/v1/models/anthropic%2Fclaude-opus-5.5"])
    def test_paths_arrive_as_they_were_sent(self, nginx: NginxMaker, node: NodeMaker, path: str) -> None:
        played = node(lambda connection, _: answered(connection))
        client = http.client.HTTPConnection("127.0.0.1", nginx(played.url).port, timeout=10)
        client.request("GET", path)
        assert client.getresponse().status == 200
        client.close()
        assert played.requests[0].startswith(f"GET {path} HTTP/1.1\r\n".encode())

    def test_the_gateways_own_errors_come_through(self, front: Nginx) -> None:
        assert error_of(chat(front, model="sim-error-529"))["code"] == "overloaded"
        assert error_of(chat(front, messages=[]))["param"] == "messages"
        assert error_of(front.get("/v1/models"))["message"].startswith("You didn't provide an API key")


class TestClientsThatLeave:
    @pytest.mark.parametrize(
        ("model", "stream"),
        [
            ("sim-text:tokens=2001,gap_ms=50", True),
            ("sim-stall-5", True),
            ("sim-slow-headers-32", True),
            ("sim-slow-headers-33", False),
            ("sim-stall-6", False),
        ],
    )
    def test_they_end_the_call_upstream_within_two_seconds(
        self, front: Nginx, simulator: str, model: str, stream: bool
    ) -> None:
        aborted = requests.get(f"{simulator}/_sim/stats", timeout=5).json()["aborted_by_client"]
        body = orjson.dumps({"model": model, "messages": HI, "stream": stream})
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {CLIENT_KEY}\r\n"
        with socket.create_connection(("127.0.0.1", front.port)) as leaving:
            leaving.sendall(head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body)
            wait_for(lambda: seen_upstream(simulator, model), what="the call upstream")
            if "tokens" in model:
                assert leaving.recv(1) == b"H"
        left_at = time.monotonic()
        wait_for(lambda: seen_upstream(simulator, model)[-1]["ended"] == "aborted by client", within_s=2)
        assert time.monotonic() - left_at < 2
        assert requests.get(f"{simulator}/_sim/stats", timeout=5).json()["aborted_by_client"] == aborted + 1


class TestBodies:
    def test_a_document_of_thirty_megabytes_is_answered(self, front: Nginx) -> None:
        document = b"%PDF-1.7\n" + bytes(22 * MEGABYTE)
        data = f"data:application/pdf;base64,{b64encode(document).decode()}"
        file = {"type": "file", "file": {"filename": "report.pdf", "file_data": data}}
        answer = chat(front, model="sim-image", messages=[{"role": "user", "content": [file]}])
        assert int(answer.request.headers["content-length"]) > 30_000_000
        assert f"application/pdf of {len(document)} bytes" in answer.json()["choices"][0]["message"]["content"]

    def test_more_than_the_gateway_takes_is_refused_in_its_own_words(self, front: Nginx, running: Gateway) -> None:
        body = b"x" * 40 * MEGABYTE
        direct = requests.post(f"{running.url}/v1/chat/completions", data=body, headers=CLIENT, timeout=60)
        for _ in range(5):  # the refusal comes while nginx still sends
            answer = front.post("/v1/chat/completions", data=body, headers=CLIENT)
            assert (answer.status_code, error_of(answer)["code"]) == (413, "request_too_large")
            assert error_of(answer) == error_of(direct)

    @pytest.mark.parametrize("is_chunked", [False, True])
    def test_what_nginx_itself_refuses_is_refused_in_the_same_way(self, front: Nginx, is_chunked: bool) -> None:
        body: Any = (b"x" * MEGABYTE for _ in range(65)) if is_chunked else b"x" * 65 * MEGABYTE
        answer = front.post("/v1/chat/completions", data=body, headers=CLIENT)
        assert (answer.status_code, error_of(answer)["code"]) == (413, "request_too_large")

    def test_a_wrong_key_is_a_401_however_large_the_body(self, front: Nginx) -> None:
        for _ in range(5):
            answer = front.post("/v1/chat/completions", data=b"x" * 20 * MEGABYTE, headers={"x-api-key": "wrong"})
            assert (answer.status_code, error_of(answer)["code"]) == (401, "invalid_api_key")


class TestWhoAsks:
    def test_the_gateway_sees_the_client_and_believes_no_forged_address(self, front: Nginx, running: Gateway) -> None:
        client = http.client.HTTPConnection("127.0.0.1", front.port, source_address=("127.0.0.5", 0), timeout=10)
        forged = {"X-Forwarded-For": "203.0.113.9", "X-Real-IP": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
        client.request("GET", "/config?reveal=true", headers={**ADMIN, **forged})
        assert client.getresponse().status == 200
        client.close()
        with sqlite3.connect(running.instance / "dragoman.db") as database:
            rows = database.execute("SELECT ip FROM audit WHERE action = 'config.reveal'").fetchall()
        database.close()
        assert rows == [("127.0.0.5",)]

    def test_what_nginx_tells_of_the_client_is_nginxs_own(self, nginx: NginxMaker, node: NodeMaker) -> None:
        played = node(lambda connection, _: answered(connection))
        front = nginx(played.url)
        forged = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example", "X-Forwarded-For": "203.0.113.9"}
        assert front.get("/v1/models", headers={**forged, "Host": "ai.example.com:8080"}).ok
        assert front.get("/v1/models", headers={"Host": "ai.example.com"}).ok
        with_port, without = (_headers_of(request) for request in played.requests)
        assert with_port["host"] == "ai.example.com:8080"
        assert without["host"] == "ai.example.com"
        assert with_port["x-forwarded-for"] == "127.0.0.1"
        assert with_port["x-forwarded-proto"] == "http"
        assert "x-forwarded-host" not in with_port
        assert "connection" not in with_port

    @pytest.mark.parametrize(
        "path", ["/metrics", "/metrics/", "//metrics", "/%6detrics", "/v1/../metrics", "/metrics?a=b"]
    )
    def test_counts_are_not_for_the_outside(self, front: Nginx, running: Gateway, path: str) -> None:
        token = {"authorization": "Bearer metrics-token-of-the-tests"}
        assert requests.get(f"{running.url}/metrics", headers=token, timeout=5).ok
        client = http.client.HTTPConnection("127.0.0.1", front.port, timeout=10)
        client.request("GET", path, headers=token)  # requests would tidy the path up
        answer = client.getresponse()
        body = orjson.loads(answer.read())
        client.close()
        assert (answer.status, body["error"]["code"]) == (404, "unknown_url")

    def test_the_admin_pages_are_there(self, front: Nginx) -> None:
        page = front.get("/setup")
        assert page.ok
        assert page.headers["content-type"].startswith("text/html")
        assert "Secure" not in page.headers.get("set-cookie", "")


def _headers_of(request: bytes) -> dict[str, str]:
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


CHUNKED = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"


def _refused(front: Nginx, request_bytes: bytes, *, over_tls: bool) -> tuple[int, dict[str, Any]]:
    """The status of nginx's answer, and the error in it."""
    port = front.tls_port if over_tls else front.port
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        if not over_tls:
            return _answer_on(connection, request_bytes)
        context = ssl.create_default_context(cafile=front.certificate)
        with context.wrap_socket(connection, server_hostname="127.0.0.1") as secured:
            return _answer_on(secured, request_bytes)


def _answer_on(connection: socket.socket, request_bytes: bytes) -> tuple[int, dict[str, Any]]:
    connection.sendall(request_bytes)
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    error: dict[str, Any] = orjson.loads(answer.read(int(answer.headers["content-length"])))["error"]
    assert answer.headers["content-type"] == "application/json"
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status, error


class TestErrorsOfNginxItself:
    @pytest.mark.parametrize(
        ("request_bytes", "status"),
        [
            (b"rubbish\r\n\r\n", 400),
            (b"GET /v1 HTTP/1.1\r\n\r\n", 400),
            (b"GET /v1 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            (b"GET /v1/%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
            (b"GET /v1 HTTP/1.1\r\nHost: a\r\nx: " + b"x" * 9000 + b"\r\n\r\n", 400),
            (b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
            (CHUNKED + b"\r\nzz\r\n", 400),
            (CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n", 400),
            (b"GET /.nginx/bad_request HTTP/1.1\r\nHost: a\r\n\r\n", 404),
            (b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 404),
            (b"TRACE /v1 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
            (CHUNKED.replace(b"chunked", b"gzip") + b"\r\n", 501),
            (CHUNKED.replace(b"chunked", b"gzip, chunked") + b"\r\n", 501),
            (b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", 505),
            (b"GET /admin HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ],
    )
    @pytest.mark.parametrize("fronts", ["front", "secure"])
    def test_they_are_in_openais_envelope(
        self, request: pytest.FixtureRequest, fronts: str, request_bytes: bytes, status: int
    ) -> None:
        reached: Nginx = request.getfixturevalue(fronts)
        found, error = _refused(reached, request_bytes, over_tls=bool(reached.https))
        assert (found, error["type"]) == (status, "invalid_request_error")

    @pytest.mark.parametrize("node_says", [b"", b"HTTP/1.1 200 OK\r\nno header\r\n\r\n"])
    def test_a_node_that_breaks_off_is_an_error_worth_another_try(
        self, nginx: NginxMaker, node: NodeMaker, node_says: bytes
    ) -> None:
        answer = chat(nginx(node(lambda connection, _: connection.sendall(node_says)).url))
        assert (answer.status_code, error_of(answer)["code"]) == (502, "gateway_unavailable")
        assert answer.headers["retry-after"] == "2"

    def test_a_node_that_lets_nobody_in_is_an_error_worth_another_try(self, nginx: NginxMaker) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            address = full.getsockname()
            waiting = [socket.socket() for _ in range(4)]
            for each in waiting:
                each.setblocking(False)
                each.connect_ex(address)
            answer = chat(nginx(f"http://127.0.0.1:{address[1]}"))
            for each in waiting:
                each.close()
        assert (answer.status_code, error_of(answer)["code"]) == (504, "gateway_unavailable")
        assert answer.headers["retry-after"] == "2"

    def test_http_to_the_port_of_https_is_told_so(self, secure: Nginx) -> None:
        with socket.create_connection(("127.0.0.1", secure.tls_port), timeout=5) as connection:
            status, error = _answer_on(connection, b"GET /v1 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (status, "https" in error["message"]) == (400, True)

    def test_a_body_that_does_not_come_is_given_up_and_never_reaches_the_gateway(
        self, nginx: NginxMaker, node: NodeMaker
    ) -> None:
        played = node(lambda connection, _: answered(connection))
        with socket.create_connection(("127.0.0.1", nginx(played.url).port), timeout=10) as connection:
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf")
            assert connection.recv(1) == b""  # no 408: nginx closes
        assert played.requests == []

    def test_while_the_gateway_stops_its_streams_end_well_and_others_are_told(
        self, nginx: NginxMaker, gateway: GatewayMaker, simulator: str
    ) -> None:
        stopping = gateway(**upstream(simulator), GRACEFUL_TIMEOUT="20")
        front = nginx(stopping.url)
        begun = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            stream = pool.submit(read_stream, front.url, "sim-text:tokens=60,gap_ms=50", on_piece=lambda _: begun.set())
            assert begun.wait(10)
            stopping.process.send_signal(signal.SIGTERM)
            wait_for(lambda: front.get("/v1").status_code == 502, what="new requests are refused")
            for answer in (chat(front), front.get("/v1/models", headers=CLIENT), front.get("/admins")):
                error = error_of(answer)
                assert (answer.status_code, error["type"]) == (502, "server_error")
                assert error["code"] == "gateway_unavailable"
                assert answer.headers["retry-after"] == "2"
            page = front.get("/admin/login")
            assert (page.status_code, page.headers["content-type"]) == (502, "text/html; charset=utf-8")
            assert "Dragoman" in page.text
            assert not stream.done()
            assert stream.result(20).is_whole


class TestNodes:
    def test_a_refused_connection_goes_to_the_next_node(
        self, nginx: NginxMaker, running: Gateway, simulator: str
    ) -> None:
        front = nginx(f"http://127.0.0.1:{free_port()}", running.url)
        for _ in range(6):
            assert chat(front, model="sim-text:tokens=7").ok
        assert len(seen_upstream(simulator, "sim-text:tokens=7")) == 6

    def test_a_request_that_was_sent_is_never_sent_again(
        self, nginx: NginxMaker, node: NodeMaker, running: Gateway, simulator: str
    ) -> None:
        dying = node(lambda connection, _: None)  # takes the request and says nothing more
        front = nginx(dying.url, running.url)
        found: list[int] = []

        def dies() -> bool:
            found.append(chat(front, model="sim-text:tokens=8").status_code)
            return bool(dying.requests)

        wait_for(dies, what="a request to the dying node")
        assert found[-1] == 502
        assert len(dying.requests) == 1
        assert len(seen_upstream(simulator, "sim-text:tokens=8")) == len(found) - 1

    def test_connections_are_kept_but_not_as_long_as_the_gateway_keeps_them(
        self, nginx: NginxMaker, node: NodeMaker
    ) -> None:
        idle_s: list[float] = []

        def play(connection: socket.socket, _: bytes) -> None:
            answered(connection)
            assert connection.recv(65_536).startswith(b"GET /v1/second")
            answered(connection)
            idle_since = time.monotonic()
            assert connection.recv(1) == b""
            idle_s.append(time.monotonic() - idle_since)

        front = nginx(node(play).url)
        assert front.get("/v1/first").ok
        assert front.get("/v1/second").ok
        wait_for(lambda: idle_s, within_s=9, what="nginx gives the idle connection up")
        kept = re.search(r"(?m)^keepalive = (\d+)", (Path(__file__).parents[2] / "gunicorn.conf.py").read_text())
        assert kept
        assert 1 < idle_s[0] < int(kept[1]) - 0.5


class TestReloads:
    def test_nginxs_own_cuts_no_stream(self, nginx: NginxMaker, running: Gateway) -> None:
        front = nginx(running.url)
        with ThreadPoolExecutor(5) as pool:
            streams = _begun(pool, front)
            before = children(front.process)
            front.process.send_signal(signal.SIGHUP)
            wait_for(lambda: children(front.process) - before, what="a new worker")
            assert chat(front).ok
            assert not any(stream.done() for stream in streams)
            assert [stream.result(30).is_whole for stream in streams] == [True] * 5
        wait_for(lambda: not children(front.process) & before, what="the old worker is gone")

    def test_the_gateways_cuts_no_stream_and_answers_others_meanwhile(
        self, nginx: NginxMaker, gateway: GatewayMaker, simulator: str
    ) -> None:
        reloading = gateway(**upstream(simulator), GRACEFUL_TIMEOUT="20")
        front = nginx(reloading.url)
        statuses = []
        with ThreadPoolExecutor(5) as pool:
            streams = _begun(pool, front)
            before = children(reloading.process)
            reloading.process.send_signal(signal.SIGHUP)
            while not all(stream.done() for stream in streams):
                statuses += [chat(front, model="sim-text:tokens=2").status_code, front.get("/v1").status_code]
            assert [stream.result().is_whole for stream in streams] == [True] * 5
        assert children(reloading.process) - before
        assert len(statuses) > 20
        assert set(statuses) == {200}
        wait_for(lambda: not children(reloading.process) & before, within_s=15, what="the old worker is gone")

    def test_of_two_nodes_one_can_stop_in_the_middle_of_requests(
        self, nginx: NginxMaker, gateway: GatewayMaker, simulator: str
    ) -> None:
        stopping, staying = (gateway(**upstream(simulator), GRACEFUL_TIMEOUT="20") for _ in range(2))
        assert stopping.instance == staying.instance
        front = nginx(stopping.url, staying.url)
        statuses: list[int] = []

        def requests_until_it_is_gone() -> None:
            asked = {"model": "sim-text:tokens=2", "messages": HI}
            with requests.Session() as client:
                while stopping.process.poll() is None:
                    answer = client.post(f"{front.url}/v1/chat/completions", json=asked, headers=CLIENT, timeout=30)
                    statuses.append(answer.status_code)

        with ThreadPoolExecutor(21) as pool:
            streams = _begun(pool, front)
            crowd = [pool.submit(requests_until_it_is_gone) for _ in range(16)]
            wait_for(lambda: len(statuses) > 50, what="a crowd of clients is under way")
            stopping.process.send_signal(signal.SIGTERM)
            assert [stream.result(20).is_whole for stream in streams] == [True] * 5
            for each in crowd:
                each.result(30)
        assert len(statuses) > 100
        assert set(statuses) == {200}


def _begun(pool: ThreadPoolExecutor, front: Nginx) -> list[Future[Stream]]:
    """Five streams of three seconds, each under way."""
    begun: queue.Queue[int] = queue.Queue()
    streams = [
        pool.submit(read_stream, front.url, "sim-text:tokens=60,gap_ms=50", on_piece=begun.put) for _ in range(5)
    ]
    firsts = 0
    while firsts < 5:
        firsts += begun.get(timeout=10) == 0
    return streams


class TestTLS:
    def test_without_it_a_client_is_sent_on(self, secure: Nginx) -> None:
        answer = secure.post("/v1/chat/completions?a=b", {}, allow_redirects=False)
        assert answer.status_code == 308  # the method and the body stay
        assert answer.headers["location"] == "https://127.0.0.1/v1/chat/completions?a=b"

    def test_the_gateway_knows_of_it(self, secure: Nginx) -> None:
        page = requests.get(f"{secure.https}/setup", verify=secure.certificate, timeout=10)
        assert page.ok
        assert "Secure" in page.headers["set-cookie"]
        assert int(page.headers["strict-transport-security"].removeprefix("max-age=")) >= 180 * 86_400

    def test_a_client_that_leaves_an_http_2_stream_ends_the_call_upstream(self, secure: Nginx, simulator: str) -> None:
        curl = needs("curl", install="curl")
        model = "sim-text:tokens=2002,gap_ms=50"
        asked = orjson.dumps({"model": model, "messages": HI, "stream": True})
        url = f"{secure.https}/v1/chat/completions"
        key = f"authorization: Bearer {CLIENT_KEY}"
        leaving = subprocess.Popen(
            [curl, "--http2", "--cacert", secure.certificate, "-siN", url, "-d", asked, "-H", key],
            stdout=subprocess.PIPE,
        )
        assert leaving.stdout
        try:
            assert leaving.stdout.readline().startswith(b"HTTP/2 200")
            assert any(line.startswith(b"data:") for line in leaving.stdout)
        finally:
            leaving.kill()
            leaving.wait(5)
            leaving.stdout.close()
        wait_for(lambda: seen_upstream(simulator, model)[-1]["ended"] == "aborted by client", within_s=2)

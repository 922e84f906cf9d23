"""The service as an operator meets it: starting, reloading and stopping gunicorn, its counts, its log, and its answers
to what is no request."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from app.settings import Settings, split_list
from tests.conftest import CLIENT, ROOT, Gateway, GatewayMaker, wait_for


def workers_of(running: Gateway) -> set[int]:
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text()
    return {int(pid) for pid in children.split()}


def metrics_folder(pid: int) -> Path:
    """Where a gateway keeps its counts: the folder that it holds open."""
    found = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    return next(Path(path) for path in found if "/dragoman-metrics-" in path and not path.endswith(".db"))


def counted(running: Gateway, series: str) -> float:
    text = requests.get(running.url + "/metrics", timeout=5).text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(series))


def reload(running: Gateway) -> None:
    before = workers_of(running)
    running.process.send_signal(signal.SIGHUP)
    wait_for(lambda: workers_of(running) and not workers_of(running) & before, within_s=20, what="the reload")

    def answers() -> bool:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(running.url + "/healthz", timeout=5).ok
        return False

    wait_for(answers, within_s=20)


class TestCounts:
    def test_they_are_kept_in_memory_by_their_owner_alone_and_removed_at_the_end(self, gateway: GatewayMaker) -> None:
        running = gateway()
        folder = metrics_folder(running.process.pid)
        if os.access("/dev/shm", os.W_OK):
            assert folder.parent == Path("/dev/shm")
        assert folder.stat().st_mode & 0o777 == 0o700
        assert not list(running.instance.glob("metrics*"))
        running.stop()
        assert not folder.exists()

    def test_a_full_disk_cannot_take_space_from_under_them(self, gateway: GatewayMaker) -> None:
        running = gateway()
        requests.get(running.url + "/v1/models", headers=CLIENT, timeout=5)
        files = list(metrics_folder(running.process.pid).glob("*.db"))
        assert len(files) == 2
        for file in files:
            assert file.stat().st_blocks * 512 >= file.stat().st_size

    def test_they_survive_a_reload_and_take_no_more_space_with_each(
        self, gateway: GatewayMaker, simulator: str
    ) -> None:
        running = gateway(
            ENABLE_ANTHROPIC_API="true", ANTHROPIC_API_KEYS="sk-ant-test", ANTHROPIC_API_BASE_URLS=simulator
        )
        folder = metrics_folder(running.process.pid)
        files_before = 0
        chat = {"model": "sim-text", "messages": [{"role": "user", "content": "Hi"}]}
        for number in range(1, 5):
            answer = requests.post(f"{running.url}/v1/chat/completions", headers=CLIENT, json=chat, timeout=20)
            assert answer.ok, answer.text
            assert counted(running, "dragoman_answers_total") == number
            reload(running)
            files = len(list(folder.glob("*.db")))
            assert number < 2 or files == files_before  # of two workers: an old one and its successor
            files_before = files
        assert counted(running, "dragoman_answers_total") == 4
        assert metrics_folder(running.process.pid) == folder

    def test_two_gateways_do_not_share_them_and_a_killed_ones_are_cleared_away(self, gateway: GatewayMaker) -> None:
        one, other = gateway(), gateway()
        mine, others = metrics_folder(one.process.pid), metrics_folder(other.process.pid)
        assert mine != others
        one.kill()
        assert mine.exists()
        gateway()
        assert others.exists()
        assert not mine.exists()

    def test_the_generation_is_that_of_the_worker_furthest_behind(self, gateway: GatewayMaker) -> None:
        running = gateway(WEB_CONCURRENCY="2")
        generation = running.post("/config/update", {"COMPAT": "strict"}).json()["generation"]
        wait_for(lambda: counted(running, "dragoman_config_generation ") == generation)


class TestHeadersOfOthers:
    @pytest.mark.parametrize(
        "headers",
        [{"SCRIPT_NAME": "/zzz"}, {"PATH_INFO": "/zzz"}, {"Script-Name": "/zzz"}, {"X-Forwarded-Proto": "https"}],
    )
    def test_only_trusted_proxies_tell_paths_and_schemes(
        self, module_gateway: GatewayMaker, headers: dict[str, str]
    ) -> None:
        running = shared(module_gateway)
        answer = requests.get(running.url + "/v1", headers=headers, timeout=5)
        assert (answer.status_code, answer.json()) == (200, {"status": True})
        page = requests.get(running.url + "/setup", headers=headers, timeout=5)
        assert "Secure" not in page.headers.get("set-cookie", "")

    def test_a_trusted_proxy_tells_the_scheme(self, gateway: GatewayMaker) -> None:
        running = gateway(TRUSTED_PROXIES="1")
        page = requests.get(running.url + "/setup", headers={"X-Forwarded-Proto": "https"}, timeout=5)
        assert "Secure" in page.headers["set-cookie"]


_shared: list[Gateway] = []


def shared(maker: GatewayMaker) -> Gateway:
    if not _shared or _shared[0].process.poll() is not None:
        _shared[:] = [maker()]
    return _shared[0]


def raw(running: Gateway, request: bytes) -> tuple[int, str, bytes]:
    """Status, content type and body of the first answer to these bytes."""
    port = int(running.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(65_536):
                received += data
    head, _, body = received.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    kind = re.search(rb"(?i)content-type: ([^\r]+)", head)
    length = re.search(rb"(?i)content-length: (\d+)", head)
    assert kind
    assert length
    return status, kind[1].decode(), body[: int(length[1])]


class TestWhatIsNoRequest:
    @pytest.mark.parametrize(
        ("request_bytes", "status"),
        [
            (b"rubbish\r\n\r\n", 400),
            (b"GET /v1 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            (b"GET /v1 HTTP/9.9\r\nHost: a\r\n\r\n", 400),
            (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET /v1 HTTP/1.1\r\nHost: a\r\nx: " + b"x" * 9000 + b"\r\n\r\n", 431),
            (b"GET /v1 HTTP/1.1\r\nHost: a\r\n bad: 1\r\n\r\n", 400),
            (b"POST /v1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        ],
    )
    def test_it_is_refused_in_openais_envelope(
        self, module_gateway: GatewayMaker, request_bytes: bytes, status: int
    ) -> None:
        import orjson

        found, kind, body = raw(shared(module_gateway), request_bytes)
        assert kind == "application/json"
        error = orjson.loads(body)["error"]
        assert (found // 100, set(error)) == (status // 100, {"message", "type", "param", "code"})
        assert error["type"] == "invalid_request_error"
        assert 0 < len(error["message"]) <= 201

    @pytest.mark.parametrize("path", ["/v1/chat/completions", "/config/update"])
    @pytest.mark.parametrize("chunks", [b"zz\r\n", b"5\r\n{}", b"2\r\n{}zz", b"0;\x01=\r\n\r\n"])
    def test_malformed_chunks_are_a_400(self, module_gateway: GatewayMaker, path: str, chunks: bytes) -> None:
        running = shared(module_gateway)
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nx-api-key: admin-key-of-the-tests\r\n"
        status, kind, body = raw(running, head.encode() + b"\r\n" + chunks)
        assert (status, kind) == (400, "application/json"), body
        assert "Traceback" not in running.log


class TestARefusedBody:
    """Its sender has no key: it must cost next to nothing."""

    HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"

    def test_one_that_does_not_come_is_waited_for_as_long_as_an_idle_client(self, module_gateway: GatewayMaker) -> None:
        port = int(shared(module_gateway).url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(self.HEAD + b"Content-Length: 1000\r\n\r\nhalf")
            received = b""
            while data := client.recv(65_536):
                received += data
        assert received.startswith(b"HTTP/1.1 401")

    @pytest.mark.parametrize("chunked", [False, True])
    def test_one_without_an_end_is_not_taken_in(self, module_gateway: GatewayMaker, chunked: bool) -> None:
        port = int(shared(module_gateway).url.rsplit(":", 1)[1])
        kind = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 99999999999"
        piece = b"x" * 1_000_000
        sent = 0
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(self.HEAD + kind + b"\r\n\r\n")
            with contextlib.suppress(OSError):
                while sent < 2_000_000_000:
                    client.sendall(b"f4240\r\n" + piece + b"\r\n" if chunked else piece)
                    sent += len(piece)
        assert sent < 400_000_000

    @pytest.mark.parametrize("connection", ["keep-alive", "close"])
    @pytest.mark.parametrize("size", [40_000_000, 70_000_000, 200_000_000])
    def test_a_sender_that_reads_when_all_is_sent_learns_why(
        self, module_gateway: GatewayMaker, size: int, connection: str
    ) -> None:
        """As Python's http.client, which gives up at the first write that fails."""
        piece = b"x" * 1_000_000
        port = int(shared(module_gateway).url.rsplit(":", 1)[1])
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {**CLIENT, "content-length": str(size), "connection": connection}
        client.request("POST", "/v1/chat/completions", (piece for _ in range(size // len(piece))), headers)
        answer = client.getresponse()
        assert answer.status == 413
        assert b"larger than" in answer.read()
        client.close()

    def test_after_one_of_a_usual_size_the_connection_goes_on(self, module_gateway: GatewayMaker) -> None:
        with requests.Session() as session:
            url = shared(module_gateway).url
            assert session.post(f"{url}/v1/chat/completions", data=b"x" * 5_000_000, timeout=10).status_code == 401
            assert session.get(f"{url}/v1", timeout=10).ok


def test_a_client_that_left_in_the_middle_of_a_stream_gets_no_second_answer(
    gateway: GatewayMaker, simulator: str
) -> None:
    running = gateway(ENABLE_ANTHROPIC_API="true", ANTHROPIC_API_KEYS="sk-ant-x", ANTHROPIC_API_BASE_URLS=simulator)
    body = (
        b'{"model": "sim-text:tokens=500,gap_ms=20", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
    )
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: {CLIENT['authorization']}\r\n"
    with socket.create_connection(("127.0.0.1", int(running.url.rsplit(":", 1)[1])), timeout=10) as client:
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        received = client.recv(65_536)
        client.sendall(b"GET /v1 HTTP/1.1\r\nHost: a\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while data := client.recv(65_536):
                received += data
    assert received.count(b"HTTP/1.1 200") == 1


class TestStopping:
    def test_ctrl_c_ends_without_a_traceback(self, gateway: GatewayMaker) -> None:
        for _ in range(3):
            running = gateway()
            os.killpg(running.process.pid, signal.SIGINT)
            assert running.process.wait(10) == 0
            assert "Traceback" not in running.log

    def test_a_worker_leaves_ctrl_c_to_its_master(self, gateway: GatewayMaker) -> None:
        running = gateway()
        (worker,) = workers_of(running)
        os.kill(worker, signal.SIGINT)
        for _ in range(20):  # signals are handled before requests that come after them
            assert running.get("/readyz").json()["worker"]["pid"] == worker
        assert workers_of(running) == {worker}

    def test_our_lines_in_the_log_look_like_gunicorns(self, gateway: GatewayMaker) -> None:
        running = gateway(ANTHROPIC_API_BASE_URLS="http://a,http://b", ANTHROPIC_API_KEYS="one;two;three")

        def lines_of_ours() -> list[str]:
            return [line for line in running.log.splitlines() if "ANTHROPIC_API_BASE_URLS" in line]

        lines: list[str] = wait_for(lines_of_ours, what="the lists that do not pair up are in the log")
        for line in lines:
            assert re.match(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[\d+\] \[(ERROR|WARNING)\] ", line), line


class TestTheEnvironment:
    def test_lists_are_separated_by_commas_or_semicolons(self) -> None:
        assert split_list("a, b;c;;d ,") == ["a", "b", "c", "d"]
        assert Settings.from_environment({"GATEWAY_API_KEYS": "one;two"}).gateway_api_keys == ("one", "two")

    def test_the_usual_folder_is_the_same_wherever_a_command_is_given(self, tmp_path: Path) -> None:
        code = "from app.settings import Settings; print(Settings.from_environment().database_uri)"
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        said = {
            subprocess.run(
                [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=True
            ).stdout.strip()
            for folder in (ROOT, tmp_path)
        }
        assert said == {f"sqlite:///{ROOT / 'instance' / 'dragoman.db'}"}

    def test_a_folder_that_is_given_is_taken_as_it_is(self) -> None:
        assert Settings.from_environment({"INSTANCE_PATH": "here"}).instance_path == Path("here")

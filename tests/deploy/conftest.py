"""A real nginx with the very configuration of deploy/, and nodes behind it: gateways, or sockets that a test plays."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from soak.nginx import start_nginx
from tests.conftest import CLIENT, Gateway, GatewayMaker, free_port, needs, wait_for


@pytest.fixture(scope="session")
def nginx_program() -> str:
    # Debian keeps it where only root's PATH leads.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
        return needs("nginx", install="nginx-light")


@dataclass
class Nginx:
    """A running nginx: `url` is plain, `https` the same where TLS is on."""

    url: str
    https: str
    process: subprocess.Popen[bytes]
    folder: Path
    certificate: str

    @property
    def log(self) -> str:
        return (self.folder / "error.log").read_text(errors="replace")

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def tls_port(self) -> int:
        return int(self.https.rsplit(":", 1)[1])

    @property
    def usual(self) -> dict[str, Any]:
        """What read_stream() needs to know of where clients go: TLS where there is some."""
        return {"url": self.https, "verify": self.certificate} if self.https else {"url": self.url}

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url + path, **{"timeout": 30, **options})

    def post(self, path: str, json: Any = None, **options: Any) -> requests.Response:
        return requests.post(self.url + path, json=json, **{"timeout": 30, **options})


def children(process: subprocess.Popen[bytes]) -> set[int]:
    """Of a master: its workers."""
    pid = process.pid
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


NginxMaker = Callable[..., Nginx]


@pytest.fixture
def nginx(tmp_path: Path, nginx_program: str) -> Iterator[NginxMaker]:
    """Starts nginx in front of the given nodes (URLs) and waits until it listens; stopped after the test."""
    with _nginxes(tmp_path, nginx_program) as start:
        yield start


@pytest.fixture(scope="module")
def module_nginx(tmp_path_factory: pytest.TempPathFactory, nginx_program: str) -> Iterator[NginxMaker]:
    """The same for one that the tests of a module share."""
    with _nginxes(tmp_path_factory.mktemp("nginx"), nginx_program) as start:
        yield start


@contextlib.contextmanager
def _nginxes(parent: Path, program: str) -> Iterator[NginxMaker]:
    running: list[Nginx] = []

    def start(*nodes: str, tls: bool = False) -> Nginx:
        folder = parent / f"nginx-{len(running)}"
        folder.mkdir()
        plain, secure = free_port(), free_port()
        certificate = _certificate(folder) if tls else ""
        process = start_nginx(program, folder, nodes, plain, secure if tls else None)
        made = Nginx(
            f"http://127.0.0.1:{plain}", f"https://127.0.0.1:{secure}" if tls else "", process, folder, certificate
        )
        running.append(made)
        wait_for(lambda: _listens(made), within_s=10, what="nginx listens")
        return made

    try:
        yield start
    finally:
        for each in running:
            each.process.terminate()
            each.process.wait(10)


def _listens(made: Nginx) -> bool:
    assert made.process.poll() is None, (made.folder / "output.log").read_text() + made.log
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", made.port), timeout=1).close()
        return True
    return False


def _certificate(folder: Path) -> str:
    """Makes a key and a certificate of 127.0.0.1's own; the path to verify against."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "fullchain.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "privkey.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(path)


@pytest.fixture(scope="module")
def running(module_gateway: GatewayMaker, simulator: str) -> Gateway:
    """The gateway behind `front`."""
    return module_gateway(**upstream(simulator), METRICS_TOKEN="metrics-token-of-the-tests")


def upstream(simulator: str) -> dict[str, str]:
    """A gateway's variables: behind one proxy, in front of the simulator."""
    return {
        "TRUSTED_PROXIES": "1",
        "ENABLE_ANTHROPIC_API": "true",
        "ANTHROPIC_API_KEYS": "sk-ant-test-behind-nginx",
        "ANTHROPIC_API_BASE_URLS": simulator,
    }


@pytest.fixture(scope="module")
def front(module_nginx: NginxMaker, running: Gateway) -> Nginx:
    return module_nginx(running.url)


@pytest.fixture(scope="module")
def secure(module_nginx: NginxMaker, running: Gateway) -> Nginx:
    """As `front`, with TLS."""
    return module_nginx(running.url, tls=True)


@dataclass
class Node:
    """A node that a test plays: `play` gets the connection of each request, once the whole request is there."""

    play: Callable[[socket.socket, bytes], None]
    requests: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            received = b""
            while not _is_whole(received):
                data = connection.recv(65_536)
                if not data:
                    return
                received += data
            self.requests.append(received)
            self.play(connection, received)

    def close(self) -> None:
        self._listener.close()


def _is_whole(request: bytes) -> bool:
    head, separator, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    return bool(separator) and len(body) >= (int(length[1]) if length else 0)


@pytest.fixture
def node() -> Iterator[Callable[[Callable[[socket.socket, bytes], None]], Node]]:
    made: list[Node] = []

    def start(play: Callable[[socket.socket, bytes], None]) -> Node:
        made.append(Node(play))
        return made[-1]

    yield start
    for each in made:
        each.close()


@dataclass
class Stream:
    """A streamed answer as it came: its head, each piece, and the seconds after the request at which it was there."""

    status: int
    headers: Mapping[str, str]
    pieces: list[bytes]
    at_s: list[float]

    @property
    def text(self) -> str:
        return b"".join(self.pieces).decode()

    @property
    def is_whole(self) -> bool:
        return self.text.endswith("data: [DONE]\n\n")


def read_stream(
    url: str, model: str, *, on_piece: Callable[[int], Any] = lambda _: None, headers: Any = None, verify: Any = None
) -> Stream:
    """What `model` streams, read to its end; `on_piece` gets the number of each piece, from 0, when it is there."""
    asked = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    pieces, at_s = [], []
    started = time.monotonic()
    with requests.post(
        f"{url}/v1/chat/completions",
        headers={**CLIENT, **(headers or {})},
        json=asked,
        stream=True,
        timeout=60,
        verify=verify,
    ) as response:
        for piece in response.iter_content(chunk_size=None):
            pieces.append(piece)
            at_s.append(time.monotonic() - started)
            on_piece(len(pieces) - 1)
    return Stream(response.status_code, response.headers, pieces, at_s)

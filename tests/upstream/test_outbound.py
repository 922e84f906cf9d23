"""The way out: proxies and private certificate authorities are honoured, with a real proxy and real TLS."""

from __future__ import annotations

import datetime
import ipaddress
import select
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.errors import ConfigError
from app.settings import Settings
from app.upstream.transport import WayOut
from tests.conftest import CLIENT, ROOT, GatewayMaker

ASKED = {"model": "sim-text", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}


class Proxy(socketserver.ThreadingTCPServer):
    """Forwards CONNECT tunnels and absolute-form requests, and notes the first line and the credentials of each."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ProxyConnection)
        self.seen: list[tuple[str, str | None]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class ProxyConnection(socketserver.StreamRequestHandler):
    server: Proxy

    def handle(self) -> None:
        first = self.rfile.readline().decode()
        if not first:
            return
        headers: dict[str, str] = {}
        while line := self.rfile.readline().decode().strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        method, target, version = first.split()
        self.server.seen.append((f"{method} {target}", headers.get("proxy-authorization")))
        place = target if method == "CONNECT" else target.split("/")[2]
        host, _, port = place.partition(":")
        with socket.create_connection((host, int(port))) as onward:
            if method == "CONNECT":
                self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                path = "/" + target.split("/", 3)[3]
                kept = "".join(f"{n}: {v}\r\n" for n, v in headers.items() if not n.startswith("proxy-"))
                onward.sendall(f"{method} {path} {version}\r\n{kept}\r\n".encode())
                onward.sendall(self.rfile.read(int(headers.get("content-length", 0))))
            self.relay(onward)

    def relay(self, onward: socket.socket) -> None:
        ends = {self.connection: onward, onward: self.connection}
        while True:
            for ready in select.select(list(ends), [], [])[0]:
                data = ready.recv(65536)
                if not data:
                    return
                ends[ready].sendall(data)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def certificate(
    subject: str, issuer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None = None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """An authority's, or with `issuer` one for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    now = datetime.datetime.now(datetime.UTC)
    issuer_name, issuer_key = issuer or (name, key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if issuer is None:
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "encipher_only", "decipher_only"), False,
        )  # fmt: skip
        builder = builder.add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
    else:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(issuer_key, hashes.SHA256()), key


@pytest.fixture
def tls_simulator(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """(base URL, file of the private authority that vouches for it)."""
    authority, authority_key = certificate("A private authority")
    served, served_key = certificate("The simulator", (authority.subject, authority_key))
    ca_file, cert_file, key_file = tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem"
    pem = serialization.Encoding.PEM
    ca_file.write_bytes(authority.public_bytes(pem))
    cert_file.write_bytes(served.public_bytes(pem))
    key_file.write_bytes(served_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    arguments = ["--port", "0", "--tls-cert", str(cert_file), "--tls-key", str(key_file)]
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "simulator", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1], ca_file
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def asked_through(gateway: GatewayMaker, base_url: str, **variables: str) -> Any:
    started = gateway(
        ENABLE_ANTHROPIC_API="true",
        ANTHROPIC_API_KEYS="sk-ant-outbound",
        ANTHROPIC_API_BASE_URLS=base_url,
        **variables,
    )
    return started.post("/v1/chat/completions", ASKED, headers=CLIENT)


def test_a_private_authority_is_trusted_when_it_is_named(
    gateway: GatewayMaker, tls_simulator: tuple[str, Path], tmp_path: Path
) -> None:
    base_url, ca_file = tls_simulator
    assert base_url.startswith("https://")
    refused = asked_through(gateway, base_url, INSTANCE_PATH=str(tmp_path / "without"))
    assert (refused.status_code, refused.json()["error"]["code"]) == (502, "upstream_unreachable")
    assert "certificate" in refused.json()["error"]["message"].lower()
    assert asked_through(gateway, base_url, SSL_CERT_FILE=str(ca_file), INSTANCE_PATH=str(tmp_path / "with")).ok


def test_https_goes_through_the_tunnel_of_a_proxy(
    gateway: GatewayMaker, tls_simulator: tuple[str, Path], proxy: Proxy
) -> None:
    base_url, ca_file = tls_simulator
    variables = {"HTTPS_PROXY": f"http://ann:secret@{proxy.address}", "SSL_CERT_FILE": str(ca_file)}
    assert asked_through(gateway, base_url, **variables).ok
    assert proxy.seen
    assert set(proxy.seen) == {(f"CONNECT {base_url.removeprefix('https://')}", "Basic YW5uOnNlY3JldA==")}


def test_http_goes_through_a_proxy_of_its_own(gateway: GatewayMaker, simulator: str, proxy: Proxy) -> None:
    assert asked_through(gateway, simulator, HTTP_PROXY=f"http://{proxy.address}").ok
    assert (f"POST {simulator}/v1/messages", None) in proxy.seen


@pytest.mark.parametrize("no_proxy", ["127.0.0.1", "*", "example.com,127.0.0.1"])
def test_hosts_of_no_proxy_are_reached_directly(
    gateway: GatewayMaker, simulator: str, proxy: Proxy, no_proxy: str
) -> None:
    assert asked_through(gateway, simulator, HTTP_PROXY=f"http://{proxy.address}", NO_PROXY=no_proxy).ok
    assert proxy.seen == []


def test_a_proxy_that_does_not_answer_is_said_without_its_password(gateway: GatewayMaker, simulator: str) -> None:
    answer = asked_through(gateway, simulator, HTTP_PROXY="http://ann:secret@127.0.0.1:9")
    assert answer.status_code == 502
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"https_proxy": "socks5://127.0.0.1:1080"}, "HTTPS_PROXY"),
        ({"http_proxy": "http://"}, "HTTP_PROXY"),
        ({"ssl_cert_file": "/no/such/file.pem"}, "SSL_CERT_FILE"),
    ],
)
def test_a_wrong_setting_stops_the_start_and_is_named(values: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        WayOut(Settings(**values))  # type: ignore[arg-type]  # all of these are strings

"""A real nginx with the very configuration of deploy/, as the tests and the soak start it."""

from __future__ import annotations

import contextlib
import grp
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from soak.stage import ROOT, Unfit, free_port, wait_for

CONFIGURATION = ROOT / "deploy" / "nginx.conf"
MAIN = """\
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    # What other sites of the same nginx may have asked for.
    gzip on;
    gzip_types *;
    gzip_proxied any;
    gzip_min_length 1;
    proxy_buffering on;
    client_max_body_size 1m;
    client_body_timeout 3s;
    include {folder}/dragoman.conf;
}}
"""


def nginx_program() -> str | None:
    """Debian keeps it where only root's PATH leads."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


@contextlib.contextmanager
def nginx_before(node: str, program: str, folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Its URL and the pids of its workers, once it listens. Raises Unfit when it does not."""
    port = free_port()
    process = start_nginx(program, folder, [node], port)
    try:
        if not wait_for(lambda: _listens(port), 10):
            raise Unfit(f"nginx does not start:\n{(folder / 'output.log').read_text()}")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        yield f"http://127.0.0.1:{port}", [*map(int, children.split())]
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


def start_nginx(
    program: str, folder: Path, nodes: Sequence[str], port: int, tls_port: int | None = None
) -> subprocess.Popen[bytes]:
    """In front of the nodes (URLs); it may not listen yet. With a port for TLS the folder has certificate and key."""
    (folder / "dragoman.conf").write_text(configuration(nodes, port, tls_port, folder))
    # Its workers become another user otherwise, who may not enter the folder.
    user = f"user root {grp.getgrgid(os.getgid()).gr_name};" if os.getuid() == 0 else ""
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user=user))
    with (folder / "output.log").open("wb") as output:
        return subprocess.Popen(
            [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def configuration(nodes: Sequence[str], port: int, tls_port: int | None, folder: Path) -> str:
    """deploy/nginx.conf with other nodes, ports and paths; with a port for TLS, as its own sed makes it."""
    text = CONFIGURATION.read_text()
    if tls_port is not None:
        assert "sed -i 's/^    #tls /    /'" in text
        text = re.sub(r"(?m)^    #tls ", "    ", text)
        text = re.sub(r"/etc/letsencrypt/live/[^/]+/", f"{folder}/", text)
    text, nets = re.subn(r"(?m)^ *listen \[::\]:.*\n", "", text)  # a machine may have no IPv6
    assert nets >= 1
    text = re.sub(r"(?m)^( *listen) 80\b", rf"\g<1> 127.0.0.1:{port}", text)
    text = re.sub(r"(?m)^( *listen) 443\b", rf"\g<1> 127.0.0.1:{tls_port}", text)
    server = re.search(r"(?m)^    server 127\.0\.0\.1:4117( .*;)$", text)
    assert server
    lines = [f"    server {node.removeprefix('http://')}{server[1]}" for node in nodes]
    return text[: server.start()] + "\n".join(lines) + text[server.end() :]

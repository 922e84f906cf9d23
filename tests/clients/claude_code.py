"""Claude Code, run headless in folders of its own against any base URL, and kept from calling anything else."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.clients.conftest import HERE, need_packages

MODEL = "claude-opus-5-5"
SMALL_MODEL = "claude-haiku-5-5"
ALL_TO_ITSELF = {
    "CI": "true",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL": "1",
    "CLAUDE_CODE_DISABLE_TERMINAL_TITLE": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


def program() -> Path:
    """Claude Code's binary: that of the platform's own package, since npm's scripts, which link it, are not run."""
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    libc = "" if platform.libc_ver()[0] else "-musl"
    name = f"@anthropic-ai/claude-code-linux-{machine}{libc}"
    need_packages({name: f"{name}/claude"})
    return HERE / "node_modules" / name / "claude"


@dataclass(frozen=True)
class Said:
    """What it printed with `--output-format json`."""

    text: str
    is_error: bool
    turns: int
    session: str
    status: int | None
    """That of the error it gave up on."""


@dataclass
class ClaudeCode:
    """One user's: sessions last from run to run."""

    url: str
    key: str
    folder: Path
    proxy: str
    asked_elsewhere: list[str]
    """What the proxy was asked for, and did not do."""
    program: Path = field(default_factory=program)

    @property
    def work(self) -> Path:
        """The folder it works in."""
        return self.folder / "work"

    def run(self, prompt: str, *options: str, without: tuple[str, ...] = (), **variables: str) -> Said:
        """Its answer to `claude -p`; `variables` are set, and those named in `without` are not."""
        for name in ("home", "config", "work"):
            (self.folder / name).mkdir(exist_ok=True)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder / "home"),
            "CLAUDE_CONFIG_DIR": str(self.folder / "config"),
            "ANTHROPIC_BASE_URL": self.url,
            "ANTHROPIC_AUTH_TOKEN": self.key,
            "ANTHROPIC_MODEL": MODEL,
            "ANTHROPIC_DEFAULT_HAIKU_MODEL": SMALL_MODEL,
            "HTTP_PROXY": self.proxy,
            "HTTPS_PROXY": self.proxy,
            "NO_PROXY": "127.0.0.1",
            **ALL_TO_ITSELF,
            **variables,
        }
        done = subprocess.run(
            [str(self.program), "-p", prompt, "--output-format", "json", *options],
            cwd=self.work,
            env={name: value for name, value in environment.items() if name not in without},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout.startswith("{"), f"{done.returncode}: {done.stdout}\n{done.stderr}"
        result: dict[str, Any] = json.loads(done.stdout)
        return Said(
            result["result"],
            result["is_error"],
            result["num_turns"],
            result["session_id"],
            result.get("api_error_status"),
        )


@contextlib.contextmanager
def closed_proxy() -> Iterator[tuple[str, list[str]]]:
    """The URL of a proxy that lets nothing through, and what was asked of it."""
    asked: list[str] = []

    class Refusing(BaseHTTPRequestHandler):
        def _refuse(self) -> None:
            asked.append(f"{self.command} {self.path}")
            with contextlib.suppress(ConnectionError):  # it may have ended meanwhile
                self.send_error(403)

        do_CONNECT = do_GET = do_HEAD = do_POST = _refuse

        def log_message(self, format: str, *args: Any) -> None:  # not to the tests' output
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()

"""The gateways that are compared: how each is installed, configured, started and stopped, and what it takes to run.

Each runs one worker on 127.0.0.1, with its vendor's settings for production, and asks for a key where it can.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import importlib.metadata
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE / ".environments"
KEY = "sk-bench-0123456789abcdef"
_UPSTREAM_KEY = "sk-ant-bench"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Unavailable(Exception):
    """Why a peer cannot take part."""


@dataclass(frozen=True)
class Command:
    arguments: list[str]
    environment: dict[str, str]
    folder: Path = HERE


@dataclass(frozen=True)
class Peer:
    name: str
    title: str
    version: Callable[[], str]
    install: Callable[[], None]
    """Raises Unavailable."""
    command: Callable[[int, str, Path], Command]
    """With the port to listen on, the upstream's base URL and a folder to write in."""
    alive: str
    """A path that is answered 200 as soon as requests can be."""
    headers: Callable[[str], tuple[str, ...]] = lambda upstream: ()
    """More headers of each request, given the upstream's base URL."""
    speaks: frozenset[str] = frozenset({"chat", "messages"})
    """OpenAI's chat completions, Anthropic's messages."""


# -- environments


def _run(*arguments: str, folder: Path = HERE) -> None:
    try:
        subprocess.run(arguments, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError:
        raise Unavailable(f"{arguments[0]} is missing") from None
    except subprocess.CalledProcessError as error:
        said = [line for line in error.stderr.splitlines() if line.strip()]
        raise Unavailable(
            f"{Path(arguments[0]).name}: {said[-1] if said else f'exit status {error.returncode}'}"
        ) from None


@contextlib.contextmanager
def _environment(name: str, lock: Path) -> Iterator[Path | None]:
    """The folder to install into; None where just this lock is installed already."""
    folder = ENVIRONMENTS / name
    mark = folder / ".installed"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    if mark.exists() and mark.read_text() == digest:
        yield None
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield folder
    mark.write_text(digest)


def _install_python(name: str) -> None:
    requirements = HERE / f"requirements-{name}.txt"
    with _environment(name, requirements) as folder:
        if folder is not None:
            _run(sys.executable, "-m", "venv", str(folder))
            pip = (str(folder / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check")
            _run(*pip, "install", "--no-deps", "--requirement", str(requirements))


def _install_node(name: str) -> None:
    with _environment(name, HERE / name / "package-lock.json") as folder:
        if folder is not None:
            for each in ("package.json", "package-lock.json"):
                shutil.copy(HERE / name / each, folder)
            quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")
            _run("npm", "ci", *quiet, folder=folder)


def _pinned(name: str) -> dict[str, str]:
    lines = (HERE / f"requirements-{name}.txt").read_text().splitlines()
    return dict(line.partition(" ")[0].split("==") for line in lines)


# -- the peers


def _dragoman(port: int, upstream: str, folder: Path) -> Command:
    environment = {
        "PORT": str(port),
        "INSTANCE_PATH": str(folder / "instance"),
        "GATEWAY_API_KEYS": KEY,
        "ENABLE_ANTHROPIC_API": "true",
        "ANTHROPIC_API_BASE_URLS": upstream,
        "ANTHROPIC_API_KEYS": _UPSTREAM_KEY,
        "GRACEFUL_TIMEOUT": "5",
    }
    return Command([sys.executable, "-m", "app.cli", "run"], environment, HERE.parent)


def _litellm(port: int, upstream: str, folder: Path) -> Command:
    environment = {
        "BENCH_UPSTREAM": upstream,
        "LITELLM_MASTER_KEY": KEY,
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        # What it would otherwise fetch from the internet when it starts.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
        "LITELLM_LOCAL_BLOG_POSTS": "True",
        "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
    }
    program = str(ENVIRONMENTS / "litellm" / "bin" / "litellm")
    where = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    return Command([program, "--config", str(HERE / "litellm.yaml"), *where], environment, folder)


def _litellm_in_rust(port: int, upstream: str, folder: Path) -> Command:
    command = _litellm(port, upstream, folder)
    return replace(command, environment={**command.environment, "LITELLM_RUST": "true"})


def _portkey(port: int, upstream: str, folder: Path) -> Command:
    server = ENVIRONMENTS / "portkey" / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    loopback = str(HERE / "portkey" / "loopback.cjs")
    arguments = ["node", "--require", loopback, str(server), f"--port={port}", "--headless"]
    return Command(arguments, {"NODE_ENV": "production"}, folder)


def _fastapi(port: int, upstream: str, folder: Path) -> Command:
    environment = {"ANTHROPIC_BASE_URL": upstream, "ANTHROPIC_API_KEY": _UPSTREAM_KEY, "PROXY_KEY": KEY}
    program = str(ENVIRONMENTS / "fastapi" / "bin" / "uvicorn")
    where = ["--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
    return Command([program, "--app-dir", str(HERE), "fastapi_proxy:app", *where], environment, folder)


def _portkey_version() -> str:
    pinned: dict[str, str] = orjson.loads((HERE / "portkey" / "package.json").read_bytes())["dependencies"]
    return pinned["@portkey-ai/gateway"]


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "dragoman",
            "Dragoman",
            version=lambda: importlib.metadata.version("dragoman"),
            install=lambda: None,
            command=_dragoman,
            alive="/v1",
        ),
        Peer(
            "litellm",
            "LiteLLM",
            version=lambda: _pinned("litellm")["litellm[proxy]"],
            install=lambda: _install_python("litellm"),
            command=_litellm,
            alive="/health/liveliness",
        ),
        Peer(
            "litellm-rust",
            "LiteLLM, LITELLM_RUST",
            version=lambda: _pinned("litellm")["litellm[proxy]"],
            install=lambda: _install_python("litellm"),
            command=_litellm_in_rust,
            alive="/health/liveliness",
            speaks=frozenset({"messages"}),
        ),
        Peer(
            "portkey",
            "Portkey",
            version=_portkey_version,
            install=lambda: _install_node("portkey"),
            command=_portkey,
            alive="/",
            headers=lambda upstream: ("x-portkey-provider: anthropic", f"x-portkey-custom-host: {upstream}/v1"),
        ),
        Peer(
            "fastapi",
            "FastAPI and Anthropic's SDK",
            version=lambda: _pinned("fastapi")["anthropic"],
            install=lambda: _install_python("fastapi"),
            command=_fastapi,
            alive="/health",
            speaks=frozenset({"chat"}),
        ),
    )
}


# -- processes


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Process:
    """Something that was started here and listens on a port: up when it has answered."""

    def __init__(self, command: Command, port: int, alive: str, log: Path, within_s: float = 120.0) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._log = log
        environment = {"PATH": os.environ["PATH"], "HOME": str(log.parent), "LANG": "C.UTF-8", **command.environment}
        with log.open("wb") as output:
            began = time.perf_counter()
            try:
                self._process = subprocess.Popen(
                    command.arguments,
                    cwd=command.folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # so that its children can be stopped with it
                )
            except OSError as error:
                raise Unavailable(str(error)) from None
        try:
            while not answers(port, alive):
                if self._process.poll() is not None:
                    raise Unavailable(f"ended by itself: {self._last_words()}")
                if time.perf_counter() - began > within_s:
                    raise Unavailable(f"does not answer within {within_s:.0f} s: {self._last_words()}")
                time.sleep(0.01)  # another process is watched, which announces nothing
        except BaseException:
            self.stop()
            raise
        self.started_in_s = time.perf_counter() - began
        """From exec to the first answer."""

    def post(self, path: str, body: bytes) -> None:
        host = self.url.removeprefix("http://")
        with contextlib.closing(http.client.HTTPConnection(host, timeout=5)) as connection:
            connection.request("POST", path, body)
            connection.getresponse().read()

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(15)
        with contextlib.suppress(ProcessLookupError):  # whoever of its group is left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)

    def cpu_s(self) -> float:
        """CPU time that it and its children have used so far."""
        ticks = 0
        for pid in self._family():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / _TICKS_PER_S

    def pss_mb(self) -> float:
        """Memory of it and its children, each shared page counted once."""
        kilobytes = 0
        for pid in self._family():
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                kilobytes += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return kilobytes / 1024

    def _family(self) -> set[int]:
        found: set[int] = set()
        todo = [self._process.pid]
        while todo:
            pid = todo.pop()
            found.add(pid)
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    todo += map(int, (task / "children").read_text().split())
        return found

    def _last_words(self) -> str:
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][:300] if lines else "it said nothing"

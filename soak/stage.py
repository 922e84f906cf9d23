"""What the soak plays with: a real gateway, the simulators it has connections to, and a look at its processes.

Everything listens on loopback, lives in a folder of its own and is stopped by its pid.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import requests

from soak.books import Counts, Sample
from soak.ledger import Row, rows_of

ROOT = Path(__file__).resolve().parents[1]
ADMIN_KEY, CLIENT_KEY = "admin-key-of-the-soak", "client-key-of-the-soak"
ATTACKERS, INNOCENTS = "attackers", "innocents"
"""Connections, and the prefixes of models that lead there and nowhere else."""
GRACEFUL_TIMEOUT_S = 25
IDLE_TIMEOUT_S = 5
REQUEST_DEADLINE_S = 45
_TICK_S = 0.05


class Unfit(Exception):
    """A process does not start or answer: there is nothing to soak."""


def wait_for(claim: Callable[[], Any], within_s: float) -> bool:
    """Whether `claim` came true. Other processes are watched, which announce nothing."""
    deadline = time.monotonic() + within_s
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(_TICK_S)  # see above
    return True


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def listen(
    module: str, arguments: Iterable[str], hear: Callable[[dict[str, Any]], None], is_over: asyncio.Event
) -> None:
    """To what a process of its own tells, until it ends by itself or because it is over. Raises Unfit if it fails."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin = process.stdin

    async def stop() -> None:
        await is_over.wait()
        stdin.close()

    stopping = asyncio.create_task(stop())
    try:
        async for line in process.stdout:
            hear(orjson.loads(line))
        if code := await process.wait():
            raise Unfit(f"{module} ended with {code}")
    finally:
        stopping.cancel()
        stdin.close()
        if process.returncode is None:
            process.kill()
            await process.wait()


def free_port() -> int:
    """Below those that the kernel gives to clients: of the latter one might take it while a simulator is down."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):  # taken
            probe.bind(("127.0.0.1", port))
            return port


class Simulator:
    """At a port of its own, where it can be killed and started again."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[str] | None = None

    @property
    def is_up(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        command = [sys.executable, "-m", "app.cli", "simulator", "--port", str(self.port)]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True, env=_environment("")
        )
        assert process.stdout is not None
        if "http" not in process.stdout.readline():
            process.kill()
            raise Unfit(f"{self.name} does not start")
        self._process = process  # not before it is up: it would be killed while it starts

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} is down"
        return self._process.pid

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def fault(self, key: str, fault: dict[str, Any] | None) -> None:
        """Orders it, or lifts it; a simulator that is down has none."""
        with contextlib.suppress(requests.ConnectionError):
            order = {"key": key, "fault": fault}
            requests.post(f"{self.url}/_sim/faults", json=order, timeout=10).raise_for_status()

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = requests.get(f"{self.url}/_sim/stats", timeout=10).json()
        del stats["last_aborts"]
        return stats


def _environment(home: str) -> dict[str, str]:
    return {"PATH": os.defpath, "HOME": home}


@dataclass
class Connection:
    """One of the gateway's, and how it is configured."""

    name: str
    simulator: Simulator
    config: dict[str, Any] = field(default_factory=dict)
    rotations: int = 0
    is_configured: bool = True

    @property
    def key(self) -> str:
        """What stands behind the dot makes no other account of it."""
        return f"sk-ant-{self.name}.{self.rotations}"


def guests(simulators: Iterable[Simulator]) -> list[Connection]:
    """For attackers and innocents, and for models with their prefix alone, each at a simulator of its own: what
    attackers send keeps a simulator busy, too."""
    named = zip((ATTACKERS, INNOCENTS), simulators, strict=False)
    return [Connection(name, simulator, {"name": name, "prefix_id": name}) for name, simulator in named]


class Gateway:
    """`dragoman run`, which becomes gunicorn."""

    def __init__(self, folder: Path, workers: int, **variables: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.workers = workers
        self._log = folder / "gateway.log"
        environment = {
            **_environment(str(folder)),
            "PORT": self.url.rpartition(":")[2],
            "INSTANCE_PATH": str(folder / "instance"),
            "WEB_CONCURRENCY": str(workers),
            "ADMIN_API_KEYS": ADMIN_KEY,
            "GATEWAY_API_KEYS": CLIENT_KEY,
            "ADMIN_USERNAME": "soak",
            "ADMIN_PASSWORD": "password-of-the-soak",
            "ENABLE_ANTHROPIC_API": "true",
            "GRACEFUL_TIMEOUT": str(GRACEFUL_TIMEOUT_S),
            "IDLE_TIMEOUT_S": str(IDLE_TIMEOUT_S),
            "REQUEST_DEADLINE_S": str(REQUEST_DEADLINE_S),
            **variables,
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "run"],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._killed: set[int] = set()
        if not wait_for(self._answers, 30):
            self.stop()
            raise Unfit(f"the gateway does not start:\n{self._log.read_text(errors='replace')}")

    def _answers(self) -> bool:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(self.url + "/v1", timeout=10).status_code == 200
        return self._process.poll() is not None

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> bool:
        """Whether it went by itself."""
        if self.is_running:
            self._process.terminate()
        try:
            return self._process.wait(GRACEFUL_TIMEOUT_S + 5) == 0
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait(10)
            return False

    def reload(self) -> None:
        self._process.send_signal(signal.SIGHUP)

    def kill(self, worker: int) -> None:
        self._killed.add(worker)
        os.kill(worker, signal.SIGKILL)

    def worker_pids(self) -> list[int]:
        return sorted(map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()))

    def most_memory_mb(self) -> float:
        """That one of its workers has held at any moment of its life."""
        told = [Path(f"/proc/{pid}/status").read_text() for pid in self.worker_pids()]
        return max(int(text.partition("VmHWM:")[2].split()[0]) / 1024 for text in told)

    def ready(self) -> dict[str, Any]:
        answer: dict[str, Any] = self._call("GET", "/readyz").json()
        return answer

    def counts(self, apart: Collection[str] = ()) -> Counts:
        """Without the answers of connections whose ids are in `apart`."""
        answer = requests.get(self.url + "/metrics", headers={"connection": "close"}, timeout=30)
        answer.raise_for_status()
        return Counts.of(answer.text, apart)

    def booked(self, apart: Collection[str] = ()) -> list[Row]:
        """What its ledger has of the clients' requests."""
        answer = self._call("GET", "/usage/requests.csv?from=2026-01-01T00:00:00Z")
        answer.raise_for_status()
        return list(rows_of(answer.text, apart))

    def configure(self, connections: list[Connection]) -> int:
        """The generation from which on these are its connections. Raises Unfit where it refuses them."""
        answer = self._call(
            "POST",
            "/config/update",
            {
                "ANTHROPIC_API_KEYS": [each.key for each in connections],
                "ANTHROPIC_API_BASE_URLS": [each.simulator.url for each in connections]
                or ["https://api.anthropic.com"],
                "ANTHROPIC_API_CONFIGS": {str(index): each.config for index, each in enumerate(connections)},
            },
        )
        if answer.status_code != 200:
            raise Unfit(f"a change of the configuration was answered {answer.status_code}: {answer.text[:300]}")
        return int(answer.json()["generation"])

    def follows(self, generation: int) -> bool:
        """Whether all of its workers are at that generation."""
        workers = self.ready().get("workers", ())
        return len(workers) == self.workers and all(worker["generation"] == generation for worker in workers)

    def errors(self) -> list[str]:
        """What it has logged as an error, other than about the workers that the soak itself killed."""
        lines = self._log.read_text(errors="replace").splitlines()
        known = [f"(pid:{pid}) was sent SIGKILL" for pid in self._killed]
        return [
            line
            for line in lines
            if ("[ERROR]" in line or "[CRITICAL]" in line) and not any(words in line for words in known)
        ]

    def _call(self, method: str, path: str, json: Any = None) -> requests.Response:
        headers = {"authorization": f"Bearer {ADMIN_KEY}", "connection": "close"}
        killed = len(self._killed)
        try:
            return requests.request(method, self.url + path, json=json, headers=headers, timeout=30)
        except requests.ConnectionError:
            if len(self._killed) == killed:
                raise
        # Its worker was killed meanwhile.
        return requests.request(method, self.url + path, json=json, headers=headers, timeout=30)

    # -------------------------------------------------------------------------------------------------- its processes

    def samples(self, upstream_ports: set[int]) -> list[Sample]:
        """Of each worker, then of the master."""
        return self._samples(upstream_ports, self._held())

    def _held(self) -> dict[int, dict[str, Any]]:
        """By worker, what it alone knows of itself: all are asked until each of them has happened to answer."""
        found: dict[int, dict[str, Any]] = {}

        def all_told() -> bool:
            worker = self.ready().get("worker")
            if worker is not None:
                found[worker["pid"]] = {name: worker.get(name) for name in ("greenlets", "memory_blocks")}
            return found.keys() >= set(self.worker_pids())

        wait_for(all_told, 5)
        return found

    def _samples(self, upstream_ports: set[int], held: Mapping[int, dict[str, Any]]) -> list[Sample]:
        port = int(self.url.rpartition(":")[2])
        found = []
        for pid in [*self.worker_pids(), self.pid]:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ends just now
                found.append(replace(sample(pid, port, upstream_ports), **held.get(pid, {})))
        return found

    def at_rest(self, upstream_ports: set[int], within_s: float) -> list[Sample]:
        """The same, as soon as all workers are there and none has a connection to anyone; or as it is in the end."""
        found: list[Sample] = []
        held: dict[int, dict[str, Any]] = {}

        def rests() -> bool:
            found[:] = self._samples(upstream_ports, held)
            workers = found[:-1]
            return len(workers) == self.workers and not any(each.clients or each.upstream for each in workers)

        wait_for(rests, within_s)
        held.update(self._held())
        wait_for(rests, within_s)  # that was a client, too
        return found


def sample(pid: int, port: int, upstream_ports: set[int]) -> Sample:
    """A process at this moment. Raises FileNotFoundError when it has ended."""
    process = Path(f"/proc/{pid}")
    inodes = set()
    fds = 0
    for fd in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(fd)
            fds += "/dragoman.db" not in target
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    clients = upstream = 0
    for line in (process / "net" / "tcp").read_text().splitlines()[1:]:
        row = line.split()
        if row[9] not in inodes or row[3] == "0A":  # one that listens
            continue
        clients += _port(row[1]) == port
        upstream += _port(row[2]) in upstream_ports
    sizes = {
        name: int(told.split()[0]) / 1024
        for name, _, told in (line.partition(":") for line in (process / "smaps_rollup").read_text().splitlines()[1:])
    }
    started_ticks = int((process / "stat").read_text().rpartition(")")[2].split()[19])
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    return Sample(
        at=time.monotonic(),
        pid=pid,
        age_s=now - started_ticks / os.sysconf("SC_CLK_TCK"),
        fds=fds,
        clients=clients,
        upstream=upstream,
        threads=len(list((process / "task").iterdir())),
        rss_mb=sizes["Rss"],
        pss_mb=sizes["Pss"],
        anonymous_mb=sizes["Anonymous"],
    )


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


# ------------------------------------------------------------------------------------------------------------ troubles


def random_fault(chance: random.Random) -> tuple[dict[str, Any], bool]:
    """A fault for a key, and whether it breaks streams that have begun. None leaves anybody waiting for long."""
    fault: dict[str, Any] = chance.choice(
        (
            {"status": 429, "retry_after": chance.randrange(1, 4)},
            {"status": 529},
            {"status": 500},
            {"status": 503},
            {"status": 401},
            {"reset": True},
            {"cut_after": chance.randrange(0, 40)},
            {"delay_s": chance.uniform(0.2, 1.0)},
        )
    )
    return fault, "cut_after" in fault


def change(chance: random.Random, connections: list[Connection]) -> str:
    """Changes how the connections are configured; what was changed. The first always stays."""
    which = chance.choice(connections)
    match chance.choice(("name", "weight", "priority", "rotation", "number")):
        case "name":
            which.config["name"] = f"{which.name} {chance.randrange(1000)}"
            return "a connection renamed"
        case "weight":
            which.config["weight"] = chance.choice((0.5, 1, 3, 10))
            return "a weight changed"
        case "priority":
            which.config["priority"] = chance.choice((0, 0, 0, 1))
            return "a priority changed"
        case "rotation":
            which.rotations += 1
            return "a key rotated"
        case _:
            last = connections[-1]
            last.is_configured = not last.is_configured
            return "a connection added" if last.is_configured else "a connection removed"

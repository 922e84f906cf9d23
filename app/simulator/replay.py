"""Recorded exchanges, answered again byte for byte."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from app.simulator.refusal import Refusal

HEADERS_OF_INTEREST = ("content-type", "request-id", "retry-after", "x-should-retry")
PREFIXES_OF_INTEREST = ("anthropic-",)
MODEL_PREFIX = "sim-replay:"


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded answer; `body` is what went over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def is_stream(self) -> bool:
        return self.headers["content-type"].startswith("text/event-stream")


def load(path: Path) -> Recording:
    """The answer in a recording file."""
    response: dict[str, Any] = orjson.loads(path.read_bytes())["response"]
    headers = {
        name.lower(): value
        for name, value in response["headers"].items()
        if name.lower() in HEADERS_OF_INTEREST or name.lower().startswith(PREFIXES_OF_INTEREST)
    }
    if "sse" in response:
        return Recording(
            response["status"],
            {"content-type": "text/event-stream; charset=utf-8"} | headers,
            response["sse"].encode(),
        )
    body = response["body"]
    data = body.encode() if isinstance(body, str) else orjson.dumps(body)
    return Recording(response["status"], {"content-type": "application/json"} | headers, data)


class Replay:
    """Recordings by file name, from one file or a directory; read when they are asked for."""

    def __init__(self, path: Path | None) -> None:
        files = [] if path is None else sorted(path.glob("*.json")) if path.is_dir() else [path]
        self.files = {file.name: file for file in files}

    def name_for(self, headers: dict[str, str], model: Any) -> str | None:
        """Which recording a request asks for, if any."""
        if name := headers.get("x-sim-recording"):
            return name
        return model.removeprefix(MODEL_PREFIX) if isinstance(model, str) and model.startswith(MODEL_PREFIX) else None

    def get(self, name: str) -> Recording:
        """The recording, named with or without `.json`. Raises a 404 Refusal."""
        if found := self.files.get(name) or self.files.get(f"{name}.json"):
            return load(found)
        raise Refusal(f"recording: {name}", 404)

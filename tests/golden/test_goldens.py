"""Golden cases: a folder each, of what goes in and what must come out. A new case is a folder, not code.

request/<case>/client.json     {"why", "model"?, "options"?, "request"}: what the client asks; model and messages
                               have defaults
request/<case>/upstream.json   {"body", "headers", "warnings"}: what goes to Anthropic, with "refused_upstream" where
                               its API will not take that; or {"refused": {"param", "code", "status"}}
answer/<case>/upstream.sse     the events of Claude's answer
answer/<case>/request.json     the client's request, where the answer depends on it (as client.json above)
answer/<case>/client.sse       the chunks
answer/<case>/client.json      the same answer as one chat completion
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.errors import GatewayError
from app.schemas.chat import chat_request
from app.simulator.models import catalogue
from app.simulator.refusal import Refusal
from app.simulator.rules import Leniency
from app.simulator.validator import validate
from app.translate.accumulate import MessageAccumulator
from app.translate.chat.request import Options, to_message_params
from app.translate.chat.response import to_chat_completion
from app.translate.chat.stream import StreamTranslator
from app.translate.facts import facts_for
from app.translate.translation import ReplyContext, Translation
from app.upstream.names import OVERLAY

HERE = Path(__file__).parent
REQUESTS = sorted(path.name for path in (HERE / "request").iterdir())
ANSWERS = sorted(path.name for path in (HERE / "answer").iterdir())
MODEL = "claude-opus-4-8"
"""It thinks only when asked to, so that a case shows nothing but what it is about."""
MESSAGES = [{"role": "user", "content": "hi"}]
CREATED = 1_700_000_000


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def translated(case: dict[str, Any]) -> Translation:
    """Raises a GatewayError."""
    model = case.get("model", MODEL)
    request = chat_request({"model": model, "messages": MESSAGES, **case["request"]})
    return to_message_params(request, facts_for(model, OVERLAY), Options(**case.get("options", {})))


def translation_of(case: dict[str, Any]) -> dict[str, Any]:
    try:
        made = translated(case)
    except GatewayError as error:
        return {"refused": {"param": error.param, "code": error.code, "status": error.status}}
    return {"body": made.body, "headers": dict(made.headers), "warnings": list(made.reply.warnings)}


def refusal_of(made: dict[str, Any]) -> str | None:
    """What the API would say to the request, if it refused it. Signatures are not the simulator's own."""
    headers = {name.lower(): value for name, value in made["headers"].items()}
    model = catalogue().find(made["body"]["model"])
    if model is None:
        return None
    try:
        # As it comes over the wire: orjson makes floats of the largest numbers.
        body = orjson.loads(json.dumps(made["body"]))
        validate(body, headers, model, leniency=Leniency(foreign_signatures=True))
    except Refusal as refusal:
        return refusal.message
    return None


@pytest.mark.parametrize("case", REQUESTS)
def test_a_request_goes_upstream_as_its_golden_case_says(case: str, updates_goldens: bool) -> None:
    folder = HERE / "request" / case
    asked = read(folder / "client.json")
    made = json.loads(json.dumps(translation_of(asked)))
    refused = refusal_of(made) if "body" in made else None
    if updates_goldens:
        write(folder / "upstream.json", made if refused is None else {**made, "refused_upstream": refused})
    expected = read(folder / "upstream.json")
    assert refused == expected.pop("refused_upstream", None), asked["why"]
    assert made == expected, asked["why"]


@pytest.mark.parametrize("case", REQUESTS)
def test_the_same_request_gives_the_same_bytes(case: str) -> None:
    asked = read(HERE / "request" / case / "client.json")
    assert json.dumps(translation_of(asked)) == json.dumps(translation_of(asked))


def events_of(path: Path) -> list[dict[str, Any]]:
    frames = path.read_text(encoding="utf-8").split("\n\n")
    lines = [line for frame in frames for line in frame.split("\n") if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def context_of(folder: Path) -> ReplyContext:
    request = folder / "request.json"
    return translated(read(request)).reply if request.exists() else ReplyContext()


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_streams_as_its_golden_case_says(case: str, updates_goldens: bool) -> None:
    folder = HERE / "answer" / case
    translator = StreamTranslator(context_of(folder), created=CREATED)
    chunks = [chunk for event in events_of(folder / "upstream.sse") for chunk in translator.feed(event)]
    assert translator.is_complete
    if updates_goldens:
        lines = [json.dumps(chunk, ensure_ascii=False, separators=(",", ":")) for chunk in chunks]
        (folder / "client.sse").write_text("".join(f"data: {line}\n\n" for line in lines), encoding="utf-8")
    assert json.loads(json.dumps(chunks)) == events_of(folder / "client.sse")


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_is_given_whole_as_its_golden_case_says(case: str, updates_goldens: bool) -> None:
    folder = HERE / "answer" / case
    accumulator = MessageAccumulator()
    for event in events_of(folder / "upstream.sse"):
        accumulator.feed(event)
    assert accumulator.is_complete
    completion = to_chat_completion([accumulator.message], context_of(folder), created=CREATED)
    if updates_goldens:
        write(folder / "client.json", completion)
    assert json.loads(json.dumps(completion)) == read(folder / "client.json")

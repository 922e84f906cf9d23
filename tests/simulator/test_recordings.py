"""The validator against real traffic: what the API took is taken, what it refused is refused."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

import app.simulator
from app.simulator.models import catalogue
from app.simulator.refusal import Refusal
from app.simulator.rules import Leniency
from app.simulator.validator import validate, validate_count_tokens

RECORDINGS = Path(app.simulator.__file__).parents[3] / "shared" / "recordings"
FILES = sorted(RECORDINGS.glob("*.json"))
REFUSED_FOR_OTHER_REASONS = {
    "rubyllm.chat_error_handling_with_anthropic_claude_haiku_4_5_raises_appropriate_auth_error.0": "401: a wrong key",
    "rubyllm.chat_real_error_scenarios_anthropic_claude_haiku_4_5_handles_context_length_exceeded_errors.0": (
        "400 for a prompt of 3 million tokens, which the recording shows as <MASSIVE_TEXT>"
    ),
    "sdkpy.TestAsyncParse_d743d628_16aa_4c9f_ae78_51deb578f746.json.0": "429: the account's rate limit",
    "sdkpy.TestAsyncParse_d743d628_16aa_4c9f_ae78_51deb578f746.json.1": "429: the account's rate limit",
}
"""Requests that are valid in themselves, and why they were refused all the same."""

pytestmark = pytest.mark.skipif(not FILES, reason=f"no recordings in {RECORDINGS}")


def problem_with(recording):
    """The refusal of a recorded request, or None.

    Old and retired models are taken without the rules that differ from model to model. Where the recorder dropped the
    anthropic- headers, every beta counts as sent. Real signatures cannot be checked.
    """
    request = recording["request"]
    headers = {name.lower(): value for name, value in request["headers"].items()}
    leniency = Leniency(betas="anthropic-version" not in headers, foreign_signatures=True)
    model = catalogue().find(request["body"]["model"], known_only=False)
    if model is None:
        return Refusal(f"model: {request['body']['model']}", 404)
    check = validate_count_tokens if "count_tokens" in request["path"] else validate
    try:
        check(request["body"], headers, model, leniency=leniency)
    except Refusal as refusal:
        return refusal
    return None


def is_usable(recording):
    """Whether it is real traffic of ours: not written by hand, not an answer without its request."""
    return recording["provenance"] == "recorded" and recording["request"]["path"].startswith("/v1/messages")


def test_recorded_requests_are_taken_and_refused_as_they_were(capsys):
    counts: Counter[str] = Counter()
    wrong = []
    for file in FILES:
        recording = json.loads(file.read_text())
        name, status = recording["name"], recording["response"]["status"]
        if not is_usable(recording):
            counts["left out: not recorded, or another path"] += 1
            continue
        problem = problem_with(recording)
        if name in REFUSED_FOR_OTHER_REASONS:
            counts["excepted by name"] += 1
            assert problem is None
        elif (problem is None) != (status == 200) or (problem and problem.status != status):
            wrong.append(f"{name}: {status} was answered, here {problem}")
        else:
            counts["taken" if problem is None else "refused"] += 1
    with capsys.disabled():
        sys.stdout.write(f"\nrecordings: {dict(counts)}\n")
    assert not wrong, "\n".join(wrong)
    assert counts["taken"] > 400


def test_refusals_have_the_words_of_the_real_api():
    for file in FILES:
        recording = json.loads(file.read_text())
        status = recording["response"]["status"]
        if is_usable(recording) and status in (400, 404) and recording["name"] not in REFUSED_FOR_OTHER_REASONS:
            assert problem_with(recording).message == recording["response"]["body"]["error"]["message"]


@pytest.fixture(scope="module")
def replaying(start_simulator):
    yield from start_simulator("--replay", str(RECORDINGS))


def test_a_recorded_stream_is_replayed_byte_for_byte(replaying):
    with replaying.sdk() as client:
        for file in [file for file in FILES if "sse" in json.loads(file.read_text())["response"]][:20]:
            recording = json.loads(file.read_text())["response"]
            with client.messages.with_streaming_response.create(
                model=f"sim-replay:{file.name}", max_tokens=9, messages=[], stream=True
            ) as response:
                assert b"".join(response.iter_bytes()) == recording["sse"].encode()
                assert response.headers.get("request-id") == recording["headers"].get("request-id")


def test_a_recorded_error_is_replayed_with_its_status(replaying):
    file = next(file for file in FILES if json.loads(file.read_text())["response"]["status"] == 429)
    status, body = replaying.messages({}, x_sim_recording=file.name)
    assert (status, body["error"]["type"]) == (429, "rate_limit_error")
    assert replaying.messages({}, x_sim_recording="nothing")[0] == 404

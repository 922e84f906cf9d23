"""Claude Code itself, headless."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.claude_code import MODEL, ClaudeCode, closed_proxy
from tests.clients.conftest import MessagesDoor, replayed_thinking, without_breakpoints

HELLO = "You said: “Say hello.” I am a simulator"
WRITE = "sim-agent: make `greeting.txt` with `Hello, world.`"


@pytest.fixture
def claude(messages_door: MessagesDoor, tmp_path: Path) -> Iterator[ClaudeCode]:
    """One that talks to the door, and to nothing else."""
    with closed_proxy() as (proxy, asked):
        yield ClaudeCode(messages_door.url, messages_door.key, tmp_path, proxy, asked)
    assert asked == []


def statuses(door: MessagesDoor) -> list[int]:
    return [entry["status"] for entry in door.messages()]


def texts(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else " ".join(block.get("text", "") for block in content)


def test_a_question_is_answered_by_one_request(claude: ClaudeCode, messages_door: MessagesDoor) -> None:
    said = claude.run("Say hello.")
    assert said.text.startswith(HELLO)
    assert (said.is_error, said.turns) == (False, 1)
    (entry,) = messages_door.journal()
    assert (entry["path"], entry["query"], entry["status"]) == ("/v1/messages", {"beta": "true"}, 200)
    assert entry["headers"]["user-agent"].startswith("claude-cli/")
    assert (entry["body"]["model"], entry["body"]["stream"]) == (MODEL, True)


def test_the_small_model_may_be_the_one_that_answers(claude: ClaudeCode, messages_door: MessagesDoor) -> None:
    assert claude.run("Say hello.", "--model", "haiku").text.startswith(HELLO)
    (entry,) = messages_door.messages()
    assert entry["body"]["model"] == "claude-haiku-5-5"


def test_an_api_key_does_as_well_as_a_token(claude: ClaudeCode) -> None:
    said = claude.run("Say hello.", without=("ANTHROPIC_AUTH_TOKEN",), ANTHROPIC_API_KEY=claude.key)
    assert said.text.startswith(HELLO)


@pytest.mark.parametrize("model", [MODEL, "sim-agent"])
def test_the_write_tool_writes_a_file(claude: ClaudeCode, messages_door: MessagesDoor, model: str) -> None:
    said = claude.run(WRITE, "--permission-mode", "acceptEdits", ANTHROPIC_MODEL=model)
    assert (claude.work / "greeting.txt").read_text() == "Hello, world."
    assert "File created successfully" in said.text
    assert (said.is_error, said.turns, statuses(messages_door)) == (False, 2, [200, 200])


def test_the_bash_tool_runs_a_command(claude: ClaudeCode, messages_door: MessagesDoor) -> None:
    said = claude.run("sim-agent: use the Bash tool for `greeting.txt` and `It's here.`", "--allowedTools", "Bash")
    assert (claude.work / "greeting.txt").read_text() == "It's here."
    assert (said.is_error, said.turns, statuses(messages_door)) == (False, 2, [200, 200])


def test_a_tool_that_is_not_allowed_is_not_run(claude: ClaudeCode, messages_door: MessagesDoor) -> None:
    said = claude.run(WRITE)
    assert not (claude.work / "greeting.txt").exists()
    assert "Write failed with" in said.text
    assert statuses(messages_door) == [200, 200]


def test_signed_thinking_comes_back_in_the_tool_loop(claude: ClaudeCode, messages_door: MessagesDoor) -> None:
    claude.run(WRITE, "--permission-mode", "acceptEdits")
    first, second = (entry["body"] for entry in messages_door.messages())
    assert len(replayed_thinking(second)) == 1
    assert [block["type"] for block in second["messages"][2]["content"]] == ["thinking", "text", "tool_use"]
    assert without_breakpoints(second["system"]) == without_breakpoints(first["system"])
    assert second["tools"] == first["tools"]


@pytest.mark.parametrize("how", ["--continue", "--resume"])
def test_a_session_is_continued_with_all_its_thinking(
    claude: ClaudeCode, messages_door: MessagesDoor, how: str
) -> None:
    session = claude.run(WRITE, "--permission-mode", "acceptEdits").session
    options = ("--continue",) if how == "--continue" else ("--resume", session)
    said = claude.run("Say hello.", *options)
    assert said.text.startswith(HELLO)
    assert said.session == session
    *_, last = messages_door.messages()
    assert len(replayed_thinking(last["body"])) == 2
    assert statuses(messages_door) == [200] * 3


def test_overload_is_waited_out(claude: ClaudeCode, messages_door: MessagesDoor) -> None:
    messages_door.fail_next(2, status=529)
    assert claude.run("Say hello.").text.startswith(HELLO)
    assert statuses(messages_door) == [529, 529, 200]
    first, second, third = (entry["body"] for entry in messages_door.messages())
    assert first == second == third


def test_an_answer_that_breaks_off_is_asked_for_again(claude: ClaudeCode, messages_door: MessagesDoor) -> None:
    messages_door.fail_next(1, cut_after=5)
    assert claude.run("Say hello.").text.startswith(HELLO)
    assert [entry["ended"] for entry in messages_door.messages()] == ["error", "finished"]


def test_a_prompt_that_is_too_long_is_made_shorter_and_asked_again(
    claude: ClaudeCode, messages_door: MessagesDoor
) -> None:
    claude.run(WRITE, "--permission-mode", "acceptEdits")
    messages_door.forget()
    messages_door.fail_next(1, status=400, message="prompt is too long: 1234567 tokens > 1000000 maximum")
    said = claude.run("Say hello.", "--continue")
    assert said.text.startswith(HELLO)
    refused, summary, *_, last = messages_door.messages()
    assert (refused["status"], summary["status"], last["status"]) == (400, 200, 200)
    assert "Respond with TEXT ONLY" in texts(summary["body"]["messages"][-1])
    assert texts(last["body"]["messages"][0]).startswith("This session is being continued")


def test_thinking_that_no_longer_fits_is_left_out_once_it_is_refused(
    claude: ClaudeCode, messages_door: MessagesDoor
) -> None:
    claude.run(WRITE, "--permission-mode", "acceptEdits")
    messages_door.forget()
    refusal = "messages.2.content.0: `thinking` block is bound to a different conversation"
    messages_door.fail_next(1, status=400, message=refusal)
    assert claude.run("Say hello.", "--continue").text.startswith(HELLO)
    refused, last = messages_door.messages()
    assert len(replayed_thinking(refused["body"])) == 2
    assert replayed_thinking(last["body"]) == []


def test_a_refusal_is_shown_when_leaving_betas_out_did_not_help(
    claude: ClaudeCode, messages_door: MessagesDoor
) -> None:
    messages_door.fail_next(20, status=400, message="this is what the refusal says")
    said = claude.run("Say hello.")
    assert (said.is_error, said.status) == (True, 400)
    assert said.text == "API Error: 400 this is what the refusal says"
    betas = [entry["headers"]["anthropic-beta"] for entry in messages_door.messages()]
    assert 1 < len(betas) < 10
    assert len(set(betas)) > 1


def test_a_wrong_key_is_an_error_at_once(claude: ClaudeCode) -> None:
    claude.key = "not-a-key"
    said = claude.run("Say hello.")
    assert (said.is_error, said.status) == (True, 401)


def test_the_context_is_counted(claude: ClaudeCode, messages_door: MessagesDoor) -> None:
    said = claude.run("/context")
    assert "Context Usage" in said.text
    counts = messages_door.journal()
    assert {(entry["path"], entry["status"]) for entry in counts} == {("/v1/messages/count_tokens", 200)}
    assert len(counts) > 10


def test_models_are_asked_for_when_that_is_switched_on(claude: ClaudeCode) -> None:
    claude.run(
        "Say hello.",
        without=("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",),
        CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY="1",
    )
    assert MODEL in (claude.folder / "config" / "cache" / "gateway-models.json").read_text()
    assert set(claude.asked_elsewhere) <= {"CONNECT api.anthropic.com:443"}
    claude.asked_elsewhere.clear()

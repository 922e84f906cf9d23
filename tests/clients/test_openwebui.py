"""Open WebUI, played by `openwebui`: the client that most users bring."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import requests

from tests.clients.conftest import Upstream, assistant_turns, replayed_thinking
from tests.clients.openwebui import BUILT_IN, OpenWebUI, ShownError
from tests.conftest import CLIENT_KEY, Gateway, wait_for

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 20).decode()
TOOL_QUESTION = "What is the timestamp?"
TOOL_THOUGHT = f"The user says: {TOOL_QUESTION} I should answer that briefly and to the point."


def user(running: Gateway, model: str, **options: Any) -> OpenWebUI:
    """Somebody whose admin typed the base URL with a slash at its end."""
    return OpenWebUI(f"{running.url}/v1/", CLIENT_KEY, model, **options)


# ------------------------------------------------------------------------------------------------------- connection


def test_verifying_a_connection_asks_for_the_models_with_the_key(running: Gateway) -> None:
    models = user(running, "").models()
    assert models["claude-opus-5-5"]["name"] == "Claude Opus 5.5"
    for key, said in (("sk-dgm-nobody", "key"), ("", "key")):
        with pytest.raises(ShownError, match=said) as refused:
            OpenWebUI(f"{running.url}/v1/", key).models()
        assert refused.value.status == 401


# ------------------------------------------------------------------------------------------------ a message is four


@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-opus-4-6"])
def test_a_message_of_the_user_is_four_answered_requests(running: Gateway, upstream: Upstream, model: str) -> None:
    turn = user(running, model).say("Hello there!")
    assert "You said: “Hello there!”" in turn.answer.content
    assert (turn.answer.finish_reason, turn.answer.is_done, turn.answer.error) == ("stop", True, None)
    assert turn.title == "💬 Hello there"
    assert len(turn.follow_ups) == 3
    assert turn.tags == ["General", "Hello"]
    bodies = upstream.bodies(4)
    (chat,) = [body for body in bodies if body.get("tools")]
    assert [tool["name"] for tool in chat["tools"]] == list(BUILT_IN)
    assert chat["max_tokens"] == 128_000
    assert sorted(body["max_tokens"] for body in bodies) == [1000, 128_000, 128_000, 128_000]


def test_the_title_is_written_while_the_chat_is_answered(running: Gateway, upstream: Upstream) -> None:
    user(running, "sim-slow-headers:delay_ms=300").say("Hello there!")
    upstream.bodies(4)
    entries = requests.get(f"{upstream.url}/_sim/requests", timeout=5).json()["requests"]
    first, second, follow_ups, tags = [entry for entry in entries if entry["path"] == "/v1/messages"]
    assert {bool(first["body"].get("tools")), bool(second["body"].get("tools"))} == {True, False}
    assert second["time"] < first["time"] + first["seconds"]
    assert follow_ups["time"] + follow_ups["seconds"] < tags["time"]


def test_usage_is_counted_once(running: Gateway) -> None:
    answer = user(running, "sim-text").ask("Hello")
    assert answer.usage_count == 1
    assert answer.usage["completion_tokens"] == 60
    assert answer.usage["total_tokens"] == answer.usage["prompt_tokens"] + 60


def test_usage_of_an_answer_that_claude_paused_is_counted_once(running: Gateway) -> None:
    answer = user(running, "sim-pause", parameters={"web_search_options": {}}).ask("Hello")
    assert answer.content == "Let me look that up. And this is the rest of it."
    assert (answer.finish_reason, answer.usage_count) == ("stop", 1)


# ------------------------------------------------------------------------------------------ what admins set for a model

PARAMETERS: dict[str, Any] = {
    "temperature": 0.7,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.05,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "repeat_penalty": 1.1,
    "repeat_last_n": 64,
    "tfs_z": 1,
    "mirostat": 1,
    "mirostat_eta": 0.1,
    "mirostat_tau": 5,
    "num_ctx": 8192,
    "num_keep": 24,
    "num_batch": 512,
    "num_gpu": 1,
    "num_thread": 4,
    "use_mmap": True,
    "use_mlock": False,
    "keep_alive": "5m",
    "think": True,
    "format": "json",
    "seed": 42,
    "stop": ["\n\nHuman:"],
    "logit_bias": {"50256": -100},
    "reasoning_effort": "high",
    "max_tokens": 4000,
}


@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-opus-4-6", "claude-opus-4-5"])
def test_whatever_an_admin_sets_for_a_model_is_no_error(running: Gateway, upstream: Upstream, model: str) -> None:
    asking = user(running, model, parameters=PARAMETERS)
    assert "You said: “Hello”" in asking.ask("Hello").content
    warnings = asking.last_headers["x-gateway-warnings"].split(",")
    assert {"unknown_field", "seed_ignored"} <= set(warnings)
    (body,) = upstream.bodies(1)
    assert not set(body) & {"min_p", "repeat_penalty", "mirostat", "num_ctx", "keep_alive", "think", "format"}
    assert body["max_tokens"] == 4000


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, value in PARAMETERS.items() if name not in ("stop", "max_tokens")]
)
def test_a_single_parameter_is_no_error(running: Gateway, name: str, value: Any) -> None:
    assert user(running, "sim-text:tokens=2", parameters={name: value}).ask("Hello").content == "w0 w1"


@pytest.mark.parametrize(
    "thinking", [{"type": "adaptive"}, {"type": "enabled", "budget_tokens": 2048}, {"type": "disabled"}]
)
@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-opus-4-6"])
def test_thinking_may_be_set_in_claudes_own_words(running: Gateway, model: str, thinking: dict[str, Any]) -> None:
    answer = user(running, model, parameters={"thinking": thinking}).ask("Hello")
    assert "You said: “Hello”" in answer.content
    assert bool(answer.reasoning) == (thinking["type"] != "disabled")


# ---------------------------------------------------------------------------------------------------- tools, thinking


def looked_up(name: str, arguments: dict[str, Any]) -> str:
    return json.dumps({"tool": name, "given": arguments, "answer": "noon"})


@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-opus-4-6", "sim-parallel-tools", "sim-empty-tool"])
def test_a_built_in_tool_is_called_and_its_result_used(running: Gateway, model: str) -> None:
    turn = user(running, model, run_tool=looked_up).say(TOOL_QUESTION)
    calls, answer = turn.answers
    assert calls.finish_reason == "tool_calls"
    assert calls.tool_calls[0]["function"] == {"name": "get_current_timestamp", "arguments": "{}"}
    assert calls.usage_count == answer.usage_count == 1
    assert "get_current_timestamp answered: " in answer.content
    assert "noon" in answer.content


def test_the_reasoning_is_shown_and_its_signed_form_comes_with_it(running: Gateway) -> None:
    answer = user(running, "claude-opus-5-5").ask("Hello")
    assert answer.reasoning == "The user says: Hello I should answer that briefly and to the point."
    (detail,) = answer.reasoning_details
    assert (detail["type"], detail["format"], detail["index"]) == ("reasoning.text", "anthropic-claude-v1", 0)
    assert detail["text"] == answer.reasoning
    assert detail["signature"]


@pytest.mark.parametrize("keeps", [True, False], ids=["sent back", "from the store"])
def test_thinking_is_replayed_in_the_loop_and_in_later_turns(running: Gateway, upstream: Upstream, keeps: bool) -> None:
    asking = user(running, "claude-opus-5-5", keeps_reasoning_details=keeps)
    calls, _ = asking.say(TOOL_QUESTION).answers
    asking.say("Thank you.")
    asking.say(TOOL_QUESTION)
    chats = [body for body in upstream.bodies(5 + 4 + 5) if body.get("tools")]
    loop = chats[1]
    signed = {"type": "thinking", "thinking": TOOL_THOUGHT, "signature": calls.reasoning_details[0]["signature"]}
    for body in chats[1:]:
        assert assistant_turns(body)[0][0] == signed
        assert replayed_thinking(body)[0] == signed
    assert [block["type"] for block in assistant_turns(loop)[0]] == ["thinking", "tool_use"]
    if keeps:
        assert [len(replayed_thinking(body)) for body in chats] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("keeps", [True, False], ids=["sent back", "from the store"])
def test_thinking_between_calls_comes_back_in_its_place(running: Gateway, upstream: Upstream, keeps: bool) -> None:
    """Open WebUI does not keep where in the answer a thought stood."""
    user(running, "sim-interleaved", keeps_reasoning_details=keeps).ask("Hello")
    loop = upstream.bodies(2)[1]
    kinds = [block["type"] for block in assistant_turns(loop)[0]]
    assert kinds == ["thinking", "text", "tool_use", "thinking", "tool_use"]
    assert len(replayed_thinking(loop)) == 2


def test_what_comes_back_has_the_keys_of_open_webui_alone(running: Gateway) -> None:
    asking = user(running, "claude-opus-5-5")
    asking.ask(TOOL_QUESTION)
    (detail,) = asking.messages[1]["reasoning_details"]
    assert set(detail) == {"type", "text", "signature", "format", "index"}
    assert asking.messages[1]["content"] == ""


def test_another_model_in_the_same_chat_gets_no_thinking_of_the_first(running: Gateway, upstream: Upstream) -> None:
    asking = user(running, "claude-opus-5-5")
    asking.ask(TOOL_QUESTION)
    asking.model = "claude-opus-4-6"
    assert asking.ask("Thank you.").error is None
    assert replayed_thinking(upstream.bodies(3)[2]) == []


def test_an_edited_answer_does_not_break_the_chat(running: Gateway, upstream: Upstream) -> None:
    asking = user(running, "claude-opus-5-5")
    asking.ask("Hello")
    asking.ask(TOOL_QUESTION)
    asking.messages[1]["content"] = "The user has written this instead."
    assert "You said: “Thank you.”" in asking.ask("Thank you.").content
    assert assistant_turns(upstream.bodies(4)[3])[0][-1]["text"] == "The user has written this instead."


@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-opus-4-6"])
def test_a_thought_that_claude_does_not_know_again_does_not_break_the_chat(running: Gateway, model: str) -> None:
    asking = user(running, model, parameters={"reasoning_effort": "high"})
    asking.ask(TOOL_QUESTION)
    asking.messages[1]["reasoning_details"][0]["text"] += " Somebody added this."
    answer = asking.ask("Thank you.")
    assert "You said: “Thank you.”" in answer.content
    assert (answer.finish_reason, answer.error) == ("stop", None)


def test_a_system_prompt_that_tells_the_time_does_not_break_the_chat(running: Gateway, upstream: Upstream) -> None:
    asking = user(running, "claude-opus-5-5", system="It is five to twelve.")
    asking.ask(TOOL_QUESTION)
    asking.system = "It is noon."
    assert "You said: “Thank you.”" in asking.ask("Thank you.").content
    assert [block["text"] for block in upstream.bodies(3)[2]["system"]] == ["It is noon."]


# ------------------------------------------------------------------------------------------------- odd conversations


def test_after_a_turn_that_failed_there_are_two_user_messages_in_a_row(running: Gateway, upstream: Upstream) -> None:
    asking = user(running, "sim-error-529")
    with pytest.raises(ShownError):
        asking.ask("Is anybody there?")
    upstream.forget()
    asking.model = "claude-opus-5-5"
    assert "You said: “Hello?”" in asking.ask("Hello?").content
    (message,) = upstream.bodies(1)[0]["messages"]
    assert [block["text"] for block in message["content"]] == ["Is anybody there?", "Hello?"]


@pytest.mark.parametrize("keeps", [True, False], ids=["signed", "unsigned"])
@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-opus-4-6", "claude-opus-4-5"])
def test_an_answer_is_continued_by_every_model(running: Gateway, upstream: Upstream, model: str, keeps: bool) -> None:
    asking = user(running, model, keeps_reasoning_details=keeps)
    begun = asking.ask("Hello").content
    assert asking.go_on().content
    assert asking.messages[-1]["content"].startswith(begun)
    messages = upstream.bodies(2)[1]["messages"]
    assert messages[1]["role"] == "assistant"
    assert messages[1]["content"][-1]["text"].rstrip() == begun.rstrip()
    assert "".join(m["role"][0] for m in messages) == ("ua" if model == "claude-opus-4-5" else "uau")


def test_images_are_seen(running: Gateway) -> None:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    answer = user(running, "claude-opus-5-5").ask([{"type": "text", "text": "What is this?"}, picture])
    assert "1 image(s)" in answer.content


def test_sources_of_a_search_are_shown(running: Gateway) -> None:
    answer = user(running, "sim-web-search").ask("Look it up.")
    (source,) = answer.sources
    assert (source["url"], source["title"]) == ("https://example.com/", "Example Domain")
    cited = answer.content[source["start_index"] : source["end_index"]]
    assert cited == "this domain is for use in documentation examples"
    assert answer.tool_calls == []


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("model", "status", "said"),
    [
        ("sim-error-400", 400, "the simulator refuses this request"),
        ("sim-error-429", 429, "rate limit"),
        ("sim-error-529", 503, "verloaded"),
        ("sim-error-prompt-too-long", 400, "too long"),
        ("claude-nope", 404, "claude-nope"),
    ],
)
def test_an_error_is_shown_in_words(running: Gateway, model: str, status: int, said: str) -> None:
    with pytest.raises(ShownError, match=said) as shown:
        user(running, model).ask("Hello")
    assert shown.value.status == status


@pytest.mark.parametrize("kind", ["error-midstream-6", "cut-9", "eof-9", "garbage-9"])
def test_an_answer_that_breaks_off_keeps_its_text_and_shows_an_error(running: Gateway, kind: str) -> None:
    asking = user(running, f"paced.sim-{kind}:gap_ms=20")
    answer = asking.ask("Hello")
    assert answer.content.startswith("w0 w1")
    assert answer.error
    assert (answer.finish_reason, answer.is_done) == (None, False)
    asking.model = "claude-opus-5-5"
    assert "You said: “Go on.”" in asking.ask("Go on.").content


def test_the_stop_button_ends_the_call_upstream(running: Gateway, upstream: Upstream) -> None:
    listening = user(running, "paced.sim-text:tokens=2000,gap_ms=50").pieces("Hello")
    while not next(listening).content:
        pass
    listening.close()

    def ended() -> Any:
        entries = requests.get(f"{upstream.url}/_sim/requests", timeout=5).json()["requests"]
        return [entry["ended"] for entry in entries if entry["path"] == "/v1/messages" and entry["ended"]]

    assert wait_for(ended, what="the end of the call upstream") == ["aborted by client"]

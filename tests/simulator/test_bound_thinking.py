"""Thinking that belongs to an account, a model or a conversation: what is dropped, what is refused, what is told."""

import json

import pytest

BINDING = "thinking-binding-controls-2026-08-01"
ONE, OTHER = "sk-ant-account-one", "sk-ant-account-other"
HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
HELLO = {"role": "user", "content": "Hello"}


def ask(simulator, messages, key=ONE, model=SONNET, betas=BINDING, **more):
    body = {"model": model, "max_tokens": 2000, "messages": messages, "thinking": {"type": "adaptive"}, **more}
    status, _, data = simulator.post(body, x_api_key=key, anthropic_beta=betas)
    return status, json.loads(data)


def answered(simulator, messages, **how):
    """The conversation with one more answer and a next question."""
    status, message = ask(simulator, messages, **how)
    assert status == 200, message
    assert message["content"][0]["type"] == "thinking"
    return [*messages, {"role": "assistant", "content": message["content"]}, {"role": "user", "content": "Go on"}]


def dropped(*places, reason):
    return [{"type": "thinking_dropped", "path": f"messages.{n}.content.0", "reason": reason} for n in places]


@pytest.mark.parametrize("model", [HAIKU, SONNET])
def test_thinking_of_another_account_is_dropped_and_named(simulator, model):
    messages = answered(simulator, [HELLO], model=model)
    assert ask(simulator, messages, model=model)[1]["input_transformations"] == []
    status, message = ask(simulator, messages, model=model, key=OTHER)
    expected = dropped(1, reason="organization_binding_mismatch")
    assert (status, message["input_transformations"]) == (200, expected)


def test_keys_of_one_account_share_thinking(simulator):
    messages = answered(simulator, [HELLO])
    assert ask(simulator, messages, key=f"{ONE}.second")[1]["input_transformations"] == []


def test_a_stream_names_it_in_message_start(simulator):
    messages = answered(simulator, [HELLO])
    body = {"model": SONNET, "max_tokens": 99, "messages": messages, "stream": True}
    _, _, data = simulator.post(body, x_api_key=OTHER, anthropic_beta=BINDING)
    start = json.loads(data.split(b"data: ")[1].split(b"\n")[0])
    assert start["message"]["input_transformations"] == dropped(1, reason="organization_binding_mismatch")


def test_without_the_beta_it_vanishes_silently(simulator):
    messages = answered(simulator, [HELLO])
    status, message = ask(simulator, messages, key=OTHER, betas="")
    assert status == 200
    assert "input_transformations" not in message


def test_what_was_dropped_is_not_billed(simulator):
    messages = answered(simulator, [HELLO])
    content = messages[1]["content"][1:]
    without = [messages[0], {"role": "assistant", "content": content}, messages[2]]
    tokens = [ask(simulator, said, key=OTHER)[1]["usage"]["input_tokens"] for said in (messages, without)]
    assert tokens[0] == tokens[1] < ask(simulator, messages)[1]["usage"]["input_tokens"]


def test_a_conversation_that_changed_its_account_goes_on_there_and_may_come_back(simulator):
    moved = answered(simulator, answered(simulator, [HELLO]), key=OTHER)
    after = answered(simulator, moved, key=OTHER)
    assert ask(simulator, after, key=OTHER)[1]["input_transformations"] == dropped(
        1, reason="organization_binding_mismatch"
    )
    assert ask(simulator, after)[1]["input_transformations"] == dropped(3, 5, reason="organization_binding_mismatch")


def test_opus_takes_thinking_of_another_account(simulator):
    messages = answered(simulator, [HELLO], model=OPUS)
    assert ask(simulator, messages, key=OTHER, model=OPUS)[1]["input_transformations"] == []


def test_thinking_of_another_model_is_dropped_and_named(simulator):
    messages = answered(simulator, [HELLO], model=OPUS)
    expected = dropped(1, reason="model_binding_mismatch")
    assert ask(simulator, messages, model=SONNET)[1]["input_transformations"] == expected


def test_thinking_of_another_conversation_is_refused_or_dropped_as_wished(simulator):
    first, *rest = answered(simulator, [HELLO], model=OPUS)
    elsewhere = [{**first, "content": "Another beginning"}, *rest]
    status, message = ask(simulator, elsewhere, model=OPUS)
    assert (status, message["error"]["message"]) == (
        400,
        "messages.1.content.0: `thinking` block is bound to a different conversation",
    )
    wish = {"type": "adaptive", "block_binding": {"prefix_mismatch_behavior": "drop_block"}}
    status, message = ask(simulator, elsewhere, model=OPUS, thinking=wish)
    assert message["input_transformations"] == dropped(1, reason="prefix_binding_mismatch")


def test_a_changed_system_prompt_is_another_conversation(simulator):
    messages = answered(simulator, [HELLO], model=OPUS, system="Be brief.")
    assert ask(simulator, messages, model=OPUS, system="Be brief.")[0] == 200
    assert ask(simulator, messages, model=OPUS, system="Be long.")[0] == 400


def test_altered_thinking_is_refused_whoever_sends_it(simulator):
    messages = answered(simulator, [HELLO])
    messages[1]["content"][0]["thinking"] += "!"
    assert ask(simulator, messages, key=OTHER)[1]["error"]["message"] == (
        "messages.1.content.0: Invalid `signature` in `thinking` block"
    )

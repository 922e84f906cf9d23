"""How strict the API is with a key."""

import json
from typing import Any

import pytest

from tests.simulator.test_claude_code import BETAS, BODY
from tests.simulator.test_claude_code import HEADERS as CLAUDE_CODE

HELLO = {"model": "sim-text", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}


def refusal(simulator, body, key, path="/v1/messages", **headers):
    """Status and error."""
    status, _, data = simulator.post(body, path, **{"x_api_key": key, **headers})
    return status, json.loads(data).get("error", {})


def test_unknown_betas_are_taken_unless_ordered_otherwise(simulator):
    betas = "files-api-2025-04-14,made-up-2026-01-01, another"
    assert refusal(simulator, HELLO, "sk-ant-betas", anthropic_beta=betas)[0] == 200
    simulator.policy("sk-ant-betas", known_betas=True)
    counted = {"model": HELLO["model"], "messages": HELLO["messages"]}
    for path, body in (("/v1/messages", HELLO), ("/v1/messages/count_tokens", counted)):
        status, error = refusal(simulator, body, "sk-ant-betas", path, anthropic_beta=betas)
        assert (status, error["message"]) == (
            400,
            "Unexpected value(s) `made-up-2026-01-01`, `another` for the `anthropic-beta` header. Please consult our "
            "documentation at docs.anthropic.com or try again without the header.",
        )
    assert refusal(simulator, HELLO, "sk-ant-others", anthropic_beta=betas)[0] == 200


def test_a_policy_may_say_which_betas_are_known_and_be_lifted(simulator):
    simulator.policy("sk-ant-few", known_betas=["a"])
    assert refusal(simulator, HELLO, "sk-ant-few", anthropic_beta="a")[0] == 200
    assert refusal(simulator, HELLO, "sk-ant-few", anthropic_beta="b")[0] == 400
    simulator.order("/_sim/policies", {"key": "sk-ant-few", "policy": None})
    assert refusal(simulator, HELLO, "sk-ant-few", anthropic_beta="b")[0] == 200


@pytest.mark.parametrize(
    ("beta", "path"),
    [
        ("dangerous-tool-use-2026-09-03", "safeguards"),
        ("advanced-tool-use-2025-11-20", "tools.1.custom.defer_loading"),
        ("fine-grained-tool-streaming-2025-05-14", "tools.2.custom.eager_input_streaming"),
        ("prompt-caching-scope-2026-01-05", "system.1.cache_control.ephemeral.scope"),
        ("context-management-2025-06-27", "context_management"),
    ],
)
def test_a_field_without_its_beta_is_an_extra_input(simulator, beta, path):
    simulator.policy("sk-ant-fields", beta_fields="strict")
    betas = BETAS.replace(beta, "")
    headers = {**CLAUDE_CODE, "x_api_key": "sk-ant-fields", "anthropic_beta": betas}
    status, _, data = simulator.post(BODY, **headers)
    assert (status, json.loads(data)["error"]["message"]) == (400, f"{path}: Extra inputs are not permitted")


def test_a_system_message_without_its_beta_is_refused_by_the_strict(simulator):
    said: Any = HELLO["messages"]
    body = {**HELLO, "messages": [*said, {"role": "system", "content": "Be brief."}]}
    assert refusal(simulator, body, "sk-ant-system")[0] == 200
    simulator.policy("sk-ant-system", beta_fields="strict")
    assert refusal(simulator, body, "sk-ant-system")[1]["message"].startswith("messages.1.role: ")
    assert refusal(simulator, body, "sk-ant-system", anthropic_beta="mid-conversation-system-2026-04-07")[0] == 200


def test_fields_may_be_taken_without_any_beta(simulator):
    simulator.policy("sk-ant-lenient", beta_fields="taken")
    assert simulator.post(BODY, x_api_key="sk-ant-lenient")[0] == 200
    assert simulator.post(BODY, x_api_key="sk-ant-usual")[0] == 400


@pytest.mark.parametrize(
    ("agent", "is_taken"),
    [
        ("claude-cli/2.1.299 (external, cli)", False),
        ("claude-cli/2.1.300 (external, cli)", True),
        ("claude-cli/2.10.0 (external, sdk-py)", True),
        ("claude-code/1.9.999", False),
        ("anthropic-sdk-python/0.1.0", True),
    ],
)
def test_an_old_claude_code_is_told_so(simulator, agent, is_taken):
    simulator.policy("sk-ant-old", oldest_claude_code="2.1.300")
    status, error = refusal(simulator, HELLO, "sk-ant-old", user_agent=agent)
    code = error.get("details", {}).get("error_code")
    assert (status, code) == ((200, None) if is_taken else (400, "claude_code_version_too_old"))


@pytest.mark.parametrize("policy", [{"unknown": 1}, {"beta_fields": "lax"}, {"unified": "no"}, {"threads": "no"}, 5])
def test_an_unknown_policy_is_refused(simulator, policy):
    assert simulator.call("POST", "/_sim/policies", {"key": "*", "policy": policy})[0] == 400

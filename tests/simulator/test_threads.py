"""Conversations that the API keeps: who can continue them, until when, and with what."""

import json

import pytest

from tests.simulator.test_wire import open_stream, read_until

BETA = "message-threads-2026-08-12"
KEY = "sk-ant-threads"
TOOL = {"name": "look", "input_schema": {"type": "object", "properties": {}}}
BEGIN = {
    "model": "sim-echo",
    "max_tokens": 2000,
    "system": "Be brief.",
    "tools": [TOOL],
    "messages": [{"role": "user", "content": "My name is Ada."}],
    "thread": {"type": "create"},
}


def ask(simulator, body, key=KEY, betas=BETA):
    status, _, data = simulator.post(body, x_api_key=key, anthropic_beta=betas)
    return status, json.loads(data)


def continued(message_id, **changes):
    body = {name: value for name, value in BEGIN.items() if name not in ("system", "tools")}
    thread = {"type": "continue", "previous_message_id": message_id}
    return {**body, "messages": [{"role": "user", "content": "Who am I?"}], "thread": thread, **changes}


def begun(simulator):
    """The id of the first answer of a new thread."""
    status, message = ask(simulator, BEGIN)
    assert status == 200, message
    return message["id"]


def refused(simulator, body, **how):
    """Status and details of a refusal."""
    status, answer = ask(simulator, body, **how)
    return status, answer["error"].get("details", {}).get("error_code"), answer["error"]["message"]


def test_a_continued_thread_knows_what_was_said_and_its_system_and_tools(simulator):
    status, message = ask(simulator, continued(begun(simulator)))
    echo = json.loads(message["content"][0]["text"])
    assert (status, echo["system"], echo["tools"]) == (200, "Be brief.", ["look"])
    assert [said["role"] for said in echo["messages"]] == ["user", "assistant", "user"]
    assert echo["messages"][0]["content"] == "My name is Ada."
    assert len(simulator.last_request()["body"]["messages"]) == 1


def test_a_thread_goes_on_from_answer_to_answer_and_its_prompt_grows(simulator):
    message_id, tokens = begun(simulator), []
    for _ in range(3):
        message = ask(simulator, continued(message_id))[1]
        message_id = message["id"]
        tokens.append(message["usage"]["input_tokens"])
    assert tokens == sorted(set(tokens))


def test_a_streamed_answer_is_kept_once_it_is_whole(simulator):
    with open_stream_of(simulator, "sim-echo", BEGIN) as raw:
        data = read_until(raw, b"0\r\n\r\n")
    message_id = data.split(b'"id":"')[1].split(b'"')[0].decode()
    assert ask(simulator, continued(message_id), key="sk-ant-raw")[0] == 200


def test_a_stream_that_was_cut_is_not_kept_and_the_one_before_can_be_continued(simulator):
    before = begun(simulator)
    cut = {"model": "sim-echo", "stream": True}
    simulator.fault(KEY, {"eof_inside": 4}, times=1)
    _, _, data = simulator.post(continued(before, **cut), x_api_key=KEY, anthropic_beta=BETA)
    half = data.split(b'"id":"')[1].split(b'"')[0].decode()
    assert refused(simulator, continued(half))[:2] == (404, "thread_not_found")
    assert ask(simulator, continued(before))[0] == 200


def test_an_answer_that_ends_in_an_error_is_not_kept(simulator):
    body = {**BEGIN, "model": "sim-error-midstream", "stream": True}
    data = simulator.post(body, x_api_key=KEY, anthropic_beta=BETA)[2]
    message_id = data.split(b'"id":"')[1].split(b'"')[0].decode()
    going_on = continued(message_id, model="sim-error-midstream")
    assert refused(simulator, going_on)[:2] == (404, "thread_not_found")


def test_another_account_does_not_find_the_thread_and_another_key_of_the_same_does(simulator):
    message_id = begun(simulator)
    assert refused(simulator, continued(message_id), key="sk-ant-others")[:2] == (404, "thread_not_found")
    assert ask(simulator, continued(message_id), key=f"{KEY}.second")[0] == 200


def test_a_thread_lives_five_minutes_after_its_last_answer(simulator):
    first = begun(simulator)
    simulator.order("/_sim/clock", {"forward_s": 290})
    status, message = ask(simulator, continued(first))
    assert status == 200
    simulator.order("/_sim/clock", {"forward_s": 290})
    status, message = ask(simulator, continued(message["id"]))
    assert status == 200
    simulator.order("/_sim/clock", {"forward_s": 301})
    assert refused(simulator, continued(message["id"]))[:2] == (404, "thread_not_found")


def test_an_answer_is_continued_once(simulator):
    message_id = begun(simulator)
    assert ask(simulator, continued(message_id))[0] == 200
    assert refused(simulator, continued(message_id))[:2] == (400, "thread_already_continued")


SLOW = "sim-text:tokens=3,gap_ms=150"


def slowly_continued(simulator):
    """What goes on with a new thread of a model that takes its time, with the key of raw sockets."""
    begin = {**BEGIN, "model": SLOW}
    return continued(ask(simulator, begin, key="sk-ant-raw")[1]["id"], model=SLOW)


def open_stream_of(simulator, model, body):
    """A raw socket that has sent a request with the beta of threads."""
    return open_stream(simulator, model, betas=BETA, **{k: v for k, v in body.items() if k not in ("model", "stream")})


def test_an_answer_that_is_being_continued_waits_for_nobody(simulator):
    going_on = slowly_continued(simulator)
    with open_stream_of(simulator, SLOW, going_on) as raw:
        read_until(raw, b"message_start")
        assert refused(simulator, going_on, key="sk-ant-raw")[:2] == (400, "thread_continue_in_flight")
        read_until(raw, b"0\r\n\r\n")
    assert refused(simulator, going_on, key="sk-ant-raw")[:2] == (400, "thread_already_continued")


def test_a_client_that_leaves_gives_the_thread_back(simulator):
    going_on = slowly_continued(simulator)
    with open_stream_of(simulator, SLOW, going_on) as raw:
        read_until(raw, b"message_start")
    assert simulator.last_request()["ended"] == "aborted by client"
    assert ask(simulator, going_on, key="sk-ant-raw")[0] == 200


@pytest.mark.parametrize(
    ("changes", "betas", "named"),
    [
        ({"model": "sim-text"}, BETA, "`model`"),
        ({"thinking": {"type": "adaptive"}}, BETA, "`thinking`"),
        ({"tool_choice": {"type": "none"}}, BETA, "`tool_choice`"),
        ({"cache_control": {"type": "ephemeral"}}, BETA, "`cache_control`"),
        ({}, f"{BETA},files-api-2025-04-14", "`anthropic-beta`"),
    ],
)
def test_what_must_stay_the_same_is_named_when_it_does_not(simulator, changes, betas, named):
    status, code, said = refused(simulator, continued(begun(simulator), **changes), betas=betas)
    assert (status, code, said.split()[0]) == (400, "thread_fingerprint_mismatch", named)


def test_the_order_of_betas_may_change(simulator):
    betas = f"{BETA},files-api-2025-04-14"
    message_id = ask(simulator, BEGIN, betas=betas)[1]["id"]
    assert ask(simulator, continued(message_id), betas=f"files-api-2025-04-14, {BETA}")[0] == 200


def test_system_and_tools_stand_in_the_thread(simulator):
    message_id = begun(simulator)
    assert refused(simulator, continued(message_id, system="Be long."))[0] == 400
    assert refused(simulator, continued(message_id, tools=[TOOL]))[0] == 400
    assert ask(simulator, continued(message_id))[0] == 200


def test_threads_need_their_beta(simulator):
    for body in (BEGIN, continued("msg_01")):
        assert refused(simulator, body, betas="")[2] == "thread: Extra inputs are not permitted"


def test_some_accounts_and_requests_have_no_threads(simulator):
    simulator.policy("sk-ant-without", threads="unsupported")
    status, answer = ask(simulator, BEGIN, key="sk-ant-without")
    details = {"error_code": "thread_unsupported_request", "unsupported": ["hipaa"]}
    assert (status, answer["error"]["details"]) == (400, details)
    edits = {"context_management": {"edits": [{"type": "compact_20260112"}]}}
    assert refused(simulator, {**BEGIN, **edits})[:2] == (400, "thread_unsupported_request")


def test_a_backend_that_ignores_threads_answers_without_the_history(simulator):
    simulator.policy("sk-ant-deaf", threads="ignored")
    message = ask(simulator, BEGIN, key="sk-ant-deaf")[1]
    echo = json.loads(ask(simulator, continued(message["id"]), key="sk-ant-deaf")[1]["content"][0]["text"])
    assert (len(echo["messages"]), "system" in echo) == (1, False)


def test_the_helper_of_the_sdk_replays_a_thread_that_is_gone(simulator):
    with simulator.sdk("sk-ant-helper") as client:
        thread = client.beta.messages.thread(model="sim-echo", max_tokens=2000)
        for said in ("My name is Ada.", "Who am I?"):
            thread.send({"role": "user", "content": said})
        simulator.order("/_sim/clock", {"forward_s": 301})
        thread.send({"role": "user", "content": "Are you sure?"})
    kinds = [
        (entry["body"]["thread"]["type"], entry["status"])
        for entry in simulator.call("GET", "/_sim/requests")[1]["requests"]
        if entry["key"] == "sk-ant-helper"
    ]
    assert kinds == [("create", 200), ("continue", 200), ("continue", 404), ("create", 200)]

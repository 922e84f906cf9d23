"""What counts as the same prompt: the order of keys does, the attribution line does not where it stands first."""

import itertools
import json

LONG = "word " * 2000
CACHE = {"cache_control": {"type": "ephemeral"}}
KEYS = (f"sk-ant-cached-{number}" for number in itertools.count())


def usages(simulator, *bodies, forward_s=0):
    """Of the same account's requests, one after the other: what was written, what was read."""
    key, found = next(KEYS), []
    for body in bodies:
        asked = {"model": "sim-text", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}], **body}
        usage = json.loads(simulator.post(asked, x_api_key=key)[2])["usage"]
        found.append((usage["cache_creation_input_tokens"], usage["cache_read_input_tokens"]))
        simulator.order("/_sim/clock", {"forward_s": forward_s})
    return found


def are_hits(simulator, *bodies):
    first, *others = usages(simulator, *bodies)
    assert first[0] > 2000
    return [other == first[::-1] for other in others]


def system(*texts):
    blocks = [{"type": "text", "text": said} for said in texts]
    return {"system": [*blocks, {"type": "text", "text": LONG, **CACHE}]}


def test_the_keys_of_an_input_in_another_order_are_another_prompt(simulator):
    def called(arguments):
        call = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": arguments}
        result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": LONG, **CACHE}
        tool = {"name": "look", "input_schema": {"type": "object", "properties": {}}}
        said = [("user", "Hello"), ("assistant", [call]), ("user", [result])]
        return {"tools": [tool], "messages": [{"role": role, "content": content} for role, content in said]}

    one, other = called({"a": 1, "b": 2}), called({"b": 2, "a": 1})
    assert are_hits(simulator, one, one, other) == [True, False]


def test_another_attribution_line_is_the_same_prompt(simulator):
    lines = [system(f"x-anthropic-billing-header: cc_version=2.1.332; cch={number};") for number in "12"]
    assert are_hits(simulator, *lines, system()) == [True, True]


def test_behind_another_block_the_line_is_text_like_any_other(simulator):
    lines = [system("You are kind.", f"x-anthropic-billing-header: cch={number};") for number in "12"]
    assert are_hits(simulator, lines[0], *lines) == [True, False]


def test_the_line_is_not_counted(simulator):
    count = {"model": "sim-text", "messages": [{"role": "user", "content": "Hello"}]}
    tokens = [
        simulator.post({**count, **system(*lines)}, "/v1/messages/count_tokens")[2]
        for lines in ((), ("x-anthropic-billing-header: cch=1;",))
    ]
    assert tokens[0] == tokens[1]


def test_tests_can_wait_for_the_end_of_the_cache(simulator):
    assert [read for _, read in usages(simulator, system(), system(), forward_s=200)][1] > 0
    assert [read for _, read in usages(simulator, system(), system(), forward_s=301)][1] == 0

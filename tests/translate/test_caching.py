"""Prompt caching: whose breakpoints are sent, and which."""

from __future__ import annotations

from typing import Any

import pytest

from app.schemas.chat import chat_request
from app.translate.caching import Caching
from app.translate.chat.request import Options, to_message_params
from app.translate.facts import ModelFacts
from app.translate.translation import Translation

FIVE, HOUR = {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}
HI: list[Any] = [{"role": "user", "content": "hi"}]
TALK: list[Any] = [{"role": "system", "content": "Be brief."}, *HI]
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "f"}}


def translated(messages: list[Any], caching: Caching = "auto", **fields: Any) -> Translation:
    request = chat_request({"model": "m", "messages": messages, **fields})
    return to_message_params(request, ModelFacts("m", mid_system=True), Options(caching=caching))


def part(text: str, control: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": text, **({"cache_control": control} if control else {}), **more}


def controls(body: Any) -> list[Any]:
    """All breakpoints, in the order of the prompt."""
    blocks = [*body.get("tools", ()), *body.get("system", ()), *(b for m in body["messages"] for b in m["content"])]
    return [block["cache_control"] for block in blocks if "cache_control" in block]


@pytest.mark.parametrize(
    ("messages", "fields", "caching", "control"),
    [
        (TALK, {}, "auto", FIVE),
        (HI, {"tools": [TOOL]}, "auto", FIVE),
        ([*HI, {"role": "assistant", "content": "a"}, *HI], {}, "auto", FIVE),
        (HI, {}, "auto", None),
        (TALK, {}, "passive", None),
        (TALK, {}, "off", None),
        (TALK, {"prompt_cache_retention": "24h"}, "auto", HOUR),
        (TALK, {"prompt_cache_retention": "in_memory"}, "auto", FIVE),
        (TALK, {"prompt_cache_options": {"mode": "explicit"}}, "auto", None),
        (TALK, {"prompt_cache_options": {"mode": "implicit", "ttl": "30m"}}, "passive", HOUR),
        (HI, {"cache_control": HOUR}, "passive", HOUR),
        ([{"role": "user", "content": "hi", "cache_control": FIVE}], {}, "auto", None),
    ],
)
def test_one_breakpoint_is_set_for_those_who_set_none(
    messages: list[Any], fields: dict[str, Any], caching: Caching, control: Any
) -> None:
    assert translated(messages, caching, **fields).body.get("cache_control") == control


def test_breakpoints_of_clients_stand_where_they_set_them() -> None:
    made = translated(
        [
            {"role": "system", "content": "a", "cache_control": FIVE},
            {"role": "user", "content": [part("b", FIVE), part(" ")]},
            {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "d", "cache_control": FIVE},
        ],
        tools=[{**TOOL, "cache_control": FIVE}],
    ).body
    assert "cache_control" in made["tools"][0]
    assert "cache_control" in made["system"][0]
    assert made["messages"][0]["content"] == [part("b", FIVE)]
    assert made["messages"][2]["content"][0]["cache_control"] == FIVE
    assert "cache_control" not in made


def test_the_breakpoint_of_a_blank_part_moves_to_the_one_before() -> None:
    made = translated([{"role": "user", "content": [part("a"), part("", FIVE), part("b")]}]).body
    assert made["messages"][0]["content"] == [part("a", FIVE), part("b")]


def test_openais_breakpoints_last_at_least_as_long_as_asked() -> None:
    parts = [
        part(ttl or "none", prompt_cache_breakpoint={"mode": "explicit", "ttl": ttl}) for ttl in ("12h", "30m", None)
    ]
    assert controls(translated([{"role": "user", "content": parts}]).body) == [HOUR, HOUR, FIVE]


def test_too_many_breakpoints_are_thinned_out_and_told() -> None:
    parts = [part(str(n), FIVE) for n in range(6)]
    made = translated(
        [{"role": "system", "content": [part("s1", FIVE), part("s2", FIVE)]}, {"role": "user", "content": parts}],
        tools=[{**TOOL, "cache_control": FIVE}],
    )
    assert len(controls(made.body)) == 4
    assert "cache_control" not in made.body["system"][0]
    assert [b["text"] for b in made.body["messages"][0]["content"] if "cache_control" in b] == ["4", "5"]
    assert made.reply.warnings == ("cache_breakpoints_dropped",)


def test_breakpoints_before_one_of_an_hour_last_an_hour_too() -> None:
    parts = [part("a", FIVE), part("b", HOUR), part("c", FIVE)]
    assert controls(translated([{"role": "user", "content": parts}]).body) == [HOUR, HOUR, FIVE]


def test_caching_that_is_switched_off_is_told_to_those_who_ask() -> None:
    made = translated([{"role": "user", "content": [part("a", FIVE)]}], "off")
    assert controls(made.body) == []
    assert made.reply.warnings == ("caching_off",)


def test_a_breakpoint_never_comes_to_stand_on_thinking() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "s", "cache_control": FIVE}
    blank = {"type": "text", "text": " ", "cache_control": FIVE}
    said = {"type": "text", "text": "Well."}
    for content in ([thought, said], [thought, blank, said], [said, thought, blank]):
        message = {"role": "assistant", "content": content, "cache_control": FIVE}
        made = translated([*HI, message, *HI]).body
        blocks = made["messages"][1]["content"]
        assert [b["type"] for b in blocks if "cache_control" in b] == ["text"]


def test_what_many_conversations_share_is_cached_apart_from_what_only_one_says() -> None:
    deferred = {"type": "function", "function": {"name": "g"}, "defer_loading": True}
    body = translated(TALK, tools=[TOOL, deferred]).body
    assert [tool.get("cache_control") for tool in body["tools"]] == [FIVE, None]
    assert body["system"][-1]["cache_control"] == FIVE
    assert body["cache_control"] == FIVE

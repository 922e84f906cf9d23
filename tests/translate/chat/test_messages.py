"""Conversations: which turns Claude gets for which messages of the client."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from app.errors import UntranslatableRequest
from app.translate.chat.messages import CONTINUE_EXACTLY, EMPTY_MESSAGE, NO_RESULT, Conversation, to_conversation
from app.translate.facts import ModelFacts
from app.translate.notes import Notes
from app.translate.tools import ToolNames

PLAIN = ModelFacts("claude-plain")
WITH_SYSTEM_ROLE = ModelFacts("claude-with-system-role", mid_system=True)
WITH_PREFILL = ModelFacts("claude-with-prefill", prefill=True)
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 20).decode()
JPEG = base64.b64encode(b"\xff\xd8\xff\xe0" + b"\0" * 20).decode()


def translated(*messages: Any, facts: ModelFacts = PLAIN, notes: Notes | None = None) -> Conversation:
    return to_conversation(list(messages), facts, ToolNames(), notes or Notes())


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any = None, *calls: tuple[str, str], **more: Any) -> dict[str, Any]:
    tool_calls = [{"id": i, "type": "function", "function": {"name": "f", "arguments": a}} for i, a in calls]
    return {"role": "assistant", "content": content, **({"tool_calls": tool_calls} if calls else {}), **more}


def tool(call_id: str, content: Any = "result", **more: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content, **more}


def text(*texts: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": t} for t in texts]


def test_leading_system_messages_become_one_block_each() -> None:
    made = translated(system("a"), {"role": "developer", "content": [{"type": "text", "text": "b"}]}, user("hi"))
    assert made.system == text("a", "b")
    assert made.messages == [{"role": "user", "content": text("hi")}]


def test_a_late_system_message_keeps_its_place_where_the_model_has_the_role() -> None:
    made = translated(user("a"), assistant("b"), system("late"), user("c"), facts=WITH_SYSTEM_ROLE)
    assert made.messages[2:] == [
        {"role": "user", "content": text("c")},
        {"role": "system", "content": text("late")},
    ]
    assert made.system == []


def test_a_late_system_message_stands_inline_where_the_model_has_no_such_role() -> None:
    made = translated(user("a"), assistant("b"), system("late"), user("c"))
    assert made.messages[2] == {"role": "user", "content": text("<system>\nlate\n</system>", "c")}


def test_a_late_system_message_without_a_user_message_makes_a_user_turn() -> None:
    made = translated(user("a"), assistant("b"), system("late"), facts=WITH_SYSTEM_ROLE)
    assert made.messages[-1] == {"role": "user", "content": text("<system>\nlate\n</system>")}


def test_of_system_messages_alone_the_last_is_what_is_asked() -> None:
    notes = Notes()
    made = translated(system("rules"), system("Write a poem."), notes=notes)
    assert (made.system, made.messages) == (text("rules"), [{"role": "user", "content": text("Write a poem.")}])
    assert notes.codes == ("system_as_user",)


def test_consecutive_messages_of_a_role_are_one_turn_with_a_block_each() -> None:
    made = translated(user("a"), user("b"), assistant("c"), assistant("d"), user("e"))
    assert [m["content"] for m in made.messages] == [text("a", "b"), text("c", "d"), text("e")]


@pytest.mark.parametrize("empty", ["", "  \n", [], None, [{"type": "text", "text": " "}]])
def test_no_blank_text_block_is_ever_sent(empty: Any) -> None:
    made = translated(user("a"), assistant(empty), user(empty), assistant("b"), user(empty))
    assert [m["content"] for m in made.messages] == [text("a"), text("b"), text(EMPTY_MESSAGE)]


def test_an_empty_user_message_between_two_answers_keeps_its_turn() -> None:
    made = translated(user("a"), assistant("b"), user(""), assistant("c"), user("d"))
    assert [m["role"] for m in made.messages] == ["user", "assistant", "user", "assistant", "user"]
    assert made.messages[2]["content"] == text(EMPTY_MESSAGE)


def test_a_conversation_of_empty_messages_is_refused() -> None:
    with pytest.raises(UntranslatableRequest) as caught:
        translated(user(""), user("  "))
    assert (caught.value.param, caught.value.code) == ("messages", "empty_array")


def test_a_conversation_that_begins_with_the_assistant_gets_a_user_turn_before() -> None:
    notes = Notes()
    made = translated(assistant("Hello!"), user("hi"), notes=notes)
    assert [m["role"] for m in made.messages] == ["user", "assistant", "user"]
    assert notes.codes == ("inserted_user_turn",)


def test_empty_messages_before_the_first_answer_do_not_count_as_a_beginning() -> None:
    made = translated(assistant(""), system(""), assistant("Hello!"), user("hi"))
    assert [m["role"] for m in made.messages] == ["user", "assistant", "user"]


def test_results_of_tools_come_in_the_order_of_the_calls_and_before_the_text() -> None:
    made = translated(
        user("go"),
        assistant(None, ("call_1", "{}"), ("call_2", '{"a":1}')),
        tool("call_2", "two"),
        user("and now?"),
        tool("call_1", "one"),
    )
    assert made.messages[1]["content"] == [
        {"type": "tool_use", "id": "call_1", "name": "f", "input": {}},
        {"type": "tool_use", "id": "call_2", "name": "f", "input": {"a": 1}},
    ]
    assert made.messages[2]["content"] == [
        {"type": "tool_result", "tool_use_id": "call_1", "content": "one"},
        {"type": "tool_result", "tool_use_id": "call_2", "content": "two"},
        *text("and now?"),
    ]


def test_a_call_without_a_result_gets_one_that_says_so() -> None:
    notes = Notes()
    made = translated(user("go"), assistant(None, ("call_1", "{}")), user("never mind"), notes=notes)
    assert made.messages[2]["content"][0] == {
        "type": "tool_result",
        "tool_use_id": "call_1",
        "content": NO_RESULT,
        "is_error": True,
    }
    assert notes.codes == ("missing_tool_result",)


def test_calls_at_the_very_end_get_results_too() -> None:
    made = translated(user("go"), assistant("I will", ("call_1", "{}")))
    assert [m["role"] for m in made.messages] == ["user", "assistant", "user"]
    assert made.messages[2]["content"][0]["is_error"] is True


def test_a_result_that_answers_no_call_becomes_text() -> None:
    notes = Notes()
    made = translated(user("go"), tool("call_9", "what?"), notes=notes)
    assert made.messages[0]["content"] == text('<tool_result id="call_9">', "what?", "</tool_result>", "go")
    assert notes.codes == ("orphan_tool_result",)


def test_ids_that_claude_refuses_are_altered_alike_in_call_and_result() -> None:
    made = translated(
        user("go"),
        assistant(None, ("functions.get_x:0", "{}"), ("", "{}")),
        tool("functions.get_x:0"),
        tool(""),
    )
    calls = made.messages[1]["content"]
    results = made.messages[2]["content"]
    assert calls[0]["id"] == "functions_get_x_0"
    assert [c["id"] for c in calls] == [r["tool_use_id"] for r in results]
    assert "is_error" not in results[1]


def test_ids_that_a_client_uses_again_stay_unique() -> None:
    made = translated(
        user("go"), assistant(None, ("call_0", "{}")), tool("call_0", "first"),
        assistant(None, ("call_0", "{}")), tool("call_0", "second"),
    )  # fmt: skip
    assert [m["content"][0].get("id") for m in made.messages if m["role"] == "assistant"] == ["call_0", "call_0_2"]
    assert made.messages[4]["content"] == [{"type": "tool_result", "tool_use_id": "call_0_2", "content": "second"}]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", {}),
        (None, {}),
        ("  ", {}),
        ('{}{"a": 1}', {"a": 1}),
        ('{"a": 1.0}', {"a": 1.0}),
        ('{"a": ', {"_raw": '{"a": '}),
        ("[1]", {"_raw": "[1]"}),
        ("[" * 5000, {"_raw": "[" * 5000}),
        ("null", {}),
        (" null\n", {}),
        ('"null"', {}),
        ('""', {}),
        (r'"{\"city\": \"Oslo\"}"', {"city": "Oslo"}),
        (json.dumps(json.dumps(json.dumps({"city": "Oslo", "id": 2**70}))), {"city": "Oslo", "id": 2**70}),
        ('"Oslo"', {"_raw": '"Oslo"'}),
        ('"[1]"', {"_raw": '"[1]"'}),
        ('{"t":"line 1\nline 2"}', {"t": "line 1\nline 2"}),
        ('{"code":"def f():\r\n\treturn 1"}', {"code": "def f():\r\n\treturn 1"}),
        ('{"t":"bell \x07, nul \x00"}', {"t": "bell \x07, nul \x00"}),
        ('"{\\"t\\": \\"a\nb\\"}"', {"t": "a\nb"}),
        (r'{"e":"\ud83d"}', {"e": "\ufffd"}),
        (r'{"e":"\ude00 and \ud83d\ude00"}', {"e": "\ufffd and 😀"}),
        (r'{"e":"\\ud83d is spelt, \\\ud83d is not"}', {"e": "\\ud83d is spelt, \\\ufffd is not"}),
        ('{"e":"\\ud83d\n"}', {"e": "\ufffd\n"}),
        (r'"{\"e\": \"\\ud83d\"}"', {"e": "\ufffd"}),
        ('{"a": NaN}', {"_raw": '{"a": NaN}'}),
        ('{"a": 1}}', {"_raw": '{"a": 1}}'}),
        ("{'a': 1}", {"_raw": "{'a': 1}"}),
        ([1], {"_raw": "[1]"}),
        (5, {"_raw": "5"}),
        ({"a": 1}, {"a": 1}),
        ('{"a":' * 240 + "1" + "}" * 240, {"_raw": '{"a":' * 240 + "1" + "}" * 240}),
    ],
)
def test_arguments_of_a_call_become_an_object(arguments: Any, expected: dict[str, Any]) -> None:
    made = translated(user("go"), assistant(None, ("call_1", arguments)), tool("call_1"))
    assert made.messages[1]["content"][0]["input"] == expected


@pytest.mark.parametrize(
    ("arguments", "codes"),
    [
        ("null", ()),
        (r'"{\"city\": \"Oslo\"}"', ()),
        ('{"t":"line 1\nline 2"}', ()),
        (r'{"e":"\ud83d"}', ("broken_character",)),
        ('"Oslo"', ("bad_tool_arguments",)),
    ],
)
def test_arguments_are_told_of_where_they_lost_something(arguments: str, codes: tuple[str, ...]) -> None:
    notes = Notes()
    translated(user("go"), assistant(None, ("call_1", arguments)), tool("call_1"), notes=notes)
    assert notes.codes == codes
    for code in codes:
        with pytest.raises(UntranslatableRequest) as caught:
            translated(user("go"), assistant(None, ("c", arguments)), tool("c"), notes=Notes(strict=True))
        assert caught.value.param == "messages[1].tool_calls[0].function.arguments", code


def test_arguments_of_more_values_than_an_answer_holds_are_kept_as_their_text() -> None:
    """Reading them would hold everybody up, and no answer of Claude's can have had them."""
    fits, is_too_many = (json.dumps({"a": [0] * count}) for count in (90_000, 110_000))
    made = translated(user("go"), assistant(None, ("c", fits), ("d", is_too_many)), tool("c"), tool("d"))
    assert [len(block["input"]) for block in made.messages[1]["content"]] == [1, 1]
    assert made.messages[1]["content"][0]["input"]["a"] == [0] * 90_000
    assert made.messages[1]["content"][1]["input"] == {"_raw": is_too_many}


def test_commas_within_the_strings_of_arguments_are_no_values() -> None:
    prose = {"text": 'one, "two", [three] ' * 100_000}
    made = translated(user("go"), assistant(None, ("c", json.dumps(prose))), tool("c"))
    assert made.messages[1]["content"][0]["input"] == prose


def test_empty_objects_before_the_arguments_cost_no_more_than_their_number() -> None:
    """Were it the square, this would not end."""
    arguments = "{}" * 2_000_000 + '{"a":1}'
    made = translated(user("go"), assistant(None, ("c", arguments)), tool("c"))
    assert made.messages[1]["content"][0]["input"] == {"_raw": arguments}


def test_an_id_as_long_as_a_text_is_replaced_for_the_call_and_its_result() -> None:
    call_id = "call " * 1_000_000
    made = translated(user("go"), assistant(None, (call_id, "{}")), {**tool("c"), "tool_call_id": call_id})
    replaced = made.messages[1]["content"][0]["id"]
    assert replaced.startswith("toolu_gw_")
    assert made.messages[2]["content"][0]["tool_use_id"] == replaced


def test_backslashes_in_broken_arguments_cost_no_more_than_their_number() -> None:
    """Were it the square, this would not end."""
    arguments = r'{"e":"' + "\\" * 2_000_000 + r"\ud83d" * 100_000
    made = translated(user("go"), assistant(None, ("c", arguments)), tool("c"))
    assert made.messages[1]["content"][0]["input"] == {"_raw": arguments}


def test_an_image_in_a_tool_result_stays_an_image() -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    made = translated(user("go"), assistant(None, ("c", "{}")), tool("c", [{"type": "text", "text": "see"}, image]))
    assert made.messages[2]["content"][0]["content"] == [
        *text("see"),
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
    ]


def test_an_empty_tool_result_has_no_content() -> None:
    made = translated(user("go"), assistant(None, ("c", "{}")), tool("c", "", is_error=True))
    assert made.messages[2]["content"] == [{"type": "tool_result", "tool_use_id": "c", "is_error": True}]


@pytest.mark.parametrize(
    ("url", "media_type", "data"),
    [
        (f"data:image/jpg;base64,{PNG}", "image/png", PNG),
        (f"data:image/jpg;base64,{JPEG}", "image/jpeg", JPEG),
        (f"data:;charset=x;base64,{PNG[:10]}\n {PNG[10:]}", "image/png", PNG),
        (f"data:image/png;BASE64,{PNG.rstrip('=').replace('+', '-').replace('/', '_')}", "image/png", PNG),
        ("data:image/gif,GIF89a%00%01", "image/gif", base64.b64encode(b"GIF89a\0\1").decode()),
    ],
)
def test_the_bytes_of_an_image_decide_its_type(url: str, media_type: str, data: str) -> None:
    made = translated(user([{"type": "image_url", "image_url": {"url": url}}]))
    source = made.messages[0]["content"][0]["source"]
    assert source == {"type": "base64", "media_type": media_type, "data": data}


def test_an_image_behind_a_url_is_passed_on_as_it_is() -> None:
    made = translated(user([{"type": "image_url", "image_url": "https://example.com/a.png"}]))
    assert made.messages[0]["content"][0]["source"] == {"type": "url", "url": "https://example.com/a.png"}


@pytest.mark.parametrize(
    ("message", "param", "code"),
    [
        ("hi", "messages[0]", "invalid_type"),
        ({"content": "x"}, "messages[0].role", "missing_required_parameter"),
        ({"role": "robot", "content": "x"}, "messages[0].role", "invalid_value"),
        ({"role": ["user"], "content": "x"}, "messages[0].role", "invalid_value"),
        (user(5), "messages[0].content", "invalid_type"),
        (user([5]), "messages[0].content[0]", "invalid_type"),
        (user([{"type": "text"}]), "messages[0].content[0].text", "invalid_type"),
        (user([{"type": "video_url"}]), "messages[0].content[0].type", "invalid_value"),
        (user([{"type": ["text"]}]), "messages[0].content[0].type", "invalid_value"),
        (user([{"type": "input_audio"}]), "messages[0].content[0].type", "unsupported_value"),
        (user([{"type": "file"}]), "messages[0].content[0].file", "missing_required_parameter"),
        (
            user([{"type": "file", "file": {"filename": "a.pdf"}}]),
            "messages[0].content[0].file.file_data",
            "missing_required_parameter",
        ),
        (
            user([{"type": "file", "file": {"file_id": "file-1"}}]),
            "messages[0].content[0].file.file_id",
            "invalid_value",
        ),
        (
            user([{"type": "file", "file": {"file_data": "AAECAw=="}}]),
            "messages[0].content[0].file.file_data",
            "invalid_file_format",
        ),
        (user([{"type": "document"}]), "messages[0].content[0].source", "missing_required_parameter"),
        (user([{"type": "video_url"}]), "messages[0].content[0].type", "invalid_value"),
        (user([{"type": "thinking"}]), "messages[0].content[0].type", "invalid_value"),
        (assistant([{"type": "tool_use", "id": 5}]), "messages[0].content[0].id", "invalid_type"),
        (assistant("x", reasoning_details="x"), "messages[0].reasoning_details", "invalid_type"),
        (user([{"type": "image_url"}]), "messages[0].content[0].image_url", "missing_required_parameter"),
        (
            user([{"type": "image_url", "image_url": {"url": "ftp://x"}}]),
            "messages[0].content[0].image_url.url",
            "invalid_image_url",
        ),
        (
            user([{"type": "image_url", "image_url": {"url": "data:image/png;base64,????"}}]),
            "messages[0].content[0].image_url.url",
            "invalid_base64",
        ),
        (
            user([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]),
            "messages[0].content[0].image_url.url",
            "invalid_image_format",
        ),
        (system([{"type": "image_url"}]), "messages[0].content[0].type", "invalid_value"),  # type: ignore[arg-type]
        (assistant(None, tool_calls=5), "messages[0].tool_calls", "invalid_type"),
        (assistant(None, tool_calls=[{}]), "messages[0].tool_calls[0].function.name", "missing_required_parameter"),
        ({"role": "tool", "content": "x"}, "messages[0].tool_call_id", "missing_required_parameter"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(message: Any, param: str, code: str) -> None:
    """In strict mode, where what Claude said before is refused as well (see test_history.py)."""
    with pytest.raises(UntranslatableRequest) as caught:
        translated(message, user("hi"), notes=Notes(strict=True))
    assert (caught.value.param, caught.value.code) == (param, code)


def test_a_last_assistant_message_is_a_prefill_without_trailing_blanks() -> None:
    made = translated(user("count"), assistant("One, two, \n"), facts=WITH_PREFILL)
    assert made.messages[-1] == {"role": "assistant", "content": text("One, two,")}
    assert made.ends_with_prefill


def test_a_model_without_prefill_is_asked_to_continue() -> None:
    notes = Notes()
    made = translated(user("count"), assistant("One, two, "), notes=notes)
    assert made.messages[-2:] == [
        {"role": "assistant", "content": text("One, two, ")},
        {"role": "user", "content": text(CONTINUE_EXACTLY)},
    ]
    assert notes.codes == ("prefill_emulated",)


def test_strict_mode_refuses_what_lenient_mode_only_tells() -> None:
    with pytest.raises(UntranslatableRequest) as caught:
        translated(user("count"), assistant("One,"), notes=Notes(strict=True))
    assert caught.value.code == "unsupported_value"


def test_the_next_turn_begins_with_the_same_bytes() -> None:
    history = [system("rules"), user("a"), assistant(None, ("x.1", "{}")), tool("x.1"), assistant("b"), user("c")]
    before = translated(*history)
    after = translated(*history, assistant("d"), user("e"))
    assert after.system == before.system
    assert after.messages[: len(before.messages)] == before.messages


def test_each_upstream_message_knows_which_of_the_clients_it_was_made_of() -> None:
    made = translated(system("s"), user("a"), user("b"), assistant("c"), user("d"))
    assert made.sources == ((1, 2), (3,), (4,))


def test_many_equal_ids_and_results_cost_no_more_than_their_number() -> None:
    """Were it the square, this would take a minute."""
    calls = [("call_0", "{}")] * 20_000
    results = [tool("call_0", str(n)) for n in range(20_000)]
    made = translated(user("go"), assistant(None, *calls), *results)
    assert made.messages[1]["content"][-1]["id"] == "call_0_20000"
    assert made.messages[2]["content"][-1] == {
        "type": "tool_result",
        "tool_use_id": "call_0_20000",
        "content": "19999",
    }


PDF = base64.b64encode(b"%PDF-1.7 ...").decode()


@pytest.mark.parametrize(
    ("file", "block"),
    [
        (
            {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"},
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
                "title": "a.pdf",
            },
        ),
        (
            {"file_data": PDF},
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}},
        ),
        (
            {"filename": "a.csv", "file_data": "data:text/csv;base64," + base64.b64encode("a,ü".encode()).decode()},
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "a,ü"},
                "title": "a.csv",
            },
        ),
        (
            {"filename": "a.png", "file_data": PNG},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        ),
    ],
)
def test_a_file_becomes_what_its_bytes_are(file: dict[str, Any], block: dict[str, Any]) -> None:
    assert translated(user([{"type": "file", "file": file}])).messages[0]["content"] == [block]


def test_a_pdf_sent_as_an_image_is_a_document() -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:application/pdf;base64,{PDF}"}}
    assert translated(user([image])).messages[0]["content"][0]["type"] == "document"

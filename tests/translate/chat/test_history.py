"""What was said before: a client cannot change it, so lenient mode mends it and tells; strict mode refuses it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from app.errors import UntranslatableRequest
from app.schemas.chat import chat_request
from app.simulator.models import catalogue
from app.simulator.rules import Leniency
from app.simulator.validator import validate
from app.translate.chat import memory
from app.translate.chat.request import Options, to_message_params
from app.translate.facts import facts_for
from app.translate.translation import Translation
from app.upstream.names import OVERLAY

MODEL = "claude-sonnet-5"
FIND = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}
OSLO = '{"city":"Oslo"}'
DEGREES = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "3 degrees"}
USE = {"type": "tool_use", "id": "toolu_1", "name": "find", "input": {"city": "Oslo"}}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}


def translated(*messages: Any, strict: bool = False, remembered: Mapping[int, Any] | None = None) -> Translation:
    """Each is checked by the simulator's rules, which are those of the API."""
    asked = chat_request({"model": MODEL, "messages": list(messages), "tools": [FIND]})
    made = to_message_params(asked, facts_for(MODEL, OVERLAY), Options(strict=strict), remembered)
    model = catalogue().find(MODEL)
    assert model is not None
    validate(orjson.loads(orjson.dumps(made.body)), made.headers, model, leniency=Leniency(foreign_signatures=True))
    return made


def contents(*messages: Any, **options: Any) -> list[list[dict[str, Any]]]:
    return [message["content"] for message in translated(*messages, **options).body["messages"]]


def user(content: Any = "hi") -> dict[str, Any]:
    return {"role": "user", "content": content}


def call(arguments: Any = OSLO, id: Any = "toolu_1", name: Any = "find") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def assistant(content: Any = None, *calls: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **({"tool_calls": list(calls)} if calls else {}), **more}


def tool(content: Any = "3 degrees", id: Any = "toolu_1") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


def text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


# ---------------------------------------------------------------------------------------------- what is told twice

LOOK = text("Let me look.")


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([assistant([LOOK, USE], call())], [LOOK, USE]),
        ([assistant([USE], call(""))], [USE]),
        ([assistant([{**USE, "input": {}}], call())], [USE]),
        ([assistant([{**USE, "input": ""}], call())], [USE]),
        ([assistant([{**USE, "input": None}], call())], [USE]),
        ([assistant([{k: v for k, v in USE.items() if k != "input"}], call())], [USE]),
        ([assistant([{**USE, "input": OSLO}], call())], [USE]),
        ([assistant([{**USE, "input": {}, "index": 1, "partial_json": OSLO}])], [USE]),
        ([assistant([{**USE, "input": ""}])], [{**USE, "input": {}}]),
        ([assistant([LOOK, {"type": "input_json_delta", "index": 1, "input": "{}"}], call())], [LOOK, USE]),
        (
            [assistant([{**LOOK, "index": 0}, {**USE, "input": "", "index": 1},
                        {"type": "input_json_delta", "index": 1, "input": OSLO}], call())],
            [LOOK, USE],
        ),
        ([assistant([{"type": "input_json_delta", "input": ""}], call())], [USE]),
        ([assistant(None, call()), assistant(None, call())], [USE]),
        ([assistant("Let me look.", call()), assistant("Let me look.", call())], [LOOK, USE]),
        ([assistant("Let me look.", call()), assistant(None, call())], [LOOK, USE]),
        ([assistant(None, call())] * 3, [USE]),
        ([assistant([LOOK, USE], call()), assistant([LOOK, USE], call())], [LOOK, USE]),
        ([assistant([USE]), assistant(None, call())], [USE]),
        ([assistant(None, call()), assistant("Still looking.", call())], [USE, text("Still looking.")]),
    ],
)  # fmt: skip
def test_a_call_that_is_told_twice_is_one_call_with_one_result(messages: list[Any], said: list[Any]) -> None:
    made = translated(user("weather?"), *messages, tool())
    assert [m["content"] for m in made.body["messages"][1:]] == [said, [DEGREES]]
    assert made.reply.warnings == ()
    assert translated(user("weather?"), *messages, tool(), strict=True).body == made.body


def test_calls_of_which_only_one_is_told_twice_keep_their_order() -> None:
    second = {**USE, "id": "toolu_2"}
    made = contents(
        user(), assistant([LOOK, USE], call(), call(id="toolu_2")), tool("two", id="toolu_2"), tool("one")
    )  # fmt: skip
    assert made[1:] == [
        [LOOK, USE, second],
        [{**DEGREES, "content": "one"}, {**DEGREES, "tool_use_id": "toolu_2", "content": "two"}],
    ]


def test_a_result_that_is_told_twice_is_one_result() -> None:
    made = translated(user(), assistant(None, call()), assistant(None, call()), tool(), tool())
    assert [m["content"] for m in made.body["messages"][1:]] == [[USE], [DEGREES]]
    assert made.reply.warnings == ()


def test_another_result_for_the_same_call_is_not_lost() -> None:
    made = translated(user(), assistant(None, call()), assistant(None, call()), tool(), tool("4 degrees"))
    assert made.body["messages"][2]["content"][2] == text("4 degrees")
    assert made.reply.warnings == ("orphan_tool_result",)


@pytest.mark.parametrize(
    "again",
    [call('{"city":"Rome"}'), call(id="toolu_2"), call(id="", arguments=OSLO)],
)
def test_what_is_not_the_same_call_stays_a_call(again: Any) -> None:
    made = contents(user(), assistant(None, call()), assistant(None, again), tool())
    assert [block["type"] for block in made[1]] == ["tool_use", "tool_use"]


def test_the_same_call_after_its_result_is_another_call() -> None:
    made = contents(user(), assistant(None, call()), tool(), assistant(None, call()), tool("4 degrees"))
    assert [block["id"] for blocks in made for block in blocks if block["type"] == "tool_use"] == [
        "toolu_1",
        "toolu_1_2",
    ]


def test_a_call_in_the_content_has_the_name_that_its_tool_has() -> None:
    odd = {**USE, "name": "fs.find"}
    alone = contents(user(), assistant([odd]), tool())[1]
    twice = contents(user(), assistant([odd], call(name="fs.find")), tool())[1]
    in_calls = contents(user(), assistant(None, call(name="fs.find")), tool())[1]
    assert alone == twice == in_calls
    assert in_calls[0]["name"] != "fs.find"


def test_what_was_remembered_is_found_by_a_call_in_the_content() -> None:
    """A client that speaks Anthropic's language, or LangChain, need not return the thinking either."""
    thinking = {"type": "thinking", "thinking": "Hm.", "signature": "sig"}
    known = [thinking, LOOK, USE]
    for message in (assistant([LOOK, USE]), assistant([LOOK, USE], call()), assistant("Let me look.", call())):
        messages = [user(), message, tool()]
        assert memory.remembered_names(messages, "", MODEL) == {1: "call toolu_1"}
        assert contents(*messages, remembered={1: known})[1] == known
    assert memory.remembered_names([user(), assistant(known), tool()], "", MODEL) == {}


def test_many_repetitions_cost_no_more_than_their_number() -> None:
    """Were it the square, this would take minutes."""
    parts = [text(str(n)) for n in range(300)]
    asked = [user(), *([assistant(parts, call())] * 300), tool()]
    assert len(contents(*asked)[1]) == 301


# ------------------------------------------------------------------------------------- what Claude does not take back

UNSIGNED = {"type": "thinking", "thinking": "hm"}


@pytest.mark.parametrize(
    ("wrong", "param", "said"),
    [
        (assistant([UNSIGNED, text("x")]), "content[0].signature", [text("x")]),
        (assistant([{"type": "thinking", "signature": "sig"}, text("x")]), "content[0].thinking", [text("x")]),
        (assistant([{**UNSIGNED, "signature": ""}, text("x")]), "content[0].signature", [text("x")]),
        (assistant([{**UNSIGNED, "signature": None}, text("x")]), "content[0].signature", [text("x")]),
        (assistant([{"type": "redacted_thinking"}, text("x")]), "content[0].data", [text("x")]),
        (assistant([{"type": "redacted_thinking", "data": ""}, text("x")]), "content[0].data", [text("x")]),
        (assistant([text("x"), {"type": "text"}]), "content[1].text", [text("x")]),
        (assistant([text("x"), {"type": "text", "text": None}]), "content[1].text", [text("x")]),
        (assistant([text("x"), {"type": "image_url", "image_url": {"url": "data:,"}}]), "content[1].type", [text("x")]),
        (assistant([text("x"), {"type": "reasoning", "summary": []}]), "content[1].type", [text("x")]),
        (assistant([text("x"), {"type": "refusal"}]), "content[1].refusal", [text("x")]),
        (assistant([text("x"), 5]), "content[1]", [text("x")]),
        (assistant([text("x"), {"text": "y"}]), "content[1].type", [text("x")]),
        (assistant([text("x"), {"type": "tool_use", "name": "f"}]), "content[1].id", [text("x")]),
        (assistant([text("x"), {"type": "server_tool_use", "id": "s"}]), "content[1].name", [text("x")]),
        (assistant([text("x"), {**SEARCH, "name": None}, FOUND]), "content[1].name", [text("x")]),
        (assistant([text("x"), SEARCH, {**FOUND, "tool_use_id": 5}]), "content[2].tool_use_id", [text("x"), SEARCH]),
        (assistant([text("x"), {"type": "mcp_tool_use", "id": "m", "name": "f"}]), "content[1].server_name",
         [text("x")]),
        (assistant("x", tool_calls=5), "tool_calls", [text("x")]),
        (assistant("x", tool_calls={"id": "c"}), "tool_calls", [text("x")]),
        (assistant("x", None), "tool_calls[0]", [text("x")]),
        (assistant("x", {"id": "c"}), "tool_calls[0].function.name", [text("x")]),
        (assistant("x", call(name="")), "tool_calls[0].function.name", [text("x")]),
        (assistant("x", call(name=None)), "tool_calls[0].function.name", [text("x")]),
        (assistant("x", {**call(), "type": "mcp"}), "tool_calls[0].type", [text("x")]),
        (assistant("x", reasoning_details="hm"), "reasoning_details", [text("x")]),
        (assistant("x", thinking_blocks={"type": "thinking"}), "thinking_blocks", [text("x")]),
    ],
)  # fmt: skip
def test_what_claude_does_not_take_back_of_its_own_is_left_out_and_told(wrong: Any, param: str, said: Any) -> None:
    made = translated(user(), wrong, user("b"))
    assert made.body["messages"][1]["content"] == said
    assert made.reply.warnings == ("history_mended",)
    assert [note.param for note in made.notes] == [f"messages[1].{param}"]
    with pytest.raises(UntranslatableRequest) as caught:
        translated(user(), wrong, user("b"), strict=True)
    assert caught.value.param == f"messages[1].{param}"


@pytest.mark.parametrize("content", [5, {"type": "text", "text": "x"}, [UNSIGNED], [{"type": "audio"}]])
def test_an_answer_of_which_nothing_is_left_is_no_message(content: Any) -> None:
    made = translated(user(), assistant(content), user("b"))
    assert [m["content"] for m in made.body["messages"]] == [[text("hi"), text("b")]]
    assert made.reply.warnings == ("history_mended",)


def test_an_answer_that_was_spoken_is_left_out_where_it_has_no_text() -> None:
    made = translated(user(), assistant(None, audio={"id": "audio_1"}), user("b"))
    assert [m["role"] for m in made.body["messages"]] == ["user"]
    assert made.reply.warnings == ("history_mended",)


@pytest.mark.parametrize("given", ["absent", None, "", "  ", OSLO, {"city": "Oslo"}])
@pytest.mark.parametrize("block", [USE, SEARCH])
def test_a_call_in_the_content_may_lack_its_input_or_have_it_as_text(block: Any, given: Any) -> None:
    own = {**block, "input": given} if given != "absent" else {k: v for k, v in block.items() if k != "input"}
    said = contents(user(), assistant([text("x"), own, *([FOUND] if block is SEARCH else ())]), tool())[1]
    assert said[1] == {**block, "input": {"city": "Oslo"} if given in (OSLO, {"city": "Oslo"}) else {}}


def test_a_call_and_its_result_go_together() -> None:
    """The API takes the result of a server tool only beside its call."""
    other = {**SEARCH, "id": "srvtoolu_2"}
    found = {**FOUND, "tool_use_id": "srvtoolu_2"}
    said = contents(user(), assistant([{**SEARCH, "name": 5}, FOUND, other, found, text("x")]), user("b"))[1]
    assert said == [other, found, text("x")]
    lost = contents(user(), assistant([SEARCH, {"type": "mcp_tool_result", "id": "srvtoolu_1"}, text("x")]), user())[1]
    assert lost == [text("x")]


def test_the_result_of_a_call_that_was_left_out_is_text() -> None:
    made = translated(user(), assistant("x", call(name="")), tool(), user("b"))
    assert made.body["messages"][2]["content"][1] == text("3 degrees")
    assert made.reply.warnings == ("history_mended", "orphan_tool_result")


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 20).decode()
PICTURE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "video_url", "video_url": {"url": "x"}}, "type"),
        ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, "type"),
        ({"type": "image_url", "image_url": {"url": "data:image/svg+xml,<svg/>"}}, "image_url.url"),
        ({"type": "image_url", "image_url": {"url": "blob:https://x"}}, "image_url.url"),
        ({"type": "image_url"}, "image_url"),
        ({"type": "file", "file": {"file_id": "file-abc"}}, "file.file_id"),
        ({"type": "file", "file": {"filename": "a.docx", "file_data": "UEsDBBQAAAA="}}, "file.file_data"),
        ({"type": "file", "file": {"filename": "a.pdf"}}, "file.file_data"),
        ({"type": "document"}, "source"),
        ({"type": "text", "text": 5}, "text"),
        ("text", None),
        (None, ""),
    ],
)
def test_a_part_of_an_earlier_message_that_claude_does_not_take_is_left_out_and_told(part: Any, param: Any) -> None:
    earlier = user([text("look"), part, PICTURE])
    made = translated(earlier, assistant("I see."), user("and now?"))
    kinds = [block["type"] for block in made.body["messages"][0]["content"]]
    if param is None:  # a string is text
        assert kinds == ["text", "text", "image"]
        return
    assert kinds == ["text", "image"]
    path = ".".join(filter(None, ("messages[0].content[1]", param)))
    assert [(note.code, note.param) for note in made.notes] == [("history_mended", path)]
    for strict, later in ((True, [assistant("I see."), user("?")]), (False, [])):
        with pytest.raises(UntranslatableRequest) as caught:
            translated(earlier, *later, strict=strict)
        assert caught.value.param == path


def test_what_the_client_says_now_is_refused_as_ever() -> None:
    for now in (
        user([{"type": "video_url"}]),
        tool([{"type": "video_url"}]),
        user(5),
        {"role": "tool", "content": "x"},
    ):
        with pytest.raises(UntranslatableRequest) as caught:
            translated(user(), assistant(None, call()), now)
        assert caught.value.param.startswith("messages[2].")  # type: ignore[union-attr]


def test_a_message_of_the_user_that_is_left_with_nothing_keeps_its_turn() -> None:
    made = translated(user("a"), assistant("b"), user([{"type": "video_url"}]), assistant("c"), user("d"))
    assert made.body["messages"][2]["content"] == [text("(empty message)")]
    assert made.reply.warnings == ("history_mended",)


@pytest.mark.parametrize(("content", "shown"), [({"temperature": 3}, '{"temperature":3}'), (5, "5"), (True, "true")])
def test_a_result_that_is_json_is_its_text(content: Any, shown: str) -> None:
    made = translated(user(), assistant(None, call()), tool(content))
    assert made.body["messages"][2]["content"][0]["content"] == shown
    assert made.reply.warnings == ()


def test_a_result_beside_a_faulty_part_is_kept() -> None:
    beside = user(
        [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "kept"}, {"type": "video", "id": "toolu_1"}]
    )
    made = translated(user(), assistant(None, call()), beside, assistant("b"), user("c"))
    assert made.body["messages"][2]["content"][0]["content"] == "kept"


def test_a_call_that_is_told_differently_is_what_tool_calls_says() -> None:
    """Where somebody corrects a call, it is there."""
    native = {"type": "tool_use", "id": "toolu_1", "name": "find", "input": {"amount": 1000}}
    corrected = {**call(), "function": {"name": "find", "arguments": '{"amount": 1}'}}
    told = {"role": "assistant", "content": [native], "tool_calls": [corrected]}
    made = translated(user(), told, tool("ok"))
    assert made.body["messages"][1]["content"][0]["input"] == {"amount": 1}
    assert made.reply.warnings == ("history_mended",)
    with pytest.raises(UntranslatableRequest, match="tell one call differently"):
        translated(user(), told, tool("ok"), strict=True)


@pytest.mark.parametrize(
    "arguments", ['{"a": 1e400}', '{"a": -1e999, "b": 123456789012345678901234}', '{"a": [1e400]}']
)
def test_a_number_that_is_too_large_makes_no_null_of_itself(arguments: str) -> None:
    made = translated(
        user(), assistant(None, {**call(), "function": {"name": "find", "arguments": arguments}}), tool("ok")
    )
    assert made.body["messages"][1]["content"][0]["input"] == {"_raw": arguments}
    assert made.reply.warnings == ("bad_tool_arguments",)


@pytest.mark.parametrize(
    "faulty",
    [
        {"type": "text", "text": "x", "cache_control": {"type": "eternal"}},
        {"type": "image", "source": {}},
    ],
)
def test_a_fault_of_an_earlier_part_is_forgiven(faulty: Any) -> None:
    made = translated(user([text("a"), faulty]), assistant("b"), user("c"))
    assert made.reply.warnings == ("history_mended",)
    with pytest.raises(UntranslatableRequest):
        translated(user([text("a"), faulty]))


def test_a_call_in_both_older_forms_is_one_call() -> None:
    function = {"name": "find", "arguments": "{}"}
    both = {
        "role": "assistant",
        "content": None,
        "function_call": function,
        "tool_calls": [{**call(), "function": function}],
    }
    made = translated(user(), both, tool("ok"))
    assert len(made.body["messages"][1]["content"]) == 1
    assert made.reply.warnings == ()


@pytest.mark.parametrize("content", [[{"type": "resource_link", "uri": "x"}], [None]])
def test_an_earlier_result_that_claude_does_not_take_is_empty(content: Any) -> None:
    made = translated(user(), assistant(None, call()), tool(content), assistant("b"), user("c"))
    assert made.body["messages"][2]["content"] == [{"type": "tool_result", "tool_use_id": "toolu_1"}]
    assert made.reply.warnings == ("history_mended",)


@pytest.mark.parametrize("missing", [{}, {"tool_call_id": None}, {"tool_call_id": 7}, {"tool_name": "find"}])
def test_earlier_results_without_an_id_answer_the_calls_in_their_order(missing: Any) -> None:
    made = translated(
        user(),
        assistant(None, call(), call(id="toolu_2"), call(id="toolu_3")),
        {"role": "tool", "content": "one", **missing},
        tool("two", id="toolu_2"),
        {"role": "tool", "content": "three", **missing},
        {"role": "tool", "content": "four", **missing},
        assistant("b"),
        user("c"),
    )
    results = made.body["messages"][2]["content"]
    assert [block.get("content", block.get("text")) for block in results] == [
        *("one", "two", "three", "<tool_result>", "four", "</tool_result>")
    ]
    assert made.reply.warnings == ("history_mended", "orphan_tool_result")


def test_an_earlier_system_message_is_history_but_the_first_is_not() -> None:
    odd = {"role": "system", "content": [text("s"), PICTURE]}
    made = translated(user("a"), assistant("b"), odd, user("c"), assistant("d"), user("e"))
    assert made.reply.warnings == ("history_mended",)
    with pytest.raises(UntranslatableRequest):  # the instructions are the request's own
        translated(odd, user("a"), assistant("b"), user("c"))


def test_a_message_that_is_none_is_refused_wherever_it_stands() -> None:
    """It is no content that a user once sent, but a fault of the client's, which is to be found."""
    for odd in ("hi", {"content": "x"}, {"role": "robot", "content": "x"}):
        with pytest.raises(UntranslatableRequest):
            translated(user(), odd, assistant("b"), user("c"))


def test_a_mended_history_stays_the_same_while_the_conversation_grows() -> None:
    start = [user([text("a"), {"type": "video_url"}]), assistant([UNSIGNED, text("b")]), user("c")]
    before = translated(*start).body["messages"]
    after = translated(*start, assistant("d"), user("e")).body["messages"]
    assert after[: len(before)] == before

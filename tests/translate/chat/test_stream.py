"""Streams and whole answers: what the client reads of what Claude wrote."""

from __future__ import annotations

from typing import Any

import pytest

from app.translate.accumulate import MessageAccumulator
from app.translate.chat.response import to_chat_completion
from app.translate.chat.stream import StreamTranslator
from app.translate.translation import ReplyContext

START = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-opus-5-5",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "cache_read_input_tokens": 900, "cache_creation_input_tokens": 90,
                  "output_tokens": 2, "service_tier": "standard"},
    },
}  # fmt: skip
STOP = {"type": "message_stop"}


def block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text(index: int, *pieces: str) -> list[dict[str, Any]]:
    return block(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": p} for p in pieces))


def thinking(index: int, *pieces: str) -> list[dict[str, Any]]:
    deltas = [{"type": "thinking_delta", "thinking": p} for p in pieces]
    start = {"type": "thinking", "thinking": "", "signature": ""}
    return block(index, start, *deltas, {"type": "signature_delta", "signature": "c2ln"})


def tool(index: int, id: str, *pieces: str, name: str = "f", **start: Any) -> list[dict[str, Any]]:
    deltas = [{"type": "input_json_delta", "partial_json": p} for p in pieces]
    return block(index, {"type": "tool_use", "id": id, "name": name, "input": {}, **start}, *deltas)


def ending(stop_reason: str, output_tokens: int = 20, **more: Any) -> list[dict[str, Any]]:
    usage = {"output_tokens": output_tokens, "input_tokens": None}
    return [{"type": "message_delta", "delta": {"stop_reason": stop_reason, **more}, "usage": usage}, STOP]


def stream(*events: dict[str, Any], **context: Any) -> list[dict[str, Any]]:
    translator = StreamTranslator(ReplyContext(**context), created=1)
    return [chunk for event in events for chunk in translator.feed(event)]


def deltas(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [c["choices"][0]["delta"] for c in chunks if c["choices"]]


def whole(*events: dict[str, Any], **context: Any) -> dict[str, Any]:
    accumulator = MessageAccumulator()
    for event in events:
        accumulator.feed(event)
    assert accumulator.is_complete
    return to_chat_completion([accumulator.message], ReplyContext(**context), created=1)


def test_text_is_streamed_piece_by_piece() -> None:
    chunks = stream(START, *text(0, "Hel", "", "lo"), *ending("end_turn"))
    assert deltas(chunks) == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None, None, None, "stop"]
    assert {c["id"] for c in chunks} == {"msg_1"}
    assert chunks[0]["service_tier"] == "default"
    assert not any("usage" in c for c in chunks)


def test_usage_comes_once_in_a_last_chunk_without_choices() -> None:
    chunks = stream(START, *text(0, "a"), *ending("end_turn"), include_usage=True)
    assert [c["usage"] for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["prompt_tokens"] == 1000
    assert chunks[-1]["usage"]["prompt_tokens_details"]["cached_tokens"] == 900
    assert chunks[-1]["usage"]["completion_tokens"] == 20
    assert chunks[-1]["usage"]["total_tokens"] == 1020


def test_tool_calls_are_numbered_apart_from_text_blocks() -> None:
    chunks = stream(
        START, *text(0, "let me"), *tool(1, "toolu_1", "", '{"a"', ": 1.0}"), *tool(2, "toolu_2"), *ending("tool_use")
    )
    calls = [call for d in deltas(chunks) for call in d.get("tool_calls", [])]
    assert calls == [
        {"index": 0, "id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a"'}},
        {"index": 0, "function": {"arguments": ": 1.0}"}},
        {"index": 1, "id": "toolu_2", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 1, "function": {"arguments": "{}"}},
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_arguments_that_come_whole_in_the_start_are_sent_at_its_end() -> None:
    chunks = stream(START, *tool(0, "toolu_1", input={"a": 1}), *ending("tool_use"))
    assert deltas(chunks)[2] == {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":1}'}}]}


def test_a_message_that_is_whole_in_its_first_event_is_sent_whole() -> None:
    content = [{"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}]
    start = {"type": "message_start", "message": {**START["message"], "content": content, "stop_reason": "tool_use"}}  # type: ignore[dict-item]
    chunks = stream(start, STOP)
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert deltas(chunks)[2]["tool_calls"][0]["function"]["arguments"] == '{"a":1}'


def test_names_are_mapped_back() -> None:
    events = [START, *tool(0, "toolu_1", name="a_b_1"), *ending("tool_use")]
    names = {"a_b_1": "a.b"}
    assert deltas(stream(*events, tool_names=names))[1]["tool_calls"][0]["function"]["name"] == "a.b"
    call = whole(*events, tool_names=names)["choices"][0]["message"]["tool_calls"][0]
    assert call["function"] == {"name": "a.b", "arguments": "{}"}


def test_thinking_is_shown_as_reasoning_and_separate_blocks_apart() -> None:
    events = [START, *thinking(0, "Hm", "m."), *thinking(1, "Yes."), *text(2, "42"), *ending("end_turn")]
    assert [d["reasoning_content"] for d in deltas(stream(*events)) if "reasoning_content" in d] == [
        "Hm",
        "m.",
        "\n\nYes.",
    ]
    assert whole(*events)["choices"][0]["message"]["reasoning_content"] == "Hmm.\n\nYes."
    hidden = whole(*events, exposes_reasoning=False)["choices"][0]["message"]
    assert "reasoning_content" not in hidden
    assert not any("reasoning_content" in d for d in deltas(stream(*events, exposes_reasoning=False)))


def test_server_tools_are_no_tool_calls() -> None:
    server = block(
        0,
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
        {"type": "input_json_delta", "partial_json": '{"query": "x"}'},
    )
    result = block(1, {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []})
    events = [START, *server, *result, *text(2, "found"), *tool(3, "toolu_1"), *ending("tool_use")]
    calls = [call for d in deltas(stream(*events)) for call in d.get("tool_calls", [])]
    assert [c["index"] for c in calls] == [0, 0]
    assert len(whole(*events)["choices"][0]["message"]["tool_calls"]) == 1


def test_what_anthropic_adds_later_is_skipped() -> None:
    odd: list[dict[str, Any]] = [
        {"type": "hologram_start", "x": 1},
        *block(0, {"type": "hologram", "data": "?"}, {"type": "hologram_delta", "data": "?"}),
        {"type": "content_block_delta", "index": 9, "delta": {"type": "input_json_delta", "partial_json": "{"}},
        {"type": "content_block_stop", "index": 9},
    ]
    assert deltas(stream(START, *odd, *text(1, "ok"), *ending("end_turn")))[1:] == [{"content": "ok"}, {}]
    assert whole(START, *odd, *text(1, "ok"), *ending("end_turn"))["choices"][0]["message"]["content"] == "ok"


def test_arguments_cut_by_the_limit_stay_as_they_are_and_end_by_length() -> None:
    events = [START, *tool(0, "toolu_1", '{"city": "Par'), *ending("max_tokens")]
    choice = whole(*events)["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"city": "Par'
    assert stream(*events)[-1]["choices"][0]["finish_reason"] == "length"


def test_a_refusal_is_a_content_filter_with_its_explanation() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "No."}
    events = [START, *text(0, "Well, "), *ending("refusal", stop_details=details)]
    choice = whole(*events)["choices"][0]
    assert choice["finish_reason"] == "content_filter"
    assert choice["message"]["content"] == "Well, "
    assert choice["message"]["refusal"] == "No."
    assert choice["stop_details"] == details
    chunks = stream(*events)
    assert deltas(chunks)[-2:] == [{"refusal": "No."}, {}]
    assert chunks[-1]["choices"][0]["finish_reason"] == "content_filter"


REFUSED = ending("refusal", stop_details={"type": "refusal", "category": None, "explanation": "No."})


@pytest.mark.parametrize(
    ("said", "fields", "content", "shown"),
    [
        ([], {}, "No.", "No."),
        (text(0, ""), {}, "No.", "No."),
        (text(0, " \n"), {}, " \nNo.", " \nNo."),
        (text(0, "Well, "), {}, "Well, ", "Well, "),
        (thinking(0, "Hm."), {}, "No.", "No."),
        (thinking(0, "Hm."), {"exposes_reasoning": False}, "No.", "No."),
        (tool(0, "toolu_1", "{}"), {}, None, ""),
        (tool(0, "toolu_1", "{}"), {"calls_functions": True}, None, ""),
        ([*text(0, "Well, "), *tool(1, "toolu_1", "{}")], {}, "Well, ", "Well, "),
        ([], {"refusal_finish": "stop"}, "No.", "No."),
        (text(0, "Sorry"), {"strips_json": True}, "Sorry", "Sorry"),
        (text(0, "\n\n"), {"stops": ("END",)}, "\n\nNo.", "\n\nNo."),
        ([], {"text_is_call_of": "f"}, "No.", "No."),
        (text(0, '{"a"'), {"text_is_call_of": "f"}, "No.", ""),
        (text(0, "Well, "), {"call_is_text_of": "json_answer"}, "Well, ", "Well, "),
        ([], {"refusal_text": "refusal"}, None, ""),
        (text(0, "Well, "), {"refusal_text": "refusal"}, None, "Well, "),
    ],
)
def test_a_refusal_is_read_by_clients_that_know_content_alone(
    said: list[Any], fields: dict[str, Any], content: str | None, shown: str
) -> None:
    message = whole(START, *said, *REFUSED, **fields)["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == (content, "No.")
    made = deltas(stream(START, *said, *REFUSED, **fields))
    assert "".join(delta.get("content") or "" for delta in made) == shown
    assert [delta["refusal"] for delta in made if delta.get("refusal")] == ["No."]
    if shown.endswith("No."):
        assert made[-3:] == [{"content": "No."}, {"refusal": "No."}, {}]


def test_an_answer_that_is_no_refusal_says_nothing_of_one() -> None:
    for said, content in (([], ""), (text(0, "Hello"), "Hello")):
        message = whole(START, *said, *ending("end_turn"))["choices"][0]["message"]
        assert (message["content"], message["refusal"]) == (content, None)


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("something_new", "stop"),
    ],
)
def test_the_reason_of_the_end_is_told_in_both_tongues(stop_reason: str, finish_reason: str) -> None:
    choice = stream(START, *ending(stop_reason, stop_sequence="END"))[-1]["choices"][0]
    assert (choice["finish_reason"], choice["native_finish_reason"]) == (finish_reason, stop_reason)
    assert choice["stop_reason"] == "END"


def test_an_answer_without_content_is_an_empty_string() -> None:
    message = whole(START, *ending("end_turn"))["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == ("", None)
    message = whole(START, *tool(0, "t"), *ending("tool_use"))["choices"][0]["message"]
    assert message["content"] is None


@pytest.mark.parametrize("pieces", [("one\n", "\ntwo"), ("one\n\ntwo",), tuple("one\n\ntwo"), ("one", "\n\n")])
def test_a_stop_string_that_claude_refuses_is_met_here(pieces: tuple[str, ...]) -> None:
    translator = StreamTranslator(ReplyContext(stops=("\n\n", "\n \n")), created=1)
    chunks = [c for e in [START, *text(0, *pieces), *ending("end_turn")] for c in translator.feed(e)]
    assert "".join(d.get("content", "") for d in deltas(chunks)) == "one"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"][0]["stop_reason"] == "\n\n"
    assert translator.is_complete
    message = whole(START, *text(0, *pieces), *ending("end_turn"), stops=("\n\n", "\n \n"))
    assert message["choices"][0]["message"]["content"] == "one"


def test_text_held_back_for_a_stop_string_is_released_in_the_end() -> None:
    chunks = stream(START, *text(0, "one\n"), *tool(1, "t"), *text(2, "two \n"), *ending("end_turn"), stops=("\n\n",))
    assert [d["content"] for d in deltas(chunks) if "content" in d] == ["", "one", "\n", "two ", "\n"]


def test_a_stream_cut_anywhere_is_never_called_complete() -> None:
    events = [START, *thinking(0, "Hm"), *text(1, "a", "b"), *tool(2, "t", '{"a":1}'), *ending("tool_use")]
    for cut in range(len(events)):
        translator = StreamTranslator(ReplyContext(include_usage=True), created=1)
        chunks = [c for e in events[:cut] for c in translator.feed(e)]
        assert not translator.is_complete
        assert all(choice["finish_reason"] is None for c in chunks for choice in c["choices"])
        accumulator = MessageAccumulator()
        for event in events[:cut]:
            accumulator.feed(event)
        assert not accumulator.is_complete


@pytest.mark.parametrize(
    ("blocks", "stops", "shown", "calls"),
    [
        ([*text(0, "one\n"), *text(1, "\ntwo")], ("\n\n",), "one", 0),
        ([*text(0, "a\n \nb")], ("\n \n", " "), "a\n", 0),
        ([*text(0, "a"), *tool(1, "t"), *text(2, "b\n\nc"), *tool(3, "u")], ("\n\n",), "ab", 1),
        ([*text(0, "a\n"), *tool(1, "t"), *text(2, "\nb")], ("\n\n",), "a\n\nb", 1),
    ],
)
def test_stops_met_by_the_gateway_are_the_same_streamed_and_whole(
    blocks: list[dict[str, Any]], stops: tuple[str, ...], shown: str, calls: int
) -> None:
    chunks = stream(START, *blocks, *ending("end_turn"), stops=stops)
    message = whole(START, *blocks, *ending("end_turn"), stops=stops)["choices"][0]["message"]
    assert "".join(d.get("content", "") for d in deltas(chunks)) == shown
    assert (message["content"] or "") == shown
    assert sum("id" in call for d in deltas(chunks) for call in d.get("tool_calls", ())) == calls
    assert len(message.get("tool_calls", ())) == calls


JSON_ANSWERS = [
    ('{"a": 1}', '{"a": 1}'),
    ('Here you are:\n```json\n{"a": "}\\"{"}\n```\nAnything else?', '{"a": "}\\"{"}'),
    ('```\n{"a": {"b": [1, {"c": "\\\\"}]}}```', '{"a": {"b": [1, {"c": "\\\\"}]}}'),
    ("I cannot.", "I cannot."),
    ('{"a": "cut', '{"a": "cut'),
]


@pytest.mark.parametrize(("written", "shown"), JSON_ANSWERS)
def test_prose_around_json_is_left_out_whatever_the_pieces(written: str, shown: str) -> None:
    for pieces in [(written,), tuple(written), *((written[:i], written[i:]) for i in range(1, len(written)))]:
        events = [START, *text(0, *pieces), *ending("end_turn")]
        chunks = stream(*events, strips_json=True)
        assert "".join(d.get("content", "") for d in deltas(chunks)) == shown
        assert whole(*events, strips_json=True)["choices"][0]["message"]["content"] == shown


@pytest.mark.parametrize("value", ['[1, {"result": "}"}]', '"te\\"xt"', "42", "null"])
def test_a_wrapped_value_is_unwrapped_whatever_the_pieces(value: str) -> None:
    written = f'{{"result":{value}}}'
    for pieces in [(written,), tuple(written), *((written[:i], written[i:]) for i in range(1, len(written)))]:
        chunks = stream(START, *text(0, *pieces), *ending("end_turn"), unwraps_json=True)
        assert "".join(d.get("content", "") for d in deltas(chunks)) == value


def test_text_that_stands_for_a_call_is_given_as_one() -> None:
    events = [START, *thinking(0, "Hm."), *text(1, '{"city":', ' "Paris"}'), *ending("end_turn")]
    context = {"text_is_call_of": "get_weather_1", "tool_names": {"get_weather_1": "get.weather"}}
    chunks = stream(*events, **context)
    calls = [call for d in deltas(chunks) for call in d.get("tool_calls", [])]
    assert calls[0] == {
        "index": 0,
        "id": "toolu_gw_1",
        "type": "function",
        "function": {"name": "get.weather", "arguments": ""},
    }
    assert "".join(c["function"]["arguments"] for c in calls) == '{"city": "Paris"}'
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert not any(d.get("content") for d in deltas(chunks))
    choice = whole(*events, **context)["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "get.weather", "arguments": '{"city": "Paris"}'}
    cut = whole(START, *text(0, '{"ci'), *ending("max_tokens"), **context)["choices"][0]
    assert cut["finish_reason"] == "length"


def test_calls_are_given_as_function_call_to_those_who_sent_functions() -> None:
    events = [START, *tool(0, "toolu_1", '{"a":', "1}"), *ending("tool_use")]
    chunks = stream(*events, calls_functions=True)
    assert [d["function_call"] for d in deltas(chunks) if "function_call" in d] == [
        {"name": "f", "arguments": ""},
        {"arguments": '{"a":'},
        {"arguments": "1}"},
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "function_call"
    choice = whole(*events, calls_functions=True)["choices"][0]
    assert choice["message"]["function_call"] == {"name": "f", "arguments": '{"a":1}'}
    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "function_call"


def test_a_stop_string_in_prose_that_stands_for_the_answer_ends_it_once() -> None:
    context = ReplyContext(call_is_text_of="json_answer", stops=("\n\n",))
    translator = StreamTranslator(context, created=0)
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "m", "model": "m", "content": [], "usage": {}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "a\n\nb"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}},
        {"type": "message_stop"},
    ]
    chunks = [chunk for event in events for chunk in translator.feed(event)]
    said = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert said == "a"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks].count("stop") == 1

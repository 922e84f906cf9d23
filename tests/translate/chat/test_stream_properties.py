"""Whatever Claude writes, a client that streams gets what one gets that does not."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.translate.accumulate import MessageAccumulator
from app.translate.chat.response import to_chat_completion
from app.translate.chat.stream import StreamTranslator
from app.translate.translation import ReplyContext

thorough = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])

piece = st.sampled_from(
    ["", " ", "\n", "\n\n", "Hello", 'Use {x}: {"a"', ": 1}", '{"result": ', "[1]", "}", '"', "\\", "END", "é😀", "{ }"]
)
citation = st.sampled_from(
    [
        {"type": "web_search_result_location", "url": "https://a.example/", "title": "A", "cited_text": "x"},
        {"type": "char_location", "document_index": 0, "document_title": "D", "cited_text": "y"},
        {"type": "hologram_location"},
    ]
)
text_block = st.builds(
    lambda pieces, citations: ("text", pieces, citations), st.lists(piece, max_size=5), st.lists(citation, max_size=2)
)
thinking_block: st.SearchStrategy[Any] = st.builds(lambda pieces: ("thinking", pieces, []), st.lists(piece, max_size=3))
tool_block = st.builds(
    lambda name, pieces: ("tool_use", pieces, [name]),
    st.sampled_from(["f", "g_1", "json_answer"]),
    st.sampled_from([[], ["", '{"a"', ": 1}"], ['{"result": [1]}'], ['{"a": "cu'], ['{"input": "ls"}']]),
)
other_block = st.sampled_from(
    [
        ("redacted_thinking", [], []),
        ("server_tool_use", ['{"query": "x"}'], ["web_search"]),
        ("web_search_tool_result", [], []),
        ("hologram", [], []),
    ]
)
contexts = st.sampled_from(
    [
        {},
        {"stops": ("\n\n", " ")},
        {"strips_json": True},
        {"unwraps_json": True},
        {"strips_json": True, "stops": ("\n\n",)},
        {"text_is_call_of": "f"},
        {"call_is_text_of": "json_answer"},
        {"call_is_text_of": "json_answer", "unwraps_json": True},
        {"calls_functions": True},
        {"tool_names": {"g_1": "g.1"}, "cites_documents": True},
        {"exposes_reasoning": False, "refusal_finish": "stop"},
        {"refusal_text": "refusal"},
    ]
)


def events_of(blocks: list[Any], stop_reason: str) -> list[dict[str, Any]]:
    message = {"id": "msg_1", "model": "m", "content": [], "usage": {"input_tokens": 3, "output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": message}]
    for index, (kind, pieces, more) in enumerate(blocks):
        start: dict[str, Any] = {"type": kind}
        deltas: list[dict[str, Any]] = []
        match kind:
            case "text":
                start["text"] = ""
                deltas = [{"type": "citations_delta", "citation": c} for c in more]
                deltas += [{"type": "text_delta", "text": p} for p in pieces]
            case "thinking":
                start.update(thinking="", signature="")
                deltas = [{"type": "thinking_delta", "thinking": p} for p in pieces]
                deltas.append({"type": "signature_delta", "signature": f"sig{index}"})
            case "tool_use" | "server_tool_use":
                start.update(id=f"toolu_{index}", name=more[0], input={})
                deltas = [{"type": "input_json_delta", "partial_json": p} for p in pieces]
            case "redacted_thinking":
                start["data"] = "d"
            case "web_search_tool_result":
                start.update(tool_use_id="s", content={"type": "web_search_tool_result_error", "error_code": "e"})
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events += [{"type": "content_block_delta", "index": index, "delta": d} for d in deltas]
        events.append({"type": "content_block_stop", "index": index})
    ending = {"stop_reason": stop_reason, "stop_sequence": None}
    return [
        *events,
        {"type": "message_delta", "delta": ending, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ]


def added_up(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """What a client that knows only chunks makes of them."""
    message: dict[str, Any] = {}
    calls: dict[int, dict[str, Any]] = {}
    finish: Any = None
    for chunk in chunks:
        for choice in chunk["choices"]:
            delta = choice["delta"]
            for name in ("content", "reasoning_content", "refusal"):
                message[name] = message.get(name, "") + (delta.get(name) or "")
            for name in ("reasoning_details", "annotations"):
                for entry in delta.get(name, ()):
                    assert entry["index"] == len(message.setdefault(name, []))
                    message[name].append(entry)
            for call in delta.get("tool_calls", ()):
                made = calls.setdefault(call["index"], {"id": call.get("id"), "name": "", "arguments": ""})
                for name, part in call["function"].items():
                    made[name] += part
            for name, part in delta.get("function_call", {}).items():
                message[f"function_{name}"] = message.get(f"function_{name}", "") + part
            finish = choice["finish_reason"] or finish
    for entry in message.get("annotations", ()):
        del entry["index"]
    late = set((chunks[-1].get("gateway") or {}).get("warnings", ())) - {"usage_estimated"}
    return {**message, "calls": [calls[i] for i in sorted(calls)], "finish": finish, "late": late}


def of_whole(completion: dict[str, Any]) -> dict[str, Any]:
    choice = completion["choices"][0]
    message = choice["message"]
    made = {name: message.get(name) or "" for name in ("content", "reasoning_content", "refusal")}
    made |= {name: message[name] for name in ("reasoning_details", "annotations") if name in message}
    if "function_call" in message:
        made |= {f"function_{name}": part for name, part in message["function_call"].items()}
    calls = [{"id": call["id"], **call["function"]} for call in message.get("tool_calls", ())]
    late = set((completion.get("gateway") or {}).get("warnings", ()))
    return {**made, "calls": calls, "finish": choice["finish_reason"], "late": late}


@thorough
@given(
    st.lists(st.one_of(text_block, text_block, thinking_block, tool_block, other_block), max_size=5),
    st.sampled_from(
        ["end_turn", "tool_use", "max_tokens", "stop_sequence", "refusal", "model_context_window_exceeded", "new"]
    ),
    contexts,
)
def test_a_streamed_and_a_whole_answer_are_the_same(blocks: Any, stop_reason: str, context: dict[str, Any]) -> None:
    if "text_is_call_of" in context:  # tools were forbidden
        blocks = [block for block in blocks if block[0] != "tool_use"]
    reply = ReplyContext(**context)
    translator = StreamTranslator(reply, created=1)
    accumulator = MessageAccumulator()
    chunks = []
    for event in events_of(blocks, stop_reason):
        chunks += translator.feed(orjson.loads(orjson.dumps(event)))
        accumulator.feed(event)
    assert translator.is_complete
    streamed = added_up(chunks)
    whole = of_whole(to_chat_completion([accumulator.message], reply, created=1))
    if streamed["refusal"] and (reply.refusal_text == "refusal" or reply.text_is_call_of):
        # What was sent before a refusal is to be discarded, as arguments that were cut short are; it is left out.
        for name in ("content", "calls", "annotations"):
            streamed.pop(name, None)
            whole.pop(name, None)
    assert streamed == whole

"""What is answered: a scenario per `sim-…` name, and an answer by content for the real Claude ids.

Pure: a scenario takes an `Ask` and returns a `Reply` (events, pace, how it ends), or raises a Refusal.

    sim-text                  the scenario
    sim-cut-3                 with its number
    sim-text:tokens=200,gap_ms=10,ttft_ms=50      with parameters; the headers x-sim-tokens, x-sim-gap-ms … do the same
    sim-text:crlf=1         CR LF at the ends of lines; tight=1: no blank behind `event:` and `data:`
    sim-text:tokens=2,gap_ms=35000,ping_ms=10000  pings while the next word is waited for
    sim-text:gzip=1         compressed, whatever was asked for; of a stream each event by itself

Further scenarios are in `iterations` and `oddities`.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import orjson

from app.simulator import agent, iterations, oddities  # noqa: F401  # which name their scenarios
from app.simulator.events import (
    PING,
    Block,
    Event,
    block_delta,
    block_start,
    block_stop,
    message_end,
    message_start,
    words,
)
from app.simulator.generate import instance
from app.simulator.http import reason
from app.simulator.refusal import Refusal
from app.simulator.reply import (
    SCENARIOS,
    Ask,
    Ending,
    Reply,
    Scenario,
    end_usage,
    is_token,
    message,
    numbered,
    paced,
    say,
    scenario,
    start_usage,
    text,
)
from app.simulator.signatures import Binding, prefix_digest, redacted_data, sign
from app.simulator.tasks import answer_to_task

CLAUDE_GAP_MS = 15
DEMAND = re.compile(r"\bcall(ing)?\b|\btools?\b")
SHORT = 200
"""Most characters of somebody's text that an answer quotes."""


def find(model_name: str) -> tuple[Scenario, int | None, dict[str, int]] | None:
    """The scenario, number and parameters that a `sim-…` model name stands for."""
    name, _, parameters = model_name.partition(":")
    try:
        params = {key: int(value) for key, value in (pair.split("=") for pair in parameters.split(",") if pair)}
    except ValueError:
        return None
    if found := SCENARIOS.get(name):
        return found, None, params
    if (match := re.fullmatch(r"(.+)-(\d+)", name)) and (found := SCENARIOS.get(match[1])):
        return found, int(match[2]), params
    return None


def answer(ask: Ask) -> Reply:
    """What the scenario says, or an answer by content where none was asked for."""
    reply = (ask.scenario or by_content)(ask)
    reply.crlf |= bool(ask.param("crlf", 0))
    reply.tight |= bool(ask.param("tight", 0))
    reply.gzip |= bool(ask.param("gzip", 0))
    reply.ping_ms = ask.param("ping_ms", 0) or reply.ping_ms
    return reply


def tool_use(ask: Ask, tool: dict[str, Any], place: int = 0) -> Block:
    """A call of one of the client's tools with arguments made from its schema."""
    return {
        "type": "tool_use",
        "id": ask.made_up_id("toolu_01", place),
        "name": tool["name"],
        "input": instance(tool.get("input_schema") or {}, last_user_text(ask.body)) or {},
        "caller": {"type": "direct"},
    }


# ----------------------------------------------------------------------------------------------- reading the request


def turns_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages with neighbours of one role merged and strings made blocks, as the API sees them."""
    turns: list[dict[str, Any]] = []
    for entry in body["messages"]:
        blocks = blocks_of(entry["content"])
        if turns and turns[-1]["role"] == entry["role"]:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": entry["role"], "content": blocks})
    return turns


def blocks_of(content: Any) -> list[Block]:
    return [text(content)] if isinstance(content, str) else list(content)


def last_user_turn(body: dict[str, Any]) -> list[Block]:
    return next((turn["content"] for turn in reversed(turns_of(body)) if turn["role"] == "user"), [])


def last_user_text(body: dict[str, Any]) -> str:
    """The last text a user wrote."""
    for turn in reversed(turns_of(body)):
        texts = [block["text"] for block in turn["content"] if block["type"] == "text"]
        if turn["role"] == "user" and texts:
            return str(texts[-1])
    return ""


def tool_results(body: dict[str, Any]) -> list[Block]:
    return [block for block in last_user_turn(body) if block["type"] == "tool_result"]


def client_tools(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Tools that the client runs, unless it forbade them."""
    if (body.get("tool_choice") or {}).get("type") == "none":
        return []
    return [tool for tool in body.get("tools") or () if tool.get("type") in (None, "custom")]


def is_continued(body: dict[str, Any]) -> bool:
    """Whether the last turn is the assistant's: a prefill, or a pause that is being continued."""
    return bool(body["messages"][-1]["role"] == "assistant")


def short(value: str) -> str:
    return value if len(value) <= SHORT else value[:SHORT] + "…"


def describe_results(body: dict[str, Any]) -> str:
    names = {
        block["id"]: block["name"]
        for turn in turns_of(body)
        for block in turn["content"]
        if block["type"] in ("tool_use", "mcp_tool_use")
    }
    parts = []
    for result in tool_results(body):
        said = " ".join(_shown(part) for part in blocks_of(result.get("content") or "")) or "nothing"
        verb = "failed with" if result.get("is_error") else "answered"
        parts.append(f"{names.get(result['tool_use_id'], 'The tool')} {verb}: {short(said)}")
    return " ".join(parts)


def _shown(part: Block) -> str:
    return str(part["text"]) if part["type"] == "text" else f"[{part['type']}]"


# ---------------------------------------------------------------------------------------------------------- thinking


def display(ask: Ask) -> str | None:
    """How thinking is shown ("summarized", "omitted"), or None when the model does not think."""
    asked = ask.body.get("thinking") or {}
    if not asked and ask.model.thinking_default == "off":
        return None
    if asked.get("type") in ("disabled", "between_tools"):
        return None
    return asked.get("display") or ask.model.display_default


def binding(ask: Ask) -> Binding:
    """What thinking of this answer is signed for."""
    turns = turns_of(ask.body)
    if is_continued(ask.body):
        turns = turns[:-1]
    prefix = prefix_digest(ask.body, turns) if ask.model.bound_thinking else ""
    account = ask.account if ask.model.account_bound_thinking else ""
    return Binding(ask.model.family, prefix, account)


def thought(ask: Ask, how: str | None) -> list[Block]:
    """A signed thinking block as the model would show it, none when it does not think."""
    said = f"The user says: {short(last_user_text(ask.body))} I should answer that briefly and to the point."
    return reflected(ask, said, how)


def reflected(ask: Ask, said: str, how: str | None) -> list[Block]:
    """The same with words of the caller's."""
    if how is None:
        return []
    pieces = words(said)[: ask.body["max_tokens"]]
    shown = "" if how == "omitted" else "".join(pieces)
    hidden = len(pieces) if how == "omitted" else 0
    block = {"type": "thinking", "thinking": shown, "signature": sign(shown, binding(ask)), "_hidden_tokens": hidden}
    return [block]


# ------------------------------------------------------------------------------------------------ answers by content


def by_content(ask: Ask) -> Reply:
    """What a Claude model answers here: a tool call if one is wanted, else text that shows what was understood."""
    gap_ms = CLAUDE_GAP_MS
    thinking = thought(ask, display(ask))
    if not tool_results(ask.body):
        if agent.MARK in last_user_text(ask.body):
            return as_agent(ask, thinking)
        if wanted := wanted_tool(ask):
            return paced(ask, message(ask, [*thinking, tool_use(ask, wanted)], "tool_use"), gap_ms=gap_ms)
        if wants_search(ask):
            return paced(ask, message(ask, [*thinking, *searched(ask)], "end_turn", **SEARCHED), gap_ms=gap_ms)
    return paced(ask, message(ask, [*thinking, text(_paragraph(ask))], "end_turn"), gap_ms=gap_ms)


def _paragraph(ask: Ask) -> str:
    output = (ask.body.get("output_config") or {}).get("format") or ask.body.get("output_format")
    if output:
        return orjson.dumps(instance(output["schema"], last_user_text(ask.body))).decode()
    if (task := answer_to_task(last_user_text(ask.body))) is not None:
        return task
    if wanted := asked_in_words(ask.body):
        return orjson.dumps(instance(wanted, last_user_text(ask.body))).decode()
    if tool_results(ask.body):
        return f"Here is what I found. {describe_results(ask.body)} Tell me if you want me to look at anything else."
    if attachments(last_user_turn(ask.body)):
        return f"Thank you. {describe_attachments(ask)} I am only a simulator, so I cannot tell you more about it."
    said = short(last_user_text(ask.body)) or "nothing in words"
    return (
        f"You said: “{said}” I am a simulator that stands in for {ask.model.display_name}, so this is not a real "
        "answer, but it arrives the way a real one would: piece by piece, with a short pause between the pieces, "
        "and with honest token counts at the end. How may I help you further?"
    )


ANY_OBJECT = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}


def asked_in_words(body: dict[str, Any]) -> dict[str, Any] | None:
    """The schema of the JSON that the last instruction asks for, if it asks for any."""
    system = body.get("system")
    said = str(system[-1]["text"]) if isinstance(system, list) and system else str(system or "")
    if "JSON Schema" in said:
        with contextlib.suppress(ValueError):
            schema = orjson.loads(said[said.index("{") :])
            return schema if isinstance(schema, dict) else None
    return ANY_OBJECT if "JSON object" in said else None


def wanted_tool(ask: Ask) -> dict[str, Any] | None:
    """The tool that the request forces, or that the last message seems to ask for."""
    tools = client_tools(ask.body)
    choice = ask.body.get("tool_choice") or {}
    if choice.get("type") == "tool":
        return next((tool for tool in tools if tool["name"] == choice["name"]), None)
    if choice.get("type") == "any":
        return tools[0] if tools else None
    said = last_user_text(ask.body).lower()
    for tool in tools:
        hints = [word for word in re.split(r"[^a-z0-9]+", tool["name"].lower()) if len(word) > 3]
        if tool["name"].lower() in said or any(hint in said for hint in hints):
            return tool
    return tools[0] if tools and re.search(r"\btools?\b", said) else None


def attachments(blocks: list[Block]) -> list[Block]:
    """Images and documents, also those inside tool results."""
    found = []
    for block in blocks:
        if block["type"] in ("image", "document"):
            found.append(block)
        elif block["type"] == "tool_result" and isinstance(block.get("content"), list):
            found += attachments(block["content"])
    return found


def describe_attachments(ask: Ask) -> str:
    found = [block for turn in turns_of(ask.body) for block in attachments(turn["content"])]
    images = sum(block["type"] == "image" for block in found)
    listed = "; ".join(_described(block) for block in found)
    return f"I saw {images} image(s) and {len(found) - images} document(s): {listed or 'none'}."


def _described(block: Block) -> str:
    source = block["source"]
    match source["type"]:
        case "base64":
            size = len(source["data"]) * 3 // 4 - source["data"].count("=")
            what = f"{source['media_type']} of {size} bytes"
        case "text":
            what = f"{source['media_type']} of {len(source['data'].encode())} bytes"
        case "url":
            what = f"url {source['url']}"
        case "file":
            what = f"file {source['file_id']}"
        case _:
            what = "content"
    title = f" “{block['title']}”" if block.get("title") else ""
    return f"{block['type']}{title} {what}"


# ------------------------------------------------------------------------------------------------------- web search

SEARCHED: dict[str, Any] = {"server_tool_use": {"web_search_requests": 1, "web_fetch_requests": 0}}
SEARCH_WORDS = re.compile(r"\b(search|look up|latest|news|today|current)\b")


def search_tool(ask: Ask) -> bool:
    return any(str(tool.get("type", "")).startswith("web_search_") for tool in ask.body.get("tools") or ())


def wants_search(ask: Ask) -> bool:
    return search_tool(ask) and bool(SEARCH_WORDS.search(last_user_text(ask.body).lower()))


def search_call(ask: Ask, place: int = 90) -> list[Block]:
    call = ask.made_up_id("srvtoolu_01", place)
    found = {
        "type": "web_search_result",
        "title": "Example Domain",
        "url": "https://example.com/",
        "encrypted_content": sign("web search", Binding("search")),
        "page_age": "3 days ago",
    }
    query = {"query": short(last_user_text(ask.body))}
    return [
        {"type": "server_tool_use", "id": call, "name": "web_search", "input": query},
        {"type": "web_search_tool_result", "tool_use_id": call, "content": [found]},
    ]


def searched(ask: Ask) -> list[Block]:
    """Search call, result, and text with a citation: what a model with web search answers."""
    citation = {
        "type": "web_search_result_location",
        "cited_text": "This domain is for use in documentation examples.",
        "url": "https://example.com/",
        "title": "Example Domain",
        "encrypted_index": sign("web search index", Binding("search")),
    }
    cited = {"type": "text", "text": "this domain is for use in documentation examples", "citations": [citation]}
    return [*search_call(ask), text("According to the web, "), cited, text(". That is all I found.")]


# ---------------------------------------------------------------------------------------- scenarios: text and blocks


@scenario("sim-text")
def _text(ask: Ask) -> Reply:
    """`tokens` numbered words (60), one each `gap_ms`."""
    return say(ask, numbered(ask.param("tokens", 60)))


@scenario("sim-big")
def _big(ask: Ask) -> Reply:
    """`tokens` words (20000) of 40 letters."""
    return say(ask, text(" ".join(f"{number:040d}" for number in range(ask.param("tokens", 20_000)))))


@scenario("sim-echo")
def _echo(ask: Ask) -> Reply:
    """A JSON object that says in short what arrived."""
    return say(ask, text(orjson.dumps(_abridged_request(ask)).decode()))


def _abridged_request(ask: Ask) -> dict[str, Any]:
    body = {key: value for key, value in ask.body.items() if key != "tools"}
    tools = [tool.get("name", tool.get("type")) for tool in ask.body.get("tools") or ()]
    headers = {name: value for name, value in ask.headers.items() if name.startswith("anthropic-")}
    abridged = {key: _abridged(value) for key, value in body.items()}
    return {**abridged, **({"tools": tools} if tools else {}), "headers": headers}


def _abridged(value: Any) -> Any:
    if isinstance(value, str):
        return short(value)
    if isinstance(value, dict):
        return {key: _abridged(item) for key, item in value.items()}
    return [_abridged(item) for item in value] if isinstance(value, list) else value


@scenario("sim-unicode")
def _unicode(ask: Ask) -> Reply:
    """Emoji, CJK, line separators and escaped surrogate pairs, in chunks cut at awkward places."""
    value = (
        "Gr\u00fc\u00dfe \U0001f600 \U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea 日本語 中文 한국어 "
        "\u2028 line \u2029 new \u0085 next \r\n crlf \t tab \x7f \uff46\uff55\uff4c\uff4c e\u0301 \U0001d54f done"
    )
    reply = say(ask, text(value))
    reply.torn = True
    reply.events = [_escaped(event) if at % 2 else event for at, event in enumerate(reply.events)]
    return reply


def _escaped(event: Event) -> Event:
    """The event with everything outside ASCII as \\u escapes and CRLF at line ends: also legal."""
    raw = orjson.dumps(event).decode()
    ascii_only = "".join(char if ord(char) < 128 else _escapes(char) for char in raw)
    return {**event, "_raw": f"event: {event['type']}\r\ndata: {ascii_only}\r\n\r\n".encode()}


def _escapes(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


@scenario("sim-image")
def _image(ask: Ask) -> Reply:
    """Says how many images and documents it saw, of what type and size."""
    return say(ask, text(describe_attachments(ask)))


@scenario("sim-empty")
def _empty(ask: Ask) -> Reply:
    """No content at all."""
    return say(ask)


@scenario("sim-max-tokens")
def _max_tokens(ask: Ask) -> Reply:
    return say(ask, numbered(ask.param("tokens", 20)), stop_reason="max_tokens")


@scenario("sim-context-exceeded")
def _context_exceeded(ask: Ask) -> Reply:
    return say(ask, numbered(20), stop_reason="model_context_window_exceeded")


@scenario("sim-refusal")
def _refusal(ask: Ask) -> Reply:
    return say(ask, stop_reason="refusal")


@scenario("sim-refusal-midway")
def _refusal_midway(ask: Ask) -> Reply:
    return say(ask, text("Certainly, here is how that is done: first"), stop_reason="refusal")


@scenario("sim-unknown-stop")
def _unknown_stop(ask: Ask) -> Reply:
    """A stop reason that nobody knows yet."""
    return say(ask, numbered(5), stop_reason="out_of_ink")


@scenario("sim-web-search")
def _web_search(ask: Ask) -> Reply:
    return say(ask, *searched(ask), **SEARCHED)


@scenario("sim-pause")
def _pause(ask: Ask) -> Reply:
    """Pauses after a search, as often as its number says (1); continued after the last pause, finishes."""
    searches = pauses_so_far(ask.body)
    if searches >= (1 if ask.number is None else ask.number):
        return say(ask, text(" And this is the rest of it."))
    said = "Let me look that up." if not searches else f" Let me look again ({searches + 1})."
    return say(ask, text(said), *search_call(ask), stop_reason="pause_turn", **SEARCHED)


def pauses_so_far(body: dict[str, Any]) -> int:
    """How many searches stand in the assistant turn that is to be continued."""
    if not is_continued(body):
        return 0
    return sum(block["type"] == "server_tool_use" for block in turns_of(body)[-1]["content"])


@scenario("sim-document-citations")
def _document_citations(ask: Ask) -> Reply:
    """A sentence on each document, with its citation where the document has citations enabled."""
    documents = [block for turn in turns_of(ask.body) for block in turn["content"] if block["type"] == "document"]
    if not documents:
        return say(ask, text("There is no document."))
    sentences = [_cited(document, index) for index, document in enumerate(documents)]
    return say(ask, text("According to what you sent: "), *sentences, text(" That is all."))


def _cited(document: Block, index: int) -> Block:
    block = text(f"document {index} says so.")
    if not (document.get("citations") or {}).get("enabled"):
        return block
    where = {"document_index": index, "document_title": document.get("title"), "file_id": None}
    source = document["source"]
    match source["type"]:
        case "text":
            said = source["data"][:40]
            citation = {"type": "char_location", "cited_text": said, "start_char_index": 0, "end_char_index": len(said)}
        case "content":
            said = " ".join(part.get("text", "") for part in blocks_of(source["content"])[:1])
            citation = {"type": "content_block_location", "cited_text": said, "start_block_index": 0}
            citation["end_block_index"] = 1
        case _:
            citation = {"type": "page_location", "cited_text": "A page.", "start_page_number": 1, "end_page_number": 2}
    return {**block, "citations": [{**citation, **where}]}


@scenario("sim-unknown-events")
def _unknown_events(ask: Ask) -> Reply:
    """Events, blocks and deltas that nobody knows yet, around ordinary text."""
    return paced(ask, _with_unknown_events(ask))


def _with_unknown_events(ask: Ask) -> Iterator[Event]:
    yield message_start(ask.message_id, ask.model.id, start_usage(ask))
    yield {"type": "weather_report", "temperature": 21}
    yield block_start(0, {"type": "hologram", "data": "…"})
    yield block_delta(0, {"type": "hologram_delta", "data": "…"})
    yield block_stop(0)
    yield block_start(1, text(""))
    yield block_delta(1, {"type": "text_delta", "text": "Known"})
    yield block_delta(1, {"type": "mood_delta", "mood": "good"})
    yield {"type": "content_block_pause", "index": 1}
    yield block_delta(1, {"type": "text_delta", "text": " text."})
    yield block_stop(1)
    yield block_stop(7)
    yield from message_end("end_turn", end_usage(ask, 2))


# ------------------------------------------------------------------------------------------ scenarios: tools, thinking


def call_tools(ask: Ask, count: int) -> Reply:
    """`count` tool calls, or a text that names the results once they are there."""
    tools = client_tools(ask.body)
    if tool_results(ask.body):
        return say(ask, text(describe_results(ask.body)))
    if not tools:
        return say(ask, text("There is no tool that I could call."))
    choice = ask.body.get("tool_choice") or {}
    if choice.get("type") == "tool":
        tools = [tool for tool in tools if tool["name"] == choice["name"]]
    if choice.get("disable_parallel_tool_use"):
        count = 1
    calls = [tool_use(ask, tools[place % len(tools)], place) for place in range(count)]
    return say(ask, text("I will use a tool."), *calls, stop_reason="tool_use")


@scenario("sim-tool-use")
def _tool_use(ask: Ask) -> Reply:
    """Calls the first tool; after its result, text that names it."""
    return call_tools(ask, 1)


@scenario("sim-parallel-tools")
def _parallel_tools(ask: Ask) -> Reply:
    """Two calls, or as many as its number says."""
    return call_tools(ask, ask.number or 2)


@scenario("sim-no-tool")
def _no_tool(ask: Ask) -> Reply:
    """Text, whatever tools there are and whatever is demanded."""
    return say(ask, text("I would rather say it in words."))


@scenario("sim-second-thought")
def _second_thought(ask: Ask) -> Reply:
    """Text at first; calls the first tool once a user turn after that text speaks of calling a tool."""
    was_answered = any(turn["role"] == "assistant" for turn in turns_of(ask.body))
    demanded = was_answered and DEMAND.search(last_user_text(ask.body).lower())
    if tool_results(ask.body) or demanded:
        return call_tools(ask, 1)
    return say(ask, text("I would rather say it in words."))


def first_tool(ask: Ask) -> dict[str, Any]:
    return next(iter(client_tools(ask.body)), {"name": "no_tool", "input_schema": {}})


@scenario("sim-empty-tool")
def _empty_tool(ask: Ask) -> Reply:
    """A call without a single input_json_delta."""
    if tool_results(ask.body):
        return call_tools(ask, 1)
    call = {**tool_use(ask, first_tool(ask)), "input": {}}
    return paced(ask, _wholly(ask, call))


@scenario("sim-whole-tool")
def _whole_tool(ask: Ask) -> Reply:
    """A call whose complete input stands in content_block_start, as with programmatic tool calling."""
    return call_tools(ask, 1) if tool_results(ask.body) else paced(ask, _wholly(ask, tool_use(ask, first_tool(ask))))


def _wholly(ask: Ask, call: Block) -> Iterator[Event]:
    yield message_start(ask.message_id, ask.model.id, start_usage(ask))
    yield block_start(0, call)
    yield PING
    yield block_stop(0)
    yield from message_end("tool_use", end_usage(ask, 10))


@scenario("sim-whole-message")
def _whole_message(ask: Ask) -> Reply:
    """Nothing but message_start, which holds the complete tool call, and message_stop."""
    if tool_results(ask.body):
        return call_tools(ask, 1)
    start = message_start(ask.message_id, ask.model.id, {**start_usage(ask), "output_tokens": 10})
    start["message"] |= {"content": [tool_use(ask, first_tool(ask))], "stop_reason": "tool_use"}
    return paced(ask, [start, {"type": "message_stop"}])


@scenario("sim-truncated-tool")
def _truncated_tool(ask: Ask) -> Reply:
    """Arguments that break off in the middle of their JSON."""
    call = tool_use(ask, first_tool(ask))
    if not call["input"]:
        call["input"] = {"text": "this will never arrive in full"}
    events = list(message(ask, [call], "max_tokens"))
    last_pieces = [at for at, event in enumerate(events) if is_token(event)][-1:]
    cut = orjson.dumps(call["input"])[: len(orjson.dumps(call["input"])) // 2].decode(errors="ignore")
    kept = [event for at, event in enumerate(events) if not is_token(event) or at in last_pieces]
    return paced(ask, [_with_json(event, cut) if is_token(event) else event for event in kept])


def _with_json(event: Event, partial_json: str) -> Event:
    return {**event, "delta": {**event["delta"], "partial_json": partial_json}}


def with_thinking(ask: Ask, thinking: list[Block]) -> Reply:
    tools = client_tools(ask.body)
    if tools and not tool_results(ask.body):
        return say(ask, *thinking, tool_use(ask, tools[0]), stop_reason="tool_use")
    last = describe_results(ask.body) if tool_results(ask.body) else "I have thought about it. The answer is 42."
    return say(ask, *thinking, text(last))


@scenario("sim-thinking")
def _thinking(ask: Ask) -> Reply:
    """Signed thinking, then text; with tools: thinking, tool_use. Thinks even when it is not told to."""
    return with_thinking(ask, thought(ask, display(ask) or "summarized"))


@scenario("sim-interleaved")
def _interleaved(ask: Ask) -> Reply:
    """With tools: thinking, text, a call, thinking, another call; after the results, or without tools, thinking and
    text."""
    how = display(ask) or "summarized"
    tools = client_tools(ask.body)
    if not tools or tool_results(ask.body):
        return with_thinking(ask, reflected(ask, "Now I know enough.", how))
    calls = [tool_use(ask, tools[place % len(tools)], place) for place in range(2)]
    blocks = [
        *reflected(ask, "I need two things; the first one first.", how),
        text("Let me see."),
        calls[0],
        *reflected(ask, "While that runs, I ask for the second.", how),
        calls[1],
    ]
    return say(ask, *blocks, stop_reason="tool_use")


@scenario("sim-redacted")
def _redacted(ask: Ask) -> Reply:
    """Thinking that is redacted, then as sim-thinking."""
    return with_thinking(ask, [{"type": "redacted_thinking", "data": redacted_data(binding(ask))}])


def as_agent(ask: Ask, thinking: list[Block]) -> Reply:
    """A call that writes a file with whatever tool the client has for that; text once it is written."""
    if tool_results(ask.body):
        return say(ask, *thinking, text(f"I am done. {describe_results(ask.body)}"))
    told = " ".join(part["text"] for part in _told(ask.body))
    call = agent.writing_call(client_tools(ask.body), last_user_text(ask.body), told)
    if call is None:
        return say(ask, *thinking, text("There is no tool here that writes a file or runs a command."))
    block = {**tool_use(ask, call[0]), "input": call[1]}
    return say(ask, *thinking, text("I will write that."), block, stop_reason="tool_use")


def _told(body: dict[str, Any]) -> Iterator[Block]:
    """What the client itself says: system prompt and system messages."""
    yield from blocks_of(body.get("system") or ())
    for turn in turns_of(body):
        if turn["role"] == "system":
            yield from turn["content"]


@scenario(agent.MARK)
def _agent(ask: Ask) -> Reply:
    """Signed thinking and a call that writes a file or runs a command; then text that it is done."""
    return as_agent(ask, thought(ask, display(ask) or "summarized"))


# ---------------------------------------------------------------------------------------------- scenarios: failures

ERROR_MESSAGES = {
    400: "messages.0.content.0.text: the simulator refuses this request, as the scenario demands",
    401: "invalid x-api-key",
    402: "Your account has a billing problem. Please check your payment method.",
    403: "Your API key does not have permission to use the specified resource.",
    404: "model: sim-error-404",
    413: "Request exceeds the maximum size",
    429: "This request would exceed your organization's rate limit of 4,000,000 input tokens per minute.",
    500: "Internal server error",
    504: "The request timed out. Please use streaming for long requests.",
    529: "Overloaded",
}
LOW_CREDIT = (
    "Your credit balance is too low to access the Anthropic API. "
    "Please go to Plans & Billing to upgrade or purchase credits."
)
SPEND_LIMIT = "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."
CODED_ERRORS = {
    "contract_spend_limit_reached": (429, "Your organization has reached the spend limit of its contract."),
    "enforced_spend_limit_reached": (429, SPEND_LIMIT),
    "linked_organization_spend_limit_reached": (402, "The linked organization has reached its spend limit."),
    "linked_organization_billing_unavailable": (402, "The linked organization cannot be billed at the moment."),
    "organization_on_hold": (400, "This organization has been disabled."),
    "claude_code_key_creator_not_member": (400, "The user who created this API key is not a member any more."),
}
"""Errors about the account, which are told by `details.error_code`: sim-error-contract-spend-limit-reached … Their
number replaces the status."""


def error_message(status: int) -> str:
    """What the API says with a status."""
    return ERROR_MESSAGES.get(status, "Something went wrong")


def edge_page(status: int) -> tuple[int, str, bytes]:
    """Status, content type and page of an error that never got as far as the API."""
    title = f"{status} {reason(status)}"
    page = (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
        "<hr><center>cloudflare</center>\r\n</body>\r\n</html>\r\n"
    )
    return status, "text/html; charset=UTF-8", page.encode()


def refuse(status: int, retry_after: int | None = None) -> NoReturn:
    """Raises the error that the API has for a status."""
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    raise Refusal(error_message(status), status, headers=headers)


@scenario("sim-error")
def _error(ask: Ask) -> Reply:
    """The error with that status, before the stream; `retry_after` seconds go with 429 (1)."""
    status = ask.number or 500
    refuse(status, ask.param("retry_after", 1) if status == 429 else ask.params.get("retry_after"))


@scenario("sim-error-spend-limit")
def _spend_limit(ask: Ask) -> Reply:
    raise Refusal(SPEND_LIMIT, 429, error_code="enforced_spend_limit_reached", should_retry=False)


def coded(code: str, status: int, said: str) -> Scenario:
    """A scenario that is refused with that code."""

    def run(ask: Ask) -> Reply:
        raise Refusal(said, ask.number or status, code, should_retry=False)

    return run


SCENARIOS.update({f"sim-error-{code.replace('_', '-')}": coded(code, *how) for code, how in CODED_ERRORS.items()})


@scenario("sim-error-bare")
def _bare_error(ask: Ask) -> Reply:
    """A 429, or what its number says, without any header that says when to ask again."""
    status = ask.number or 429
    raise Refusal(error_message(status), status, bare=True)


@scenario("sim-error-low-credit")
def _low_credit(ask: Ask) -> Reply:
    raise Refusal(LOW_CREDIT)


@scenario("sim-error-prompt-too-long")
def _prompt_too_long(ask: Ask) -> Reply:
    raise Refusal(f"prompt is too long: 1234567 tokens > {ask.model.max_input_tokens} maximum")


@scenario("sim-error-html")
def _error_html(ask: Ask) -> Reply:
    """A page from the edge instead of JSON."""
    return Reply(raw=edge_page(ask.number or 502))


@scenario("sim-error-midstream")
def _error_midstream(ask: Ask) -> Reply:
    """An error event after some text; its number of words (5)."""
    return paced(ask, _then_error(ask))


def _then_error(ask: Ask) -> Iterator[Event]:
    for event in message(ask, [numbered(60)], "end_turn"):
        if event["type"] == "content_block_delta" and event["delta"]["text"].strip() == f"w{ask.number or 5}":
            break
        yield event
    yield {"type": "error", "error": {"details": None, "type": "overloaded_error", "message": "Overloaded"}}


def breaking_off(kind: str, default: int) -> Scenario:
    """A scenario that starts as sim-text and ends as `kind` after as many events as its number says."""

    def run(ask: Ask) -> Reply:
        after = default if ask.number is None else ask.number
        events = message(ask, [numbered(ask.param("tokens", 60))], "end_turn")
        return paced(ask, events, Ending(kind, after))

    return run


SCENARIOS["sim-cut"] = breaking_off("cut", 8)
SCENARIOS["sim-eof"] = breaking_off("eof", 8)
SCENARIOS["sim-half-event"] = breaking_off("eof_inside", 8)
SCENARIOS["sim-stall"] = breaking_off("stall", 0)
SCENARIOS["sim-stall-pings"] = breaking_off("pings", 3)
SCENARIOS["sim-half-close"] = breaking_off("half_close", 8)
SCENARIOS["sim-reset"] = breaking_off("reset", 0)


@scenario("sim-garbage")
def _garbage(ask: Ask) -> Reply:
    """Broken JSON in an event, after as many events as its number says (5)."""
    return paced(ask, _with_garbage(ask, 5 if ask.number is None else ask.number))


def _with_garbage(ask: Ask, after: int) -> Iterator[Event]:
    for at, event in enumerate(message(ask, [numbered(20)], "end_turn")):
        if at == after:
            yield {"type": "garbage", "_raw": b'event: content_block_delta\ndata: {"type": "content_bl\n\n'}
        yield event


@scenario("sim-slow-headers")
def _slow_headers(ask: Ask) -> Reply:
    """Nothing at all for its number of seconds (5), or `delay_ms`."""
    reply = say(ask, numbered(20))
    reply.headers_delay_ms = ask.param("delay_ms", 1000 * (5 if ask.number is None else ask.number))
    return reply


def listed_names() -> tuple[str, ...]:
    """The scenarios as `GET /v1/models` lists them, with the statuses of sim-error spelled out."""
    statuses = tuple(f"sim-error-{status}" for status in ERROR_MESSAGES)
    return (
        *(name for name in SCENARIOS if name not in ("sim-error", "sim-error-html")),
        *statuses,
        "sim-error-html-502",
    )

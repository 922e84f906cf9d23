"""Rule by rule: what the Messages API refuses, and what it takes."""

import base64
from typing import Any

import pytest

from app.simulator.models import catalogue
from app.simulator.refusal import Refusal
from app.simulator.validator import validate, validate_count_tokens

OLD, NEW = "2023-06-01", "2026-10-21"
OPUS, HAIKU_45, SONNET_46, OPUS_5, SONNET_55, FABLE_5 = (
    "claude-opus-5-5",
    "claude-haiku-4-5",
    "claude-sonnet-4-6",
    "claude-opus-5",
    "claude-sonnet-5-5",
    "claude-fable-5",
)
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
PDF = base64.b64encode(b"%PDF-1.7").decode()
TOOL = {"name": "look", "input_schema": {"type": "object", "properties": {}}}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "seen"}
CACHE, CACHE_1H = {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}
DROP = object()


def text(value, **more):
    return {"type": "text", "text": value, **more}


def user(*content):
    return {
        "role": "user",
        "content": list(content) if len(content) != 1 or isinstance(content[0], dict) else content[0],
    }


def assistant(*content):
    return {**user(*content), "role": "assistant"}


def system(content):
    return {"role": "system", "content": content}


def image(data=PNG, media_type="image/png"):
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


def document(**source):
    return {"type": "document", "source": source}


def schema(**node):
    return {"format": {"type": "json_schema", "schema": node}}


def closed(**properties):
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def problem(model=OPUS, version=NEW, betas="", check=validate, **changes):
    """The message with which the request is refused, "" when it is taken. A change to DROP leaves the field out."""
    body = {"model": model, "max_tokens": 4096, "messages": [user("Hello")], **changes}
    body = {key: value for key, value in body.items() if value is not DROP}
    headers = {"anthropic-version": version, "anthropic-beta": betas}
    try:
        check(body, headers, catalogue().find(model))
    except Refusal as refusal:
        assert refusal.status == 400
        return refusal.message
    return ""


LOOP = [user("Hello"), assistant(CALL), user(RESULT)]
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    # top level
    "max_tokens is missing": ({"max_tokens": DROP}, "max_tokens: Field required"),
    "messages are missing": ({"messages": DROP}, "messages: Field required"),
    "an unknown field": ({"n": 1}, "n: Extra inputs are not permitted"),
    "a wrong type": ({"max_tokens": "5"}, "max_tokens: Input should be a valid integer"),
    "a boolean for a number": ({"max_tokens": True}, "max_tokens: Input should be a valid integer"),
    "too many tokens": (
        {"max_tokens": 128_001},
        "max_tokens: 128001 > 128000, which is the maximum allowed number of output tokens for claude-opus-5-5",
    ),
    "stream is not a boolean": ({"stream": "yes"}, "stream: Input should be a valid boolean"),
    "a stop sequence of blanks": (
        {"stop_sequences": ["\n\n"]},
        "stop_sequences: each stop sequence must contain non-whitespace",
    ),
    "foreign metadata": ({"metadata": {"team": "a"}}, "metadata.team: Extra inputs are not permitted"),
    "an e-mail address as user": (
        {"metadata": {"user_id": "a@b.c"}},
        "metadata.user_id: user_id appears to contain an email address",
    ),
    "an unknown tier": ({"service_tier": "flex"}, "service_tier: Input should be 'auto' or 'standard_only'"),
    "an empty system block": ({"system": [text("")]}, "system.0.text: text content blocks must be non-empty"),
    "an image as system": ({"system": [image()]}, "system.0.type: Input should be 'text'"),
    "an unknown speed": ({"speed": "slow"}, "speed: Input should be 'standard' or 'fast'"),
    "fast on a slow model": ({"model": FABLE_5, "speed": "fast"}, 'speed: "fast" is not supported on this model'),
    "fast without its beta": ({"model": OPUS_5, "speed": "fast"}, "speed: Extra inputs are not permitted"),
    "effort of a system message without its beta": (
        {"messages": [user("Hi"), {**system("Be brief."), "output_config": {"effort": "low"}}]},
        "messages.1.output_config: Extra inputs are not permitted",
    ),
    "context management without its beta": (
        {"context_management": {"edits": []}},
        "context_management: Extra inputs are not permitted",
    ),
    "MCP servers without their beta": ({"mcp_servers": []}, "mcp_servers: Extra inputs are not permitted"),
    "a prompt that is too long": (
        {"model": HAIKU_45, "messages": [user("x" * 900_000)]},
        "prompt is too long: 225008 tokens > 200000 maximum",
    ),
    # roles and order
    "no messages": ({"messages": []}, "messages: at least one message is required"),
    "an unknown role": (
        {"messages": [{"role": "tool", "content": "x"}]},
        "messages.0.role: Input should be 'user' or 'assistant' or 'system'",
    ),
    "no content": ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
    "null content": (
        {"messages": [{"role": "user", "content": None}]},
        "messages.0.content: Input should be a valid list",
    ),
    "an assistant first": (
        {"messages": [assistant("Hi"), user("Hello")]},
        'messages: first message must use the "user" role',
    ),
    "empty content": (
        {"messages": [user("")]},
        "messages.0: all messages must have non-empty content except for the optional final assistant message",
    ),
    "an empty list": (
        {"messages": [user("Hi"), {"role": "assistant", "content": []}, user("Hello")]},
        "messages.1: all messages must have non-empty content except for the optional final assistant message",
    ),
    "blanks": ({"messages": [user(" \n")]}, "messages.0: text content blocks must contain non-whitespace text"),
    "an empty text block": (
        {"messages": [user(text("Hi"), text(""))]},
        "messages.0.content.1.text: text content blocks must be non-empty",
    ),
    "a text block of blanks": (
        {"messages": [user(text(" "))]},
        "messages.0.content.0.text: text content blocks must contain non-whitespace text",
    ),
    "an unknown block": (
        {"messages": [user({"type": "input_audio"})]},
        "messages.0.content.0: Input tag 'input_audio' found using 'type' does not match any of the expected tags: "
        "'container_upload', 'document', 'image', 'search_result', 'text', 'tool_result'",
    ),
    "a key that a block does not have": (
        {"messages": [user(text("Hi", detail="low"))]},
        "messages.0.content.0.text.detail: Extra inputs are not permitted",
    ),
    "citations on user text": (
        {"messages": [user(text("Hi", citations=[{"type": "char_location"}]))]},
        "messages.0.content.0.citations: Extra inputs are not permitted",
    ),
    "a document of the assistant": (
        {"messages": [user("Hi"), assistant(document(type="text", media_type="text/plain", data="x")), user("Hello")]},
        "messages.1.content.0.document: `document` blocks are not permitted in `assistant` messages",
    ),
    # prefill
    "prefill on a new model": (
        {"messages": [user("Hi"), assistant("Well")]},
        "This model does not support assistant message prefill. The conversation must end with a user message.",
    ),
    "prefill that ends in a blank": (
        {"model": HAIKU_45, "messages": [user("Hi"), assistant("Well ")]},
        "messages: final assistant content cannot end with trailing whitespace",
    ),
    "prefill with thinking": (
        {
            "model": HAIKU_45,
            "messages": [user("Hi"), assistant("Well")],
            "thinking": {"type": "enabled", "budget_tokens": 1024},
        },
        "messages.1: assistant message prefill is not supported while thinking is enabled",
    ),
    # system in the middle
    "a system message on a model without": (
        {"model": HAIKU_45, "messages": [user("Hi"), system("Be brief")]},
        "messages.1.role: role 'system' is not supported on this model",
    ),
    "a system message before a user turn": (
        {"messages": [user("Hi"), system("Be brief"), user("Hello")]},
        "messages.1: a `system` message must be the last message or be followed by an `assistant` message",
    ),
    "a system message after an assistant turn": (
        {"messages": [user("Hi"), assistant("Ho"), system("Be brief")]},
        "messages.2: a `system` message must follow a `user` message or a server tool result",
    ),
    # tool pairs
    "a bad tool id": (
        {"tools": [TOOL], "messages": [user("Hi"), assistant({**CALL, "id": "a.b:1"}), user(RESULT)]},
        "messages.1.content.0.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'",
    ),
    "a call without its result": (
        {"tools": [TOOL], "messages": [user("Hi"), assistant(CALL), user("Well?")]},
        "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: toolu_1. Each "
        "`tool_use` block must have a corresponding `tool_result` block in the next message.",
    ),
    "a result behind text": (
        {"tools": [TOOL], "messages": [user("Hi"), assistant(CALL), user(text("Here:"), RESULT)]},
        "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: toolu_1. Each "
        "`tool_use` block must have a corresponding `tool_result` block in the next message.",
    ),
    "a result without its call": (
        {"tools": [TOOL], "messages": [user("Hi"), user(RESULT)]},
        "messages.0.content.1: unexpected `tool_use_id` found in `tool_result` blocks: toolu_1. Each `tool_result` "
        "block must have a corresponding `tool_use` block in the previous message.",
    ),
    "two results for a call": (
        {"tools": [TOOL], "messages": [user("Hi"), assistant(CALL), user(RESULT, RESULT)]},
        "messages.2: each tool_use must have a single result. Found multiple `tool_result` blocks",
    ),
    "one id for two calls": (
        {"tools": [TOOL], "messages": [user("Hi"), assistant(CALL, CALL), user(RESULT)]},
        "messages.1: `tool_use` ids must be unique",
    ),
    "a conversation that ends with a call": (
        {"tools": [TOOL], "messages": [user("Hi"), assistant(CALL)]},
        "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: toolu_1. Each "
        "`tool_use` block must have a corresponding `tool_result` block in the next message.",
    ),
    "tool blocks without tools": (
        {"messages": LOOP},
        "Requests which have `tool_use` or `tool_result` blocks in `messages` must define tools",
    ),
    "an image in a failed result": (
        {
            "tools": [TOOL],
            "messages": [user("Hi"), assistant(CALL), user({**RESULT, "is_error": True, "content": [image()]})],
        },
        "messages.2.content.0.tool_result.content: all content must be type `text` if `is_error` is true",
    ),
    "an empty text in a result": (
        {"tools": [TOOL], "messages": [user("Hi"), assistant(CALL), user({**RESULT, "content": [text("")]})]},
        "messages.2.content.0.tool_result.content.0.text: text content blocks must be non-empty",
    ),
    # tools
    "a bad tool name": (
        {"tools": [{**TOOL, "name": "look at"}]},
        "tools.0.custom.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'",
    ),
    "two tools of one name": ({"tools": [TOOL, TOOL]}, "tools: Tool names must be unique."),
    "a tool in OpenAI's shape": (
        {"tools": [{"type": "function", "function": TOOL}]},
        "tools.0: Input tag 'function' found using 'type' does not match any of the expected tags",
    ),
    "a tool without a schema": ({"tools": [{"name": "look"}]}, "tools.0.custom.input_schema: Field required"),
    "a schema without a type": (
        {"tools": [{"name": "look", "input_schema": {}}]},
        "tools.0.custom.input_schema.type: Field required",
    ),
    "a schema of alternatives": (
        {"tools": [{"name": "look", "input_schema": {"type": "object", "anyOf": []}}]},
        "tools.0.custom.input_schema: input_schema does not support oneOf, allOf, anyOf, enum or not at the top level",
    ),
    "a strict tool that is open": (
        {"tools": [{**TOOL, "strict": True}]},
        "tools.0.custom.input_schema: For 'object' type, 'additionalProperties' must be explicitly set to false",
    ),
    "a search of both kinds": (
        {
            "tools": [
                {
                    "type": "web_search_20250305",
                    "name": "web_search",
                    "allowed_domains": ["a.com"],
                    "blocked_domains": ["b.com"],
                }
            ]
        },
        "tools.0.web_search_20250305: Only one of allowed_domains and blocked_domains may be given",
    ),
    "a choice without tools": (
        {"tool_choice": {"type": "auto"}},
        "tool_choice: tool_choice may only be specified while providing tools",
    ),
    "a choice of an unknown tool": (
        {"model": OPUS_5, "tools": [TOOL], "tool_choice": {"type": "tool", "name": "see"}},
        "tool_choice: Tool 'see' not found in provided tools",
    ),
    "a forced tool where none can be forced": (
        {"tools": [TOOL], "tool_choice": {"type": "any"}},
        'tool_choice: type "tool" and "any" are not supported for this model',
    ),
    "a forced tool with a thinking budget": (
        {
            "model": HAIKU_45,
            "tools": [TOOL],
            "tool_choice": {"type": "any"},
            "thinking": {"type": "enabled", "budget_tokens": 1024},
        },
        "Thinking may not be enabled when tool_choice forces tool use.",
    ),
    "no parallel use of none": (
        {"tools": [TOOL], "tool_choice": {"type": "none", "disable_parallel_tool_use": True}},
        "tool_choice.none.disable_parallel_tool_use: Extra inputs are not permitted",
    ),
    # thinking and effort
    "a budget on an adaptive model": (
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        '"thinking.type.enabled" is not supported for this model. '
        'Use "thinking.type.adaptive" and "output_config.effort" to control thinking behavior.',
    ),
    "adaptive on an old model": (
        {"model": HAIKU_45, "thinking": {"type": "adaptive"}},
        "adaptive thinking is not supported on this model",
    ),
    "no thinking on a model that always thinks": (
        {"thinking": {"type": "disabled"}},
        'thinking.type: "disabled" is not supported for this model',
    ),
    "a small budget": (
        {"model": HAIKU_45, "thinking": {"type": "enabled", "budget_tokens": 1023}},
        "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024",
    ),
    "a budget above max_tokens": (
        {"model": HAIKU_45, "thinking": {"type": "enabled", "budget_tokens": 4096}},
        "`max_tokens` must be greater than `thinking.budget_tokens`. Please consult our documentation at "
        "https://docs.claude.com/en/docs/build-with-claude/extended-thinking",
    ),
    "between_tools with more": (
        {"model": SONNET_55, "thinking": {"type": "between_tools", "display": "omitted"}},
        "thinking.between_tools.display: Extra inputs are not permitted",
    ),
    "disabled with much effort": (
        {"model": OPUS_5, "thinking": {"type": "disabled"}, "output_config": {"effort": "max"}},
        'output_config.effort: "max" is not supported with thinking type "disabled": use at most "high"',
    ),
    "between_tools with much effort": (
        {"model": SONNET_55, "thinking": {"type": "between_tools"}, "output_config": {"effort": "xhigh"}},
        'output_config.effort: "xhigh" is not supported with thinking type "between_tools": use at most "high"',
    ),
    "effort where there is none": (
        {"model": HAIKU_45, "output_config": {"effort": "low"}},
        "output_config.effort: This model does not support the effort parameter: it is not supported here",
    ),
    "a level that is not there": (
        {"model": SONNET_46, "output_config": {"effort": "xhigh"}},
        'output_config.effort: effort "xhigh" is not supported by this model. Supported levels: low, medium, high, max',
    ),
    "a tool loop with a budget and no thinking": (
        {
            "model": HAIKU_45,
            "tools": [TOOL],
            "messages": LOOP,
            "thinking": {"type": "enabled", "budget_tokens": 1024},
        },
        "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`. When `thinking` "
        "is enabled, a final `assistant` message must start with a thinking block (preceding the lastmost set of "
        "`tool_use` and `tool_result` blocks).",
    ),
    "thinking that nobody signed": (
        {
            "messages": [
                user("Hi"),
                assistant({"type": "thinking", "thinking": "Hm", "signature": ""}, text("Ho")),
                user("Go on"),
            ]
        },
        "messages.1.content.0: Invalid `signature` in `thinking` block",
    ),
    "redacted thinking that was made up": (
        {"messages": [user("Hi"), assistant({"type": "redacted_thinking", "data": "AAAA"}, text("Ho")), user("Go on")]},
        "messages.1.content.0: Invalid `data` in `redacted_thinking` block",
    ),
    # structured output
    "an open object": (
        {"output_config": schema(type="object")},
        "output_config.format.schema: For 'object' type, 'additionalProperties' must be explicitly set to false",
    ),
    "a minimum": (
        {"output_config": schema(**closed(n={"type": "integer", "minimum": 1}))},
        "output_config.format.schema.properties.n: For 'integer' type, properties minimum are not supported",
    ),
    "minItems above one": (
        {"output_config": schema(**closed(n={"type": "array", "items": {"type": "string"}, "minItems": 3}))},
        "output_config.format.schema.properties.n.minItems: "
        "For 'array' type, 'minItems' values other than 0 or 1 are not supported",
    ),
    "any JSON": (
        {"output_config": schema(**closed(n={}))},
        "output_config.format.schema.properties.n: "
        "Schema type is required: a schema that admits any JSON is not supported",
    ),
    "an unknown format": (
        {"output_config": schema(**closed(n={"type": "string", "format": "phone"}))},
        "output_config.format.schema.properties.n.format: String format 'phone' is not supported",
    ),
    "a look-around": (
        {"output_config": schema(**closed(n={"type": "string", "pattern": "^(?!a)"}))},
        "output_config.format.schema.properties.n.pattern: "
        "Pattern is too complex: look-arounds and back-references are not supported",
    ),
    "recursion": (
        {
            "output_config": schema(
                **closed(n={"$ref": "#/$defs/n"}), **{"$defs": {"n": closed(n={"$ref": "#/$defs/n"})}}
            )
        },
        "output_config.format.schema.properties.n.properties.n: "
        "Circular reference detected in schema definitions: #/$defs/n",
    ),
    "too many optional parameters": (
        {"output_config": schema(**{**closed(**{f"p{n}": {"type": "null"} for n in range(25)}), "required": []})},
        "output_config.format.schema: Schema is too complex: 25 optional parameters, at most 24",
    ),
    "structured output with citations": (
        {
            "output_config": schema(**closed()),
            "messages": [
                user({**document(type="text", media_type="text/plain", data="x"), "citations": {"enabled": True}})
            ],
        },
        "output_config.format: citations are incompatible with structured outputs",
    ),
    # sampling
    "a temperature in the new version": ({"temperature": 1.0}, "temperature: Extra inputs are not permitted"),
    "a temperature on a new model": (
        {"version": OLD, "temperature": 0.5},
        "`temperature` is deprecated for this model.",
    ),
    "temperature and top_p": (
        {"version": OLD, "model": HAIKU_45, "temperature": 0.5, "top_p": 0.5},
        "`temperature` and `top_p` cannot both be specified for this model. Please use only one.",
    ),
    "a high temperature": (
        {"version": OLD, "model": HAIKU_45, "temperature": 1.5},
        "temperature: Input should be less than or equal to 1",
    ),
    "a temperature with thinking": (
        {
            "version": OLD,
            "model": HAIKU_45,
            "temperature": 0.5,
            "thinking": {"type": "enabled", "budget_tokens": 1024},
        },
        "`temperature` may only be set to 1 when thinking is enabled or in adaptive mode.",
    ),
    # caching
    "five breakpoints": (
        {"messages": [user(*(text("Hi", cache_control=CACHE) for _ in range(5)))]},
        "A maximum of 4 blocks with cache_control may be provided. Found 5.",
    ),
    "four breakpoints and automatic caching": (
        {"messages": [user(*(text("Hi", cache_control=CACHE) for _ in range(4)), text("Hi"))], "cache_control": CACHE},
        "A maximum of 4 blocks with cache_control may be provided. Found 5.",
    ),
    "an hour behind five minutes": (
        {"system": [text("Hi", cache_control=CACHE)], "messages": [user(text("Hi", cache_control=CACHE_1H))]},
        "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block. "
        "Note that blocks are processed in the following order: `tools`, `system`, `messages`.",
    ),
    "a ttl of a day": (
        {"messages": [user(text("Hi", cache_control={"type": "ephemeral", "ttl": "24h"}))]},
        "messages.0.content.0.text.cache_control.ttl: Input should be '5m' or '1h'",
    ),
    # images and documents
    "not base64": (
        {"messages": [user(image("a b"))]},
        "messages.0.content.0.image.source.base64.data: Invalid base64 data",
    ),
    "image/jpg": (
        {"messages": [user(image(media_type="image/jpg"))]},
        "messages.0.content.0.image.source.media_type: "
        "Input should be 'image/jpeg' or 'image/png' or 'image/gif' or 'image/webp'",
    ),
    "a PNG that claims to be a JPEG": (
        {"messages": [user(image(media_type="image/jpeg"))]},
        "messages.0.content.0.image.source.base64.data: The image was specified using the image/jpeg media type, "
        "but the image appears to be a image/png image",
    ),
    "an image without TLS": (
        {"messages": [user({"type": "image", "source": {"type": "url", "url": "http://a.com/b.png"}})]},
        "messages.0.content.0.image.source.url: Only HTTPS URLs are supported",
    ),
    "a file without its beta": (
        {"messages": [user(document(type="file", file_id="file_1"))]},
        "messages.0.content.0.document.source: Extra inputs are not permitted",
    ),
    "too many images": (
        {"model": HAIKU_45, "messages": [user(*[image()] * 101)]},
        "messages: too many images: 101 > 100",
    ),
    "a PDF that is none": (
        {"messages": [user(document(type="base64", media_type="application/pdf", data=PNG))]},
        "messages.0.content.0.document.source.base64.data: The PDF specified was not valid.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_api_refuses(case):
    changes, message = REFUSED[case]
    assert problem(**changes) == message


SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
TAKEN: dict[str, dict[str, Any]] = {
    "a plain question": {},
    "blocks": {
        "messages": [user(text("Hi"), image(), document(type="base64", media_type="application/pdf", data=PDF))]
    },
    "neighbours of one role": {"messages": [user("Hi"), user("Hello")]},
    "an assistant first in the old version": {"version": OLD, "messages": [assistant("Hi"), user("Hello")]},
    "blanks of the assistant beside its calls": {
        "tools": [TOOL],
        "messages": [user("Hi"), assistant(text(" "), CALL), user(RESULT)],
    },
    "a tool loop": {"tools": [TOOL], "messages": LOOP},
    "an id used again in a later turn": {"tools": [TOOL], "messages": [*LOOP, assistant(CALL), user(RESULT)]},
    "text behind the result": {"tools": [TOOL], "messages": [*LOOP, user("And?")]},
    "a result without content": {
        "tools": [TOOL],
        "messages": [user("Hi"), assistant(CALL), user({"type": "tool_result", "tool_use_id": "toolu_1"})],
    },
    "an image in a result": {
        "tools": [TOOL],
        "messages": [user("Hi"), assistant(CALL), user({**RESULT, "content": [image()]})],
    },
    "prefill on an old model": {"model": HAIKU_45, "messages": [user("Hi"), assistant("Well")]},
    "blanks at the end of an earlier assistant turn": {"messages": [user("Hi"), assistant("Well "), user("Go on")]},
    "a pause that is continued": {"messages": [user("Hi"), assistant(SEARCH, FOUND)]},
    "a system message at the end": {"messages": [user("Hi"), system("Be brief")]},
    "a system message between": {"messages": [user("Hi"), system("Be brief"), assistant("Ho"), user("Hello")]},
    "a system message after a server result": {"messages": [user("Hi"), assistant(SEARCH, FOUND), system("Be brief")]},
    "a forced tool": {"model": OPUS_5, "tools": [TOOL], "tool_choice": {"type": "tool", "name": "look"}},
    "a hosted tool": {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}, TOOL]},
    "between_tools": {"model": SONNET_55, "thinking": {"type": "between_tools"}, "output_config": {"effort": "high"}},
    "adaptive thinking": {
        "thinking": {"type": "adaptive", "display": "summarized"},
        "output_config": {"effort": "max"},
    },
    "a temperature on an old model": {"version": OLD, "model": HAIKU_45, "temperature": 0.5, "top_k": 5},
    "a schema with optional parts and references": {
        "output_config": schema(
            **{**closed(a={"$ref": "#/$defs/a"}, b={"type": ["string", "null"]}), "required": ["a"]},
            **{"$defs": {"a": {"anyOf": [{"type": "string", "pattern": "^a+$"}, {"type": "null"}]}}},
        )
    },
    "four breakpoints, the hour first": {
        "tools": [{**TOOL, "cache_control": CACHE_1H}],
        "system": [text("Hi", cache_control=CACHE)],
        "messages": [user(text("Hi", cache_control=CACHE))],
        "cache_control": CACHE,
    },
    "a file with its beta": {
        "betas": "files-api-2025-04-14",
        "messages": [user(document(type="file", file_id="file_1"))],
    },
    "fast with its beta": {"model": OPUS_5, "betas": "a, fast-mode-2026-02-01", "speed": "fast"},
    "effort of a system message with its beta": {
        "betas": "mid-conversation-output-config-2026-07-01",
        "messages": [user("Hi"), {**system("Be brief."), "output_config": {"effort": "low"}}],
    },
    "effort of a system message with the beta that Claude Code sends": {
        "betas": "per-turn-control-2026-07-01",
        "messages": [user("Hi"), {**system("Be brief."), "output_config": {"effort": "low"}}],
    },
    "fast where no beta is needed": {"speed": "fast"},
    "no output at all": {"max_tokens": 0},
    "container, geography, diagnostics": {
        "container": "container_1",
        "inference_geo": "us",
        "diagnostics": {"previous_message_id": None},
    },
}


@pytest.mark.parametrize("case", TAKEN)
def test_the_api_takes(case):
    assert problem(**TAKEN[case]) == ""


def test_counting_takes_the_prompt_and_nothing_else():
    count = {"check": validate_count_tokens, "max_tokens": DROP}
    assert problem(**count) == ""
    assert problem(**count, stream=True) == "stream: Extra inputs are not permitted"
    assert problem(**count, messages=[]) == "messages: at least one message is required"


@pytest.mark.parametrize(
    ("fragment", "changes"),
    [
        ("does not support assistant message prefill", {"messages": [user("Hi"), assistant("Well")]}),
        ('type "tool" and "any" are not supported for this model', {"tools": [TOOL], "tool_choice": {"type": "any"}}),
        ("role 'system' is not supported on this model", {"model": HAIKU_45, "messages": [user("Hi"), system("Ho")]}),
        ("deprecated for this model", {"version": OLD, "top_k": 1}),
        ("cannot both be specified", {"version": OLD, "model": HAIKU_45, "temperature": 1, "top_p": 1}),
        ("adaptive thinking is not supported", {"model": HAIKU_45, "thinking": {"type": "adaptive"}}),
        ("which is the maximum", {"max_tokens": 999_999}),
    ],
)
def test_texts_hold_the_fragments_that_a_gateway_learns_from(fragment, changes):
    assert fragment in problem(**changes)

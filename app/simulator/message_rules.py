"""Conversations: roles and their order, prefill, tool results, thinking that comes back."""

from dataclasses import dataclass, field
from typing import Any

from app.simulator.block_rules import SERVER_RESULTS, check_block
from app.simulator.refusal import Refusal
from app.simulator.reports import Drop
from app.simulator.rules import NEW_VERSION, Check, Context, array, fail, fields, obj, one_of, optional
from app.simulator.signatures import Binding, check, check_redacted, prefix_digest

MAX_MESSAGES = 100_000
MAX_IMAGES, MAX_IMAGES_IN_SMALL_WINDOW, SMALL_WINDOW = 600, 100, 200_000
THINKING = ("thinking", "redacted_thinking")
SERVER_CALLS = ("server_tool_use", "mcp_tool_use")


@dataclass(slots=True)
class Turn:
    """Neighbouring messages of one role; `places` are the message indexes it was merged from."""

    role: str
    content: list[dict[str, Any]]
    places: list[int] = field(default_factory=list)

    def ids(self, *kinds: str) -> list[str]:
        """Ids of the calls of these kinds."""
        return [block["id"] for block in self.content if block["type"] in kinds]

    def answered(self, *kinds: str) -> list[str]:
        """Ids that results of these kinds answer."""
        return [block["tool_use_id"] for block in self.content if block["type"] in kinds]


def check_messages(body: dict[str, Any], context: Context) -> None:
    """Raises a Refusal for the first thing in `messages` that the API does not take."""
    messages = body["messages"]
    array(messages, "messages")
    if not messages:
        fail("messages", "at least one message is required")
    if len(messages) > MAX_MESSAGES:
        fail("messages", f"at most {MAX_MESSAGES} messages are allowed")
    for place, message in enumerate(messages):
        _message(message, f"messages.{place}", place == len(messages) - 1, context)
    turns = merged(messages)
    if not any(turn.content for turn in turns):
        fail("messages", "at least one message must have content")
    _order(turns, context)
    _last_turn(turns[-1], body, context)
    _tool_pairs(turns)
    _server_results(turns)
    _documents_agree(turns)
    _number_of_images(turns, context)
    if not body.get("tools") and any(turn.ids("tool_use") or turn.answered("tool_result") for turn in turns):
        raise Refusal("Requests which have `tool_use` or `tool_result` blocks in `messages` must define tools")


def _message(message: Any, path: str, is_last: bool, context: Context) -> None:
    obj(message, path)
    fields(message, path, {"role": one_of("user", "assistant", "system")}, {}, also=("content", *OF_SYSTEM_MESSAGES))
    if "content" not in message:
        fail(f"{path}.content", "Field required")
    role, content = message["role"], message["content"]
    if role == "system" and not context.model.mid_system:
        fail(f"{path}.role", "role 'system' is not supported on this model")
    _system_fields(message, path, context)
    if not content and content in ("", []):
        if not (is_last and role == "assistant") and not message.get("output_config"):
            fail(path, "all messages must have non-empty content except for the optional final assistant message")
        return
    if isinstance(content, str):
        if role != "assistant" and not content.strip():
            fail(path, "text content blocks must contain non-whitespace text")
        return
    array(content, f"{path}.content")
    for place, block in enumerate(content):
        check_block(block, f"{path}.content.{place}", role, context)


OF_SYSTEM_MESSAGES: dict[str, tuple[tuple[str, ...], Check]] = {
    "output_config": (
        ("mid-conversation-output-config-", "mid-conversation-system-", "per-turn-control-"),
        optional(obj),
    ),
    "clear_at": (("mid-conversation-system-clear-at-",), optional(one_of("next_user_message", "never"))),
}
"""What a `system` message may hold besides, with the betas that it needs (Claude Code sends the older one, too)."""


def _system_fields(message: dict[str, Any], path: str, context: Context) -> None:
    for name, (betas, valid) in OF_SYSTEM_MESSAGES.items():
        if name not in message:
            continue
        if message["role"] != "system":
            fail(f"{path}.{name}", "Extra inputs are not permitted")
        context.need_beta(betas, f"{path}.{name}")
        valid(message[name], f"{path}.{name}")
    if message.get("output_config"):
        levels = one_of("low", "medium", "high", "xhigh", "max")
        fields(message["output_config"], f"{path}.output_config", {}, {"effort": optional(levels)})


def with_contents(body: dict[str, Any]) -> dict[str, Any]:
    """The body, with empty content for `system` messages that hold nothing but settings."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not any(map(_lacks_content, messages)):
        return body
    return {**body, "messages": [{**each, "content": []} if _lacks_content(each) else each for each in messages]}


def _lacks_content(message: Any) -> bool:
    return isinstance(message, dict) and "content" not in message and bool(message.get("output_config"))


def merged(messages: list[dict[str, Any]]) -> list[Turn]:
    """The conversation as the API sees it: one turn where several messages of a role follow each other."""
    turns: list[Turn] = []
    for place, message in enumerate(messages):
        content = message["content"]
        blocks = ([{"type": "text", "text": content}] if content else []) if isinstance(content, str) else list(content)
        if turns and turns[-1].role == message["role"]:
            turns[-1].content += blocks
            turns[-1].places.append(place)
        else:
            turns.append(Turn(message["role"], blocks, [place]))
    return turns


def _order(turns: list[Turn], context: Context) -> None:
    # A recording shows an assistant turn at the head being taken under the old version; the new one is not known to.
    if turns[0].role != "user" and (context.version >= NEW_VERSION or turns[0].role == "system"):
        fail("messages", 'first message must use the "user" role')
    for place, turn in enumerate(turns):
        if turn.role != "system":
            continue
        before, after = turns[place - 1], turns[place + 1] if place + 1 < len(turns) else None
        path = f"messages.{turn.places[0]}"
        if before.role == "assistant" and not before.answered(*SERVER_RESULTS):
            fail(path, "a `system` message must follow a `user` message or a server tool result")
        if after and after.role != "assistant":
            fail(path, "a `system` message must be the last message or be followed by an `assistant` message")


def _last_turn(turn: Turn, body: dict[str, Any], context: Context) -> None:
    """Prefill: a final assistant turn that ends in text. What a pause left behind is not one."""
    if turn.role != "assistant":
        return
    if turn.ids("tool_use"):
        fail(f"messages.{turn.places[-1]}", _unanswered(turn.ids("tool_use")))
    if turn.ids(*SERVER_CALLS) or any(block["type"] == "compaction" for block in turn.content):
        return
    if not context.model.prefill:
        raise Refusal(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )
    if (body.get("thinking") or {}).get("type") in ("enabled", "adaptive"):
        fail(f"messages.{turn.places[-1]}", "assistant message prefill is not supported while thinking is enabled")
    if "format" in (body.get("output_config") or {}):
        fail("output_config.format", "assistant message prefill is not supported with structured outputs")
    last = turn.content[-1] if turn.content else {}
    if last.get("type") == "text" and last["text"] != last["text"].rstrip():
        fail("messages", "final assistant content cannot end with trailing whitespace")


def _unanswered(ids: list[str]) -> str:
    return (
        f"`tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(ids)}. Each `tool_use` "
        "block must have a corresponding `tool_result` block in the next message."
    )


def _tool_pairs(turns: list[Turn]) -> None:
    """Each call answered at the head of the next turn, once; no result without its call.

    Ids are unique within a turn only: recordings show one used again in a later turn.
    """
    for place, turn in enumerate(turns):
        calls = turn.ids("tool_use")
        if len(set(calls)) < len(calls):
            fail(f"messages.{place}", "`tool_use` ids must be unique")
        before = turns[place - 1].ids("tool_use") if place else []
        answered = turn.answered("tool_result")
        for at, block in enumerate(turn.content):
            if block["type"] == "tool_result" and block["tool_use_id"] not in before:
                fail(
                    f"messages.{place}.content.{at}",
                    f"unexpected `tool_use_id` found in `tool_result` blocks: {block['tool_use_id']}. Each "
                    "`tool_result` block must have a corresponding `tool_use` block in the previous message.",
                )
        if len(set(answered)) < len(answered):
            fail(f"messages.{place}", "each tool_use must have a single result. Found multiple `tool_result` blocks")
        head = [block.get("tool_use_id") for block in turn.content[: len(answered)]]
        if missing := [call for call in before if call not in head]:
            fail(f"messages.{place - 1}", _unanswered(missing))


def _server_results(turns: list[Turn]) -> None:
    for place, turn in enumerate(turns):
        calls = turn.ids(*SERVER_CALLS)
        for at, block in enumerate(turn.content):
            if block["type"] in SERVER_RESULTS and turn.role == "assistant" and block["tool_use_id"] not in calls:
                fail(
                    f"messages.{place}.content.{at}",
                    f"unexpected `tool_use_id` found in `{block['type']}` blocks: {block['tool_use_id']}. Each "
                    f"`{block['type']}` block must have a corresponding `server_tool_use` block before it.",
                )


def _documents_agree(turns: list[Turn]) -> None:
    wanted = {
        bool((block.get("citations") or {}).get("enabled"))
        for turn in turns
        for block in turn.content
        if block["type"] in ("document", "search_result")
    }
    if len(wanted) > 1:
        fail("messages", "citations must be enabled on all or none of the documents in a request")


def _number_of_images(turns: list[Turn], context: Context) -> None:
    most = MAX_IMAGES if context.model.max_input_tokens > SMALL_WINDOW else MAX_IMAGES_IN_SMALL_WINDOW
    count = 0
    for turn in turns:
        for block in turn.content:
            inner = block.get("content") if block["type"] == "tool_result" else None
            parts = inner if isinstance(inner, list) else [block]
            count += sum(part["type"] == "image" for part in parts)
    if count > most:
        fail("messages", f"too many images: {count} > {most}")


# ------------------------------------------------------------------------------------------- thinking that comes back


def check_thinking(body: dict[str, Any], context: Context) -> tuple[dict[str, Any], list[Drop]]:
    """The body as the model sees it, and which thinking it does not see: that of other accounts and models, and with
    `prefix_mismatch_behavior: "drop_block"` that of another conversation.

    Raises a Refusal for thinking that was altered or made up, and without that setting for another conversation's.
    What is dropped does not count as said when thinking behind it is checked, for it was signed without it.
    """
    thinking = body.get("thinking") or {}
    turns = merged(body["messages"])
    if thinking.get("type") == "enabled":
        _loop_starts_with_thinking(turns)
    drops = (thinking.get("block_binding") or {}).get("prefix_mismatch_behavior") == "drop_block"
    dropped: set[int] = set()
    reports: list[Drop] = []
    for place, turn in enumerate(turns):
        prefix: str | None = None
        for block in turn.content:
            if block["type"] not in THINKING:
                continue
            path = _path_of(block, turn, body["messages"])
            bound = _binding_of(block, path, context)
            if bound is None:
                continue
            reason = None
            if bound.account and bound.account != context.account:
                reason = "organization_binding_mismatch"
            elif bound.family != context.model.family:
                reason = "model_binding_mismatch"
            elif bound.prefix:
                prefix = prefix or prefix_digest(body, _kept(turns[:place], dropped))
                if bound.prefix != prefix:
                    if not drops:
                        fail(path, f"`{block['type']}` block is bound to a different conversation")
                    reason = "prefix_binding_mismatch"
            if reason:
                dropped.add(id(block))
                reports.append({"path": path, "reason": reason})
    return (_without(body, dropped) if dropped else body), reports


def _kept(turns: list[Turn], dropped: set[int]) -> list[dict[str, Any]]:
    return [
        {"role": turn.role, "content": [block for block in turn.content if id(block) not in dropped]} for turn in turns
    ]


def _binding_of(block: dict[str, Any], path: str, context: Context) -> Binding | None:
    if block["type"] == "redacted_thinking":
        bound = check_redacted(block["data"])
        problem = "Invalid `data` in `redacted_thinking` block"
    else:
        bound = check(block["thinking"], block["signature"])
        problem = "Invalid `signature` in `thinking` block"
    if bound is None and not context.leniency.foreign_signatures:
        fail(path, problem)
    return bound


def _path_of(block: dict[str, Any], turn: Turn, messages: list[dict[str, Any]]) -> str:
    for place in turn.places:
        content = messages[place]["content"]
        for at, candidate in enumerate(content if isinstance(content, list) else ()):
            if candidate is block:
                return f"messages.{place}.content.{at}"
    raise LookupError("a block that stands in no message")


def _without(body: dict[str, Any], dropped: set[int]) -> dict[str, Any]:
    messages = [
        {**message, "content": [block for block in message["content"] if id(block) not in dropped]}
        if isinstance(message["content"], list)
        else message
        for message in body["messages"]
    ]
    return {**body, "messages": messages}


def _loop_starts_with_thinking(turns: list[Turn]) -> None:
    """With a thinking budget, the assistant turn whose tools were just answered has to begin with thinking."""
    if len(turns) < 2 or not turns[-1].answered("tool_result"):
        return
    first = turns[-2].content[0]["type"]
    if first not in THINKING:
        fail(
            f"messages.{turns[-2].places[0]}.content.0.type",
            f"Expected `thinking` or `redacted_thinking`, but found `{first}`. When `thinking` is enabled, a final "
            "`assistant` message must start with a thinking block (preceding the lastmost set of `tool_use` and "
            "`tool_result` blocks).",
        )

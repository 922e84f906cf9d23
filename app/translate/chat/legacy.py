"""OpenAI's first function calling (`functions`, `function_call`, the role `function`) in terms of tools.

https://platform.openai.com/docs/api-reference/chat/create#chat-create-functions
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.errors import UntranslatableRequest


def uses_functions(request: Mapping[str, Any]) -> bool:
    """Whether the answer's calls are to be given as `function_call`."""
    return request.get("functions") is not None


def with_tools(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same request in terms of tools; itself where it has nothing of the older kind.

    Raises UntranslatableRequest for what mixes both, or is malformed.
    """
    messages = request["messages"]
    is_legacy = request.get("functions") is not None or request.get("function_call") is not None
    if isinstance(messages, list) and any(_is_legacy(message) for message in messages):
        request = {**request, "messages": _messages(messages)}
    if not is_legacy:
        return request
    if request.get("tools") is not None or request.get("tool_choice") is not None:
        raise UntranslatableRequest("Give either functions or tools.", param="functions", code="invalid_value")
    functions = request.get("functions")
    if not isinstance(functions, list | None):
        raise UntranslatableRequest("functions must be an array.", param="functions", code="invalid_type")
    modern = {key: value for key, value in request.items() if key not in ("functions", "function_call")}
    modern["tools"] = [{"type": "function", "function": function} for function in functions or ()]
    modern["tool_choice"] = _choice(request.get("function_call"))
    modern["parallel_tool_calls"] = False
    return modern


def _choice(function_call: Any) -> Any:
    if isinstance(function_call, dict):
        return {"type": "function", "function": function_call}
    if function_call in (None, "none", "auto"):
        return function_call
    raise UntranslatableRequest(
        "function_call must be 'none', 'auto' or an object with a `name`.", param="function_call", code="invalid_value"
    )


def _is_legacy(message: Any) -> bool:
    return isinstance(message, dict) and (message.get("role") == "function" or message.get("function_call") is not None)


def _messages(messages: list[Any]) -> list[Any]:
    """Calls get ids, by which the results that follow are known."""
    modern = []
    open_calls: dict[str, str] = {}
    for i, message in enumerate(messages):
        if not _is_legacy(message):
            modern.append(message)
        elif message.get("role") == "function":
            name = message.get("name")
            if not isinstance(name, str):
                raise UntranslatableRequest(
                    f"messages[{i}].name must be the name of the function.",
                    param=f"messages[{i}].name",
                    code="missing_required_parameter",
                )
            rest = {key: value for key, value in message.items() if key not in ("role", "name")}
            modern.append({"role": "tool", "tool_call_id": open_calls.pop(name, f"toolu_fc_{name}"), **rest})
        else:
            call = message["function_call"]
            rest = {key: value for key, value in message.items() if key != "function_call"}
            if isinstance(call, dict) and isinstance(call.get("name"), str):
                open_calls[call["name"]] = f"toolu_fc_{i}"
            called = [{"id": f"toolu_fc_{i}", "type": "function", "function": call}]
            given = rest.get("tool_calls")
            others = given if isinstance(given, list) else []
            is_there = any(isinstance(other, dict) and other.get("function") == call for other in others)
            modern.append({**rest, "tool_calls": others if is_there else [*others, *called]})
    return modern

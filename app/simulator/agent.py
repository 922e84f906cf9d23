"""The part of a coding agent's model: which of the client's tools writes a file, and the call that does.

Pure. What is to be written stands in the user's words between backquotes: the file's name, then its text. A tool is
chosen by its name and schema, so that the same words work with Claude Code, editors and programs of one's own.
"""

import re
import shlex
from typing import Any

from app.simulator.generate import instance

Tool = dict[str, Any]

MARK = "sim-agent"
"""Said by the user, it gives this part to any model."""
DEFAULT_FILE, DEFAULT_TEXT = "hello.txt", "Hello from the simulator."
_QUOTED = re.compile(r"`([^`\n]+)`")
_PLAIN_NAME = re.compile(r"\w[\w.-]*")
_WORKING_DIRECTORY = re.compile(r"working directory:\s*(/\S+)", re.IGNORECASE)
_PATHS = ("file_path", "filePath", "path", "filename")
_TEXTS = ("content", "contents", "file_text", "new_text", "text")
_COMMANDS = ("command", "commands", "cmd")
_WRITERS = re.compile(r"write|create|editor", re.IGNORECASE)
_SHELLS = re.compile(r"bash|shell|command|terminal|exec", re.IGNORECASE)


def writing_call(tools: list[Tool], said: str, told: str) -> tuple[Tool, dict[str, Any]] | None:
    """The tool to call and its arguments; None where no tool writes files or runs commands.

    `said` is what the user said last; `told`, all that the client told beside it, may name its working directory.
    "Use the Bash tool" prefers that tool to one that writes files.
    """
    file, content = _wanted(said)
    found = [(tool, call) for tool in tools if (call := _arguments(tool, file, content, told)) is not None]
    found.sort(key=lambda pair: (not _is_named(pair[0], said), not any(name in pair[1] for name in _PATHS)))
    return found[0] if found else None


def _is_named(tool: Tool, said: str) -> bool:
    return f"{tool['name']} tool".lower() in said.lower()


def _wanted(said: str) -> tuple[str, str]:
    """Name and text of the file; a name that leads elsewhere than into the working directory is not taken."""
    file, content, *_ = [*_QUOTED.findall(said), *("", "")]
    return (file if _PLAIN_NAME.fullmatch(file) else DEFAULT_FILE), content or DEFAULT_TEXT


def _arguments(tool: Tool, file: str, content: str, told: str) -> dict[str, Any] | None:
    schema = tool.get("input_schema") or {}
    properties = schema.get("properties") or {}
    path_name = next((name for name in _PATHS if name in properties), None)
    text_name = next((name for name in _TEXTS if name in properties), None)
    command_name = next((name for name in _COMMANDS if name in properties), None)
    given: dict[str, Any] = {}
    if path_name and text_name and _WRITERS.search(tool["name"]):
        folder = _WORKING_DIRECTORY.search(told)
        given = {path_name: f"{folder[1]}/{file}" if folder else file, text_name: content}
    elif command_name and _SHELLS.search(tool["name"]):
        command = f"printf '%s' {shlex.quote(content)} > {shlex.quote(file)}"
        given = {command_name: [command] if properties[command_name].get("type") == "array" else command}
    else:
        return None
    made_up = instance(schema)
    return {**{name: made_up[name] for name in schema.get("required") or () if name in made_up}, **given}

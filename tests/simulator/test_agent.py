"""The part of a coding agent's model: a file is written with whatever tool the client has for that."""

from __future__ import annotations

from typing import Any

import pytest

from app.simulator.agent import writing_call
from app.simulator.events import accumulate
from tests.simulator.test_scenarios import events_of

SAID = "sim-agent: make `a.txt` with `It's me.`"


def tool(name: str, required: list[str], **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": required}
    return {"name": name, "description": name, "input_schema": schema}


TEXT = {"type": "string"}
WRITE = tool("Write", ["file_path", "content"], file_path=TEXT, content=TEXT)
BASH = tool("Bash", ["command"], command=TEXT, timeout={"type": "number"}, run_in_background={"type": "boolean"})
EDIT = tool("Edit", ["file_path", "old_string", "new_string"], file_path=TEXT, old_string=TEXT, new_string=TEXT)
READ = tool("Read", ["file_path"], file_path=TEXT)
SHELL_LINE = """printf '%s' 'It'"'"'s me.' > a.txt"""


@pytest.mark.parametrize(
    ("tools", "name", "arguments"),
    [
        ([BASH, EDIT, READ, WRITE], "Write", {"file_path": "a.txt", "content": "It's me."}),
        ([EDIT, READ, BASH], "Bash", {"command": SHELL_LINE}),
        (
            [tool("write", ["content", "filePath"], content=TEXT, filePath=TEXT)],
            "write",
            {"filePath": "a.txt", "content": "It's me."},
        ),
        ([tool("run_shell", ["command"], command=TEXT)], "run_shell", {"command": SHELL_LINE}),
        (
            [tool("run_commands", ["commands"], commands={"type": "array", "items": TEXT})],
            "run_commands",
            {"commands": [SHELL_LINE]},
        ),
        (
            [tool("bash", ["command", "title"], command=TEXT, title=TEXT)],
            "bash",
            {"command": SHELL_LINE, "title": "A short title"},
        ),
    ],
    ids=["Claude Code", "no tool that writes", "opencode", "shell", "Cline", "further arguments"],
)
def test_a_tool_that_writes_is_chosen_by_name_and_schema(
    tools: list[dict[str, Any]], name: str, arguments: dict[str, Any]
) -> None:
    found = writing_call(tools, SAID, "")
    assert found is not None
    assert (found[0]["name"], found[1]) == (name, arguments)


def test_the_user_may_name_the_tool() -> None:
    found = writing_call([WRITE, BASH], f"{SAID} Use the bash tool.", "")
    assert found is not None
    assert found[0] == BASH


def test_the_file_is_in_the_working_directory_if_the_client_tells_it() -> None:
    found = writing_call([WRITE], SAID, "You are here:\n - Primary working directory: /srv/ann/work\n - Shell: bash")
    assert found is not None
    assert found[1]["file_path"] == "/srv/ann/work/a.txt"


@pytest.mark.parametrize("name", ["../a.txt", "/etc/passwd", "a b", ".bashrc", "-rf"])
def test_a_name_that_leads_elsewhere_is_not_taken(name: str) -> None:
    found = writing_call([WRITE], f"sim-agent: make `{name}` with `x`", "")
    assert found is not None
    assert found[1] == {"file_path": "hello.txt", "content": "x"}


def test_without_a_tool_that_writes_nothing_is_called() -> None:
    search = tool("Search", ["path", "text"], path=TEXT, text=TEXT)
    ask = tool("Ask", ["command"], command=TEXT)
    assert writing_call([READ, EDIT, search, ask], SAID, "") is None


def events_for(model: str, *messages: dict[str, Any], **body: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": SAID}, *messages], "tools": [WRITE], **body}
    return accumulate(events_of(model, **asked))


@pytest.mark.parametrize("model", ["sim-agent", "claude-opus-5-5"])
def test_a_call_is_thought_about_and_its_result_told(model: str) -> None:
    first = events_for(model)
    assert [block["type"] for block in first["content"]] == ["thinking", "text", "tool_use"]
    assert first["stop_reason"] == "tool_use"
    call = first["content"][-1]
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "written"}
    second = events_for(
        model, {"role": "assistant", "content": first["content"]}, {"role": "user", "content": [result]}
    )
    assert [block["type"] for block in second["content"]] == ["thinking", "text"]
    assert "Write answered: written" in second["content"][-1]["text"]


def test_a_request_without_tools_gets_text() -> None:
    assert [block["type"] for block in events_for("sim-agent", tools=[])["content"]] == ["thinking", "text"]

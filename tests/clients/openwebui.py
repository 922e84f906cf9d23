"""Open WebUI as it behaves at its connection: what it sends for a user's message, and what it reads of the answers.

A stand-in for the real program, after what version 0.12.4 was seen to do.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import requests

Message = dict[str, Any]

STRING: dict[str, Any] = {"type": "string"}
COUNT: dict[str, Any] = {"type": "integer", "default": 5, "description": "How many to return at most."}
SKIP: dict[str, Any] = {"type": "integer", "default": 0, "description": "How many to skip, for further pages."}
NOTE: dict[str, Any] = {"note_id": {**STRING, "description": "The id that the list of notes gave."}}
EVENT: dict[str, Any] = {"event_id": {**STRING, "description": "The id that the list of events gave."}}
WHEN: dict[str, Any] = {
    "type": ["integer", "null"],
    "default": None,
    "description": "Seconds since 1970; null for no limit.",
}
STATES = {"type": "string", "enum": ["pending", "in_progress", "completed", "cancelled"], "default": "pending"}

BUILT_IN: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "get_current_timestamp": ("The present moment, as seconds since 1970 and in words.", {}, []),
    "calculate_timestamp": (
        "A moment so many days, weeks, months or years before now.",
        {unit: {"type": "integer", "default": 0} for unit in ("days_ago", "weeks_ago", "months_ago", "years_ago")},
        [],
    ),
    "search_web": ("Pages of the web that fit a query.", {"query": STRING, "count": COUNT}, ["query"]),
    "fetch_url": ("The text of a page of the web.", {"url": {**STRING, "description": "https address"}}, ["url"]),
    "generate_image": ("An image made from a prompt.", {"prompt": STRING}, ["prompt"]),
    "edit_image": (
        "Images changed as a prompt says.",
        {"prompt": STRING, "image_urls": {"type": "array", "items": STRING}},
        ["prompt", "image_urls"],
    ),
    "execute_code": ("Runs Python and gives what it printed.", {"code": STRING}, ["code"]),
    "search_memories": ("What is remembered of the user.", {"query": STRING, "count": COUNT}, ["query"]),
    "list_memories": ("All that is remembered of the user.", {}, []),
    "add_memory": ("Remembers something of the user.", {"content": STRING}, ["content"]),
    "replace_memory_content": (
        "Changes what is remembered.",
        {"memory_id": STRING, "content": STRING},
        ["memory_id", "content"],
    ),
    "delete_memory": ("Forgets something.", {"memory_id": STRING}, ["memory_id"]),
    "search_notes": (
        "The user's notes that fit a query.",
        {"query": STRING, "count": COUNT, "start_timestamp": WHEN, "end_timestamp": WHEN},
        ["query"],
    ),
    "view_note": ("A whole note.", NOTE, ["note_id"]),
    "write_note": ("A new note.", {"title": STRING, "content": STRING}, ["title", "content"]),
    "replace_note_content": (
        "Another text for a note.",
        {**NOTE, "content": STRING, "title": {"anyOf": [STRING, {"type": "null"}], "default": None}},
        ["note_id", "content"],
    ),
    "search_chats": (
        "Earlier chats that fit a query.",
        {"query": STRING, "count": COUNT, "start_timestamp": WHEN, "end_timestamp": WHEN},
        ["query"],
    ),
    "view_chat": ("A whole earlier chat.", {"chat_id": STRING}, ["chat_id"]),
    "search_channels": ("Channels by name.", {"query": STRING, "count": COUNT}, ["query"]),
    "search_channel_messages": ("What was said in channels.", {"query": STRING, "count": COUNT}, ["query"]),
    "view_channel_thread": ("A thread of a channel.", {"parent_message_id": STRING}, ["parent_message_id"]),
    "list_knowledge_bases": ("The knowledge bases.", {"count": COUNT, "skip": SKIP}, []),
    "search_knowledge_bases": ("Knowledge bases by name.", {"query": STRING, "count": COUNT, "skip": SKIP}, ["query"]),
    "query_knowledge_bases": ("Passages that fit a query.", {"query": STRING, "count": COUNT}, ["query"]),
    "search_knowledge_files": (
        "Files by name.",
        {"query": STRING, "knowledge_id": {"anyOf": [STRING, {"type": "null"}], "default": None}, "skip": SKIP},
        ["query"],
    ),
    "view_knowledge_file": (
        "A part of a file.",
        {"file_id": STRING, "offset": SKIP, "max_chars": {"type": "integer", "default": 10_000}},
        ["file_id"],
    ),
    "create_tasks": (
        "A list of what is to be done.",
        {
            "tasks": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"content": STRING, "status": STATES},
                    "required": ["content"],
                    "additionalProperties": False,
                },
            }
        },
        ["tasks"],
    ),
    "update_task": ("Another state of a task.", {"id": STRING, "status": STATES}, ["id", "status"]),
    "search_calendar_events": ("Events that fit a query.", {"query": STRING, "start": WHEN, "end": WHEN}, ["query"]),
    "create_calendar_event": (
        "A new event.",
        {"title": STRING, "start": STRING, "labels": {"type": "object", "additionalProperties": {"type": "string"}}},
        ["title", "start"],
    ),
    "delete_calendar_event": ("Takes an event off the calendar.", EVENT, ["event_id"]),
    "view_skill": ("The instructions of a skill.", {"name": STRING}, ["name"]),
}


def built_in_tools() -> list[dict[str, Any]]:
    """The tools of each chat: no `strict`, some schemas without `required`."""
    tools = []
    for name, (description, properties, required) in BUILT_IN.items():
        parameters: dict[str, Any] = {"type": "object", "properties": properties}
        if required:
            parameters["required"] = required
        tools.append(
            {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}
        )
    return copy.deepcopy(tools)


class ShownError(Exception):
    """An error before an answer began: Open WebUI shows its message in place of one."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Answer:
    """What was read of one streamed answer."""

    content: str = ""
    reasoning: str = ""
    reasoning_details: list[dict[str, Any]] = field(default_factory=list)
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=dict)
    finish_reason: str | None = None
    error: str | None = None
    is_done: bool = False
    usage_count: int = 0
    """How many chunks carried usage; it is summed, so more than one would be counted twice."""

    def read(self, chunk: dict[str, Any]) -> None:
        if "error" in chunk and "choices" not in chunk:
            self.error = chunk["error"]["message"]
            return
        if usage := chunk.get("usage"):
            self.usage_count += 1
            for name, value in usage.items():
                if isinstance(value, int):
                    self.usage[name] = self.usage.get(name, 0) + value
        for choice in chunk["choices"]:
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            self._read_delta(choice["delta"])

    def _read_delta(self, delta: dict[str, Any]) -> None:
        self.content += delta.get("content") or ""
        self.reasoning += delta.get("reasoning_content") or delta.get("reasoning") or delta.get("thinking") or ""
        self.reasoning_details += delta.get("reasoning_details") or []
        self.sources += [note["url_citation"] for note in delta.get("annotations") or [] if "url_citation" in note]
        for piece in delta.get("tool_calls") or []:
            if piece["index"] == len(self.tool_calls):
                self.tool_calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
            call = self.tool_calls[piece["index"]]
            call["id"] = piece.get("id") or call["id"]
            call["function"]["name"] += piece["function"].get("name") or ""
            call["function"]["arguments"] += piece["function"].get("arguments") or ""

    def as_message(self) -> Message:
        """What is kept of it for the calls to come."""
        message: Message = {"role": "assistant", "content": self.content}
        if self.tool_calls:
            message["tool_calls"] = self.tool_calls
        if details := [kept(detail) for detail in self.reasoning_details if is_kept(detail)]:
            message["reasoning_details"] = details
        return message


def is_kept(detail: dict[str, Any]) -> bool:
    return detail.get("format") == "anthropic-claude-v1" and bool(detail.get("signature"))


def kept(detail: dict[str, Any]) -> dict[str, Any]:
    return {name: detail[name] for name in ("type", "text", "signature", "format", "index") if name in detail}


@dataclass
class Turn:
    """What came of one message of the user's: the answer, the calls on its way, and the three tasks beside it."""

    answers: list[Answer]
    title: Any
    follow_ups: Any
    tags: Any

    @property
    def answer(self) -> Answer:
        return self.answers[-1]


def found_in(content: str, kind: str) -> Any:
    """What stands under that name in the JSON between the first brace and the last one; None where there is none."""
    try:
        return json.loads(content[content.index("{") : content.rindex("}") + 1]).get(kind)
    except ValueError:
        return None


TASKS: dict[str, tuple[str, Any]] = {
    "title": ("Write a title of three to five words, with an emoji, for the chat below.", "a title"),
    "follow_ups": ("Suggest three questions that the user might ask next in the chat below.", ["One?", "Two?"]),
    "tags": ("Give one to three broad tags for the chat below.", ["tag1", "tag2"]),
}
"""What each asks for, and the value that it shows."""


@dataclass
class OpenWebUI:
    """One user with one chat. `base_url` is as an admin typed it; `parameters` are those set for the model."""

    base_url: str
    key: str
    model: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    system: str | None = None
    run_tool: Callable[[str, dict[str, Any]], str] = lambda name, arguments: f"{name} is done"
    keeps_reasoning_details: bool = True
    messages: list[Message] = field(default_factory=list)
    last_headers: dict[str, str] = field(default_factory=dict)
    _entries: dict[str, Any] = field(default_factory=dict)
    _answered_by: str = ""

    # ----------------------------------------------------------------------------------------------------- models

    def models(self) -> dict[str, Any]:
        """The list by id; also what its button to verify a connection does."""
        asked: dict[str, Any] = {"headers": self._headers(), "timeout": 10, "allow_redirects": False}
        with requests.get(f"{self.base_url}/models", **asked) as answer:
            if answer.status_code != 200:
                raise ShownError(answer.status_code, answer.json()["error"]["message"])
            assert answer.headers["content-type"] == "application/json"
            self._entries = {entry["id"]: entry for entry in answer.json()["data"]}
        return self._entries

    def _headers(self) -> dict[str, str]:
        # Not kept alive: what the garbage collector has not found yet would hold up a gateway that stops.
        return {"connection": "close", **({"authorization": f"Bearer {self.key}"} if self.key else {})}

    def _reports_usage(self) -> bool:
        entry = (self._entries or self.models()).get(self.model, {})
        return bool(entry.get("info", {}).get("meta", {}).get("capabilities", {}).get("usage"))

    # ------------------------------------------------------------------------------------------------------- chat

    def say(self, content: Any) -> Turn:
        """A message of the user's: the chat and its title at once, then the follow-ups and the tags."""
        self.messages.append({"role": "user", "content": content})
        with ThreadPoolExecutor(1) as beside:
            title = beside.submit(self._task, "title", max_tokens=1000)
            answers = self._chat()
            return Turn(answers, title.result(), self._task("follow_ups"), self._task("tags"))

    def ask(self, content: Any) -> Answer:
        """The same without title, follow-ups and tags, which an admin can switch off."""
        self.messages.append({"role": "user", "content": content})
        return self._chat()[-1]

    def go_on(self) -> Answer:
        """Its button to continue an answer: the last message is the assistant's, and the new text is added to it."""
        (answer,) = self._chat(continues=True)
        return answer

    def pieces(self, content: Any) -> Generator[Answer]:
        """The answer as it grows. Whoever stops listening has pressed the stop button."""
        self.messages.append({"role": "user", "content": content})
        yield from self._stream()

    def _chat(self, *, continues: bool = False) -> list[Answer]:
        """The answer, with those before it that called tools."""
        answers: list[Answer] = []
        while True:
            *_, answer = self._stream()
            answers.append(answer)
            if continues:
                self.messages[-1]["content"] += answer.content
                return answers
            if answer.content or answer.tool_calls:
                self.messages.append(answer.as_message())
            self._answered_by = self.model
            if answer.error is not None or not answer.tool_calls:
                return answers
            for call in answer.tool_calls:
                result = self.run_tool(call["function"]["name"], json.loads(call["function"]["arguments"]))
                self.messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})

    def _stream(self) -> Generator[Answer]:
        asked: dict[str, Any] = {
            "model": self.model,
            "messages": self._sent_messages(),
            "stream": True,
            "tools": built_in_tools(),
            **self.parameters,
        }
        if self._reports_usage():
            asked["stream_options"] = {"include_usage": True}
        answer = Answer()
        with self._post(asked, stream=True) as response:
            assert "text/event-stream" in response.headers["content-type"]
            for line in response.iter_lines():
                if not line.startswith(b"data:"):
                    continue
                data = line.removeprefix(b"data:").strip()
                if data == b"[DONE]":
                    answer.is_done = True
                    break
                answer.read(json.loads(data))
                yield answer
        yield answer

    def _sent_messages(self) -> list[Message]:
        messages = copy.deepcopy(self.messages)
        for message in messages:
            if not self.keeps_reasoning_details or (self._answered_by and self._answered_by != self.model):
                message.pop("reasoning_details", None)
        return [{"role": "system", "content": self.system}, *messages] if self.system else messages

    def _task(self, kind: str, **fields: Any) -> Any:
        said = "\n".join(f"{m['role'].upper()}: {m['content']}" for m in self.messages if m["role"] != "tool")
        task, shown = TASKS[kind]
        output = f"### Output:\nJSON format: {json.dumps({kind: shown})}"
        prompt = f"### Task:\n{task}\n{output}\n### Chat History:\n<chat_history>\n{said}\n</chat_history>"
        asked = {"model": self.model, "messages": [{"role": "user", "content": prompt}], "stream": False, **fields}
        with self._post(asked) as response:
            return found_in(response.json()["choices"][0]["message"]["content"] or "", kind)

    def _post(self, asked: dict[str, Any], *, stream: bool = False) -> requests.Response:
        url = f"{self.base_url.rstrip('/')}/chat/completions"
        response = requests.post(url, json=asked, headers=self._headers(), stream=stream, timeout=30)
        self.last_headers = dict(response.headers)
        if response.status_code != 200:
            with response:
                raise ShownError(response.status_code, response.json()["error"]["message"])
        return response

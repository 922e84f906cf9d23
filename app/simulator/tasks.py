"""Open WebUI's tasks beside a chat (title, tags, follow-ups and others), answered as a model would: with raw JSON.

Such a prompt begins with `### Task:` and shows the JSON it wants behind `JSON format:`; older ones name its keys.
"""

import re
from typing import Any

import orjson

MARK = "### Task:"
_FORMAT = re.compile(r"JSON format:?\s*(\{.*?\})\s*(?:\n|$)", re.DOTALL)
_HISTORY = re.compile(r"### Chat(?: History)?:?\s*(?:<chat_history>)?(.*)", re.DOTALL)
_SAID = re.compile(r"^\s*(?:USER|user)\s*:\s*(.+)$", re.MULTILINE)
_WORD = re.compile(r"[^\W_]{2,}")
_KINDS = (("title", "title"), ("follow-up", "follow_ups"), ("questions", "follow_ups"), ("tags", "tags"))
_LONGEST_TITLE = 5


def answer_to_task(prompt: str) -> str | None:
    """The JSON that a task's prompt asks for; None for what is no such prompt."""
    if not prompt.startswith(MARK):
        return None
    task = prompt[len(MARK) :]
    history = _HISTORY.search(task)
    said = _SAID.findall(history[1]) if history else []
    return orjson.dumps(_filled(_wanted(task), said[0].strip() if said else "this chat")).decode()


def _wanted(task: str) -> dict[str, Any]:
    shown = _FORMAT.search(task)
    if shown is not None:
        try:
            example = orjson.loads(shown[1])
        except orjson.JSONDecodeError:
            example = None
        if isinstance(example, dict) and example:
            return example
    instruction = task.strip().partition("\n")[0].lower()
    kind = next((key for word, key in _KINDS if word in instruction), "answer")
    return {kind: [""] if kind in ("tags", "follow_ups") else ""}


def _filled(example: dict[str, Any], said: str) -> dict[str, Any]:
    words = _WORD.findall(said) or ["Chat"]
    matter = max(words, key=len)
    lists = {
        "tags": ["General", matter.capitalize()],
        "queries": [" ".join(words[:8])],
        "follow_ups": [
            f"Can you say more about {matter.lower()}?",
            "What would an example look like?",
            "What should I read next?",
        ],
    }
    texts = {"title": "💬 " + " ".join(words[:_LONGEST_TITLE]).capitalize()}
    return {
        key: lists.get(key, [words[0]]) if isinstance(value, list) else texts.get(key, " ".join(words[:8]))
        for key, value in example.items()
    }

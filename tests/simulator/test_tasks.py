"""What Open WebUI asks beside a chat, in its own words or an admin's."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from app.simulator.tasks import answer_to_task

HISTORY = "### Chat History:\n<chat_history>\nUSER: How do I bake bread?\nASSISTANT: With flour.\n</chat_history>"
TITLE = (
    "### Task:\nGenerate a concise, 3-5 word title with an emoji.\n### Guidelines:\n- No quotes.\n### Output:\n"
    'JSON format: { "title": "your concise title here" }\n### Examples:\n- { "title": "📉 Stock Market Trends" }\n'
    + HISTORY
)
TAGS = '### Task:\nGenerate 1-3 broad tags.\n### Output:\nJSON format: { "tags": ["tag1", "tag2"] }\n' + HISTORY
FOLLOW_UPS = (
    "### Task:\nSuggest 3-5 relevant follow-up questions or prompts.\n### Output:\n"
    'JSON format: { "follow_ups": ["Question 1?", "Question 2?"] }\n' + HISTORY
)


def answered(prompt: str) -> Any:
    said = answer_to_task(prompt)
    assert said is not None
    return orjson.loads(said)


def test_a_title_is_a_few_words_of_the_chat() -> None:
    assert answered(TITLE) == {"title": "💬 How do bake bread"}


def test_tags_are_a_list_of_words() -> None:
    assert answered(TAGS) == {"tags": ["General", "Bread"]}


def test_follow_ups_are_questions() -> None:
    questions = answered(FOLLOW_UPS)["follow_ups"]
    assert len(questions) == 3
    assert all(question.endswith("?") for question in questions)


@pytest.mark.parametrize(
    ("instruction", "key", "kind"),
    [
        ("Write a title of three words.", "title", str),
        ("Suggest three questions that may come next.", "follow_ups", list),
        ("Give one to three broad tags.", "tags", list),
        ("Summarise it.", "answer", str),
    ],
)
def test_a_prompt_that_shows_no_json_is_told_by_its_words(instruction: str, key: str, kind: type) -> None:
    made = answered(f"### Task:\n{instruction}\nAnswer with raw JSON.\n### Chat:\nuser: Hello there")
    assert list(made) == [key]
    assert isinstance(made[key], kind)
    assert made[key]


def test_other_keys_are_those_that_the_prompt_shows() -> None:
    made = answered('### Task:\nQueries.\nJSON format: {"queries": ["a"], "why": "b"}\n### Chat:\nuser: 5')
    assert made == {"queries": ["Chat"], "why": "Chat"}


def test_what_is_no_task_is_answered_as_ever() -> None:
    assert answer_to_task("Hello") is None
    assert answer_to_task("Please read ### Task: aloud") is None

"""What a client's request has become: the request for Anthropic, and what its answer's translator must know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.translate.notes import Note

API_VERSION = "2026-10-21"
API_VERSION_WITH_SAMPLING = "2023-06-01"


@dataclass(frozen=True)
class ReplyContext:
    """What the answer's translation must remember of the request."""

    include_usage: bool = False
    always_usage: bool = False
    """Usage stands on the finish chunk, too, where the client did not ask for a chunk of its own."""
    tool_names: Mapping[str, str] | None = None
    """Upstream name to the client's, of the tools that had to be renamed."""
    parameter_names: Mapping[str, Mapping[str, str]] | None = None
    """By upstream name of the tool, upstream name to the client's, of the parameters that had to be renamed."""
    custom_tools: frozenset[str] = frozenset()
    """Upstream names of the tools that take free text."""
    text_is_call_of: str | None = None
    """The upstream name of the tool whose arguments the answer's text is."""
    call_is_text_of: str | None = None
    """The upstream name of the tool whose arguments are the answer's text."""
    calls_functions: bool = False
    """Calls are given as the older `function_call`."""
    cites_documents: bool = False
    """The client asked for citations of documents, for which OpenAI's API has no type."""
    stops: tuple[str, ...] = ()
    """Stop strings that Claude refuses, so that the gateway cuts at them."""
    strips_json: bool = False
    """Prose around a JSON object is left out."""
    unwraps_json: bool = False
    """The answer is the value of the only property of the object that Claude writes."""
    exposes_reasoning: bool = True
    shows_anthropic_content: bool = False
    """The client wants Claude's own blocks as well."""
    refusal_finish: str = "content_filter"
    refusal_text: str = "content"
    """`content`: a refusal's text stands there, too, where nothing else was written."""
    metadata: Mapping[str, str] | None = None
    demand: str | None = None
    """What the model is told once more when it calls no tool although it must."""
    told: str | None = None
    """Digest of the conversation: part of the answer's name in the gateway's memory (chat/memory.py)."""
    message_sources: tuple[tuple[int, ...], ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def annotates(self) -> bool:
        """Whether citations can be told: of text that is no JSON."""
        is_json = self.strips_json or self.unwraps_json or self.text_is_call_of or self.call_is_text_of
        return not is_json

    @property
    def shows_what_was_written(self) -> bool:
        """Whether the client sees Claude's text and calls as they are."""
        altered = self.stops or self.strips_json or self.unwraps_json or self.text_is_call_of or self.call_is_text_of
        return not altered


@dataclass(frozen=True)
class Translation:
    """`body` lacks `stream`; `may_run_long` asks for a stream upstream even if the client wants none. `notes` and
    `system_sources` are for whoever wants to know what became of the request."""

    body: dict[str, Any]
    headers: dict[str, str]
    may_run_long: bool
    reply: ReplyContext
    caches_for_an_hour: bool = False
    """All that it writes into the prompt cache."""
    notes: tuple[Note, ...] = ()
    system_sources: tuple[int | None, ...] = ()

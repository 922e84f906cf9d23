"""Claude's citations as the annotations of a message.

https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/web-search-tool,
https://platform.openai.com/docs/guides/tools-web-search
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.translate import exact_json


def _to_annotation(citation: Mapping[str, Any], start: int, end: int) -> dict[str, Any] | None:
    """An annotation of the characters from `start` to `end` of the answer; None for a citation that has none.

    Citations of documents have no counterpart in OpenAI's API: they get a type of their own.
    """
    kind = str(citation.get("type"))
    url = citation.get("url") if kind == "web_search_result_location" else citation.get("source")
    if kind in ("web_search_result_location", "search_result_location") and _is_url(url):
        cited = {"start_index": start, "end_index": end, "url": url, "title": citation.get("title") or ""}
        return {"type": "url_citation", "url_citation": cited}
    if kind in ("char_location", "page_location", "content_block_location", "search_result_location"):
        own = {name: value for name, value in citation.items() if name not in ("type", "file_id") and value is not None}
        return {"type": "document_citation", "document_citation": {**own, "start_index": start, "end_index": end}}
    return None


def _is_url(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("http://", "https://"))


def to_annotations(citations: Any, start: int, end: int, *, of_documents: bool) -> list[dict[str, Any]]:
    """One annotation for each citation of a text block; those that say the same of the same characters are one."""
    found: dict[Any, dict[str, Any]] = {}
    for citation in citations or ():
        annotation = _to_annotation(citation, start, end)
        if annotation is None or (annotation["type"] != "url_citation" and not of_documents):
            continue
        found.setdefault(_what_it_says(annotation), annotation)
    return list(found.values())


def _what_it_says(annotation: Mapping[str, Any]) -> Any:
    if annotation["type"] == "url_citation":
        return annotation["url_citation"]["url"]
    return exact_json.dumps(annotation)

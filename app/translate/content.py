"""Content parts of a message into content blocks: text, images and documents.

https://docs.anthropic.com/en/docs/build-with-claude/vision,
https://docs.anthropic.com/en/docs/build-with-claude/pdf-support
"""

from __future__ import annotations

import base64
import codecs
import string
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.errors import UntranslatableRequest, shown
from app.translate import exact_json
from app.translate.caching import mark_last, takes_breakpoint, to_cache_control
from app.translate.native import FILES_BETA, IN_ASSISTANT, IN_USER, SERVER_CALLS, to_native_block
from app.translate.notes import Notes
from app.translate.pause import Pause, paced
from app.translate.tools import to_tool_input

Block = dict[str, Any]

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
_PDF = b"%PDF"
_IMAGE_KINDS = "JPEG, PNG, GIF or WebP"
_CITABLE = ("document", "search_result")
_BYTE_ORDER_MARKS = (  # that of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"", "utf-8-sig"),
)
_WINDOWS = "windows-1252"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_BLANKS = string.whitespace.encode() + bytes(range(0x1C, 0x20))
_DECODED_AT_ONCE = 2 * 1024 * 1024


def is_blank(text: str) -> bool:
    """Whether the API would refuse `text` as a block of its own."""
    return not text or text.isspace()


def text_block(text: str) -> Block:
    return {"type": "text", "text": text}


def to_text_blocks(content: Any, param: str, notes: Notes) -> list[Block]:
    """Blocks of a system or developer message, which may hold text only; blank ones are left out."""
    return _without_blanks(_to_blocks(content, param, _SYSTEM_PARTS, "in this role's messages", notes), notes.pause)


def to_assistant_blocks(content: Any, param: str, notes: Notes) -> list[Block]:
    """Blocks of an assistant's content: text, refusals, and what Claude itself once wrote."""
    return _without_blanks(_to_blocks(content, param, _ASSISTANT_PARTS, "in an assistant message", notes), notes.pause)


def to_user_blocks(content: Any, param: str, notes: Notes) -> list[Block]:
    """Blocks of a user message; blank texts are left out."""
    return _without_blanks(_to_blocks(content, param, _USER_PARTS, "in a user message", notes), notes.pause)


def to_result_blocks(content: Any, param: str, notes: Notes) -> list[Block]:
    """Blocks within a tool result; blank texts are left out."""
    return _without_blanks(_to_blocks(content, param, _RESULT_PARTS, "in a tool message", notes), notes.pause)


def _without_blanks(blocks: list[Block], pause: Pause) -> list[Block]:
    """The breakpoint of a block that is left out moves to the one before it."""
    kept: list[Block] = []
    marked: list[Block] = []
    for block in paced(blocks, pause):
        if block["type"] != "text" or not is_blank(block["text"]):
            kept.append(block)
            marked = [block] if takes_breakpoint(block) else marked
        elif "cache_control" in block:
            mark_last(marked, block["cache_control"])
    return kept


def _to_blocks(content: Any, param: str, parts: Mapping[str, Part], where: str, notes: Notes) -> list[Block]:
    if content is None:
        return []
    if isinstance(content, str):
        return [text_block(content)]
    if not isinstance(content, list):
        notes.forgive(
            UntranslatableRequest(
                f"{param} must be a string or an array of content parts.", param=param, code="invalid_type"
            )
        )
        return []
    blocks: list[Block] = []
    marked: list[Block] = []
    """The last one that takes a breakpoint."""
    lost: set[str] = set()
    for i, part in enumerate(content):
        notes.pause()
        path = f"{param}[{i}]"
        try:
            block = _to_block(part, path, parts, where, notes)
        except UntranslatableRequest as fault:
            notes.forgive(fault)
            block = None
            lost |= _ids_of(part) if parts is _ASSISTANT_PARTS else set()
        if block is not None:
            blocks.append(block)
            marked = [block] if takes_breakpoint(block) else marked
        if isinstance(part, dict):
            mark_last(marked if block is None else [block], control_of(part, path, notes))
    return [block for block in blocks if not _ids_of(block) & lost] if lost else blocks


def control_of(holder: Mapping[str, Any], path: str, notes: Notes) -> dict[str, Any] | None:
    """The breakpoint of a message or a part; one in the history that is none is left out."""
    try:
        return to_cache_control(holder, path)
    except UntranslatableRequest as fault:
        notes.forgive(fault)
        return None


def _to_block(part: Any, path: str, parts: Mapping[str, Part], where: str, notes: Notes) -> Block | None:
    """None for a part that says nothing."""
    if isinstance(part, str):
        return text_block(part)
    if not isinstance(part, dict):
        raise UntranslatableRequest(f"{path} must be an object with a `type`.", param=path, code="invalid_type")
    kind = part.get("type")
    known = parts.get(kind) if isinstance(kind, str) else None
    if known is None:
        raise UntranslatableRequest(
            f"{path}.type is {shown(kind)}; accepted {where} are {_accepted(parts)}.",
            param=f"{path}.type",
            code="invalid_value",
        )
    return known.convert(part, path, notes)


def _ids_of(part: Any) -> set[str]:
    """What a call and its result in the same message have in common: the API takes neither alone."""
    ids = (part.get("id"), part.get("tool_use_id")) if isinstance(part, dict) else ()
    return {id for id in ids if isinstance(id, str)}


def _accepted(parts: Mapping[str, Part]) -> str:
    return ", ".join(repr(kind) for kind, part in parts.items() if part.convert not in (_audio_part, _left_over_part))


def _text_part(part: Mapping[str, Any], path: str, notes: Notes) -> Block:
    text = part.get("text")
    if not isinstance(text, str):
        raise UntranslatableRequest(f"{path}.text must be a string.", param=f"{path}.text", code="invalid_type")
    return text_block(text)


def _assistant_text_part(part: Mapping[str, Any], path: str, notes: Notes) -> Block:
    block = _text_part(part, path, notes)
    citations = part.get("citations")
    if not isinstance(citations, list) or not citations or not all(isinstance(each, dict) for each in citations):
        return block
    return {**block, "citations": citations}


def _refusal_part(part: Mapping[str, Any], path: str, notes: Notes) -> Block:
    if not isinstance(part.get("refusal"), str):
        raise UntranslatableRequest(f"{path}.refusal must be a string.", param=f"{path}.refusal", code="invalid_type")
    return text_block(part["refusal"])


def _audio_part(part: Mapping[str, Any], path: str, notes: Notes) -> Block:
    raise UntranslatableRequest(
        "Claude models do not take audio input.", param=f"{path}.type", code="unsupported_value"
    )


def _left_over_part(part: Mapping[str, Any], path: str, notes: Notes) -> None:
    """LangChain leaves pieces of a streamed call behind, which stands beside them as a whole."""


def _image_part(part: Mapping[str, Any], path: str, notes: Notes) -> Block:
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    param = f"{path}.image_url.url" if isinstance(image, dict) else f"{path}.image_url"
    if not isinstance(url, str) or not url:
        raise UntranslatableRequest(
            f"{path}.image_url must be an object with a `url`.", param=param, code="missing_required_parameter"
        )
    if isinstance(image, dict) and image.get("detail") == "low":
        notes.warn("image_detail_ignored", f"{path}.image_url.detail", "Claude has no low-detail mode for images.")
    scheme = url[:8].lower()
    if scheme.startswith("data:"):
        return _image_of(*_decoded(url, param, notes.pause), param)
    if scheme.startswith(("https://", "http://")):
        if scheme.startswith("http:"):
            notes.warn("image_url_not_https", param, "Anthropic fetches images over https only.")
        return {"type": "image", "source": {"type": "url", "url": url}}
    if url.startswith(("file-", "file_")):
        notes.need_beta(FILES_BETA)
        return {"type": "image", "source": {"type": "file", "file_id": url}}
    raise UntranslatableRequest(f"{param} must be a data: or https: URL.", param=param, code="invalid_image_url")


def _image_of(data: str, raw: bytes, param: str) -> Block:
    """An image block; a document for a PDF, which many clients send as an image."""
    if raw.startswith(_PDF):
        return _document(_pdf(data), None)
    media_type = sniff_image(raw)
    if media_type is None:
        raise UntranslatableRequest(
            f"{param} does not hold an image that Claude takes: {_IMAGE_KINDS}.",
            param=param,
            code="invalid_image_format",
        )
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


def _file_source(file_id: Any, param: str, notes: Notes) -> dict[str, Any]:
    if not isinstance(file_id, str) or not file_id.startswith("file_"):
        raise UntranslatableRequest(
            f"{param} must be the id of a file at Anthropic (file_…): OpenAI file ids cannot be resolved.",
            param=param,
            code="invalid_value",
        )
    notes.need_beta(FILES_BETA)
    return {"type": "file", "file_id": file_id}


def _file_part(part: Mapping[str, Any], path: str, notes: Notes) -> Block | None:
    """By its bytes: an image, a PDF or a text document. https://platform.openai.com/docs/guides/pdf-files"""
    file = part.get("file")
    if not isinstance(file, dict):
        raise UntranslatableRequest(
            f"{path}.file must be an object with `file_data`.", param=f"{path}.file", code="missing_required_parameter"
        )
    block = _file_block(file, path, notes)
    citations = part.get("citations", file.get("citations"))
    if citations is not None and block is not None and block["type"] == "document":
        block["citations"] = _checked_citations(citations, f"{path}.citations")
    return block


def _file_block(file: Mapping[str, Any], path: str, notes: Notes) -> Block | None:
    name = file.get("filename")
    title = name if isinstance(name, str) and name else None
    if file.get("file_id") is not None:
        source = _file_source(file["file_id"], f"{path}.file.file_id", notes)
        if str(file.get("media_type", "")).startswith("image/"):
            return {"type": "image", "source": source}
        return _document(source, title)
    content, param = file.get("file_data"), f"{path}.file.file_data"
    if not isinstance(content, str):
        raise UntranslatableRequest(
            f"{param} must be a data URL or base64.", param=param, code="missing_required_parameter"
        )
    return _by_its_bytes(content, None, title, param, notes)


def _by_its_bytes(content: str, declared: Any, title: Any, param: str, notes: Notes) -> Block | None:
    """An image, a PDF or a text document for base64 or a data URL; None for an empty file without a name."""
    if content[:5].lower() == "data:":
        declared = content[5:].partition(",")[0]
    data, raw = _bytes_of(content, param, notes.pause)
    if raw.startswith(_PDF):
        return _document(_pdf(data), title)
    if sniff_image(raw) is not None:
        return _image_of(data, raw, param)
    return _text_document(_text_of(raw, declared, param, notes), title)


def _text_document(text: str, title: Any) -> Block | None:
    """Claude takes no empty one, but is to know of the file; None for one without a name."""
    if is_blank(text):
        return text_block(f"(empty file: {title})") if isinstance(title, str) and title else None
    return _document({"type": "text", "media_type": "text/plain", "data": text}, title)


def _bytes_of(content: str, param: str, pause: Pause) -> tuple[str, bytes]:
    """(base64, bytes) of a data URL or base64."""
    is_url = content[:5].lower() == "data:"
    return _decoded(content, param, pause) if is_url else _clean_base64(content, param, pause)


def _checked_citations(citations: Any, param: str) -> dict[str, bool]:
    if not isinstance(citations, dict) or not isinstance(citations.get("enabled"), bool):
        raise UntranslatableRequest(
            f'{param} must be {{"enabled": true}} or {{"enabled": false}}.', param=param, code="invalid_value"
        )
    return {"enabled": citations["enabled"]}


def _pdf(data: str) -> dict[str, Any]:
    return {"type": "base64", "media_type": "application/pdf", "data": data}


def _document(source: dict[str, Any], title: Any) -> Block:
    return {"type": "document", "source": source, **({"title": title} if title else {})}


def _text_of(raw: bytes, declared: Any, param: str, notes: Notes) -> str:
    """By its byte order mark, else UTF-8; what is declared as text may be in the encoding that Windows had before."""
    encoding = next(name for mark, name in _BYTE_ORDER_MARKS if raw.startswith(mark))
    text = _plausible(raw, encoding)
    if text is not None:
        return text
    is_text = isinstance(declared, str) and declared[:5].lower() == "text/"
    text = _plausible(raw, _WINDOWS) if is_text else None
    if text is None:
        encodings = "UTF-8, UTF-16 with a byte order mark or Windows-1252" if is_text else "UTF-8"
        raise UntranslatableRequest(
            f"{param} is neither a PDF, nor an image ({_IMAGE_KINDS}), nor text in {encodings}.",
            param=param,
            code="invalid_file_format",
        )
    reason = "The text is not in UTF-8; it was read as Windows-1252."
    notes.warn("encoding_guessed", param, reason, strict_code="invalid_file_format")
    return text


def _plausible(raw: bytes, encoding: str) -> str | None:
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _decoded(url: str, param: str, pause: Pause) -> tuple[str, bytes]:
    """(base64, bytes) of a data URL, however it is written."""
    header, comma, payload = url.partition(",")
    if not comma:
        raise UntranslatableRequest(f"{param} is a data URL without data.", param=param, code="invalid_base64")
    if ";base64" in header.lower():
        return _clean_base64(payload, param, pause)
    raw = urllib.parse.unquote_to_bytes(payload)
    return base64.b64encode(raw).decode(), raw


def _clean_base64(payload: str, param: str, pause: Pause) -> tuple[str, bytes]:
    """The data in the standard alphabet, padded, and what it decodes to."""
    try:
        data = (urllib.parse.unquote(payload) if "%" in payload else payload).encode("ascii")
        pause()
        data = data.translate(_URL_SAFE, delete=_BLANKS).rstrip(b"=")
        pause()
        if b"=" in data:
            raise ValueError("padding within the data")
        data += b"=" * (-len(data) % 4)
        pieces = paced(range(0, len(data), _DECODED_AT_ONCE), pause)
        raw = b"".join([base64.b64decode(data[at : at + _DECODED_AT_ONCE], validate=True) for at in pieces])
    except ValueError:  # binascii's error is one, too
        raise UntranslatableRequest(f"{param} is not valid base64.", param=param, code="invalid_base64") from None
    pause()
    return data.decode(), raw


def sniff_image(raw: bytes) -> str | None:
    """The media type by the first bytes: the API refuses an image whose declared type is another one."""
    if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP":
        return "image/webp"
    return next((media_type for magic, media_type in _MAGIC if raw.startswith(magic)), None)


def agree_on_citations(body: Mapping[str, Any], notes: Notes) -> bool:
    """All documents of a request must be cited or none, and none beside an enforced format. Whether they will be."""
    documents = [block for message in paced(body["messages"], notes.pause) for block in _documents(message["content"])]
    if not any((document.get("citations") or {}).get("enabled") for document in documents):
        return False
    is_enforced = (body.get("output_config") or {}).get("format") is not None
    if is_enforced:
        notes.warn("citations_dropped", "messages", "Claude cites nothing beside structured output.")
    for document in documents:
        if is_enforced:
            document.pop("citations", None)
        else:
            document["citations"] = {"enabled": True}
    return not is_enforced


def _documents(blocks: Any) -> Iterator[Block]:
    """Those in tool results, too."""
    for block in blocks if isinstance(blocks, list) else ():
        if block["type"] in _CITABLE:
            yield block
        elif block["type"] == "tool_result":
            yield from _documents(block.get("content"))


@dataclass(frozen=True)
class Part:
    """`becomes` says for docs/compatibility.md what comes of it."""

    convert: Callable[[Mapping[str, Any], str, Notes], Block | None]
    becomes: str


def _native_part(part: Mapping[str, Any], path: str, notes: Notes) -> Block:
    block = to_native_block(part, path, notes)
    if block.get("citations") is not None and block["type"] in _CITABLE:
        block["citations"] = _checked_citations(block["citations"], f"{path}.citations")
    if block["type"] == "tool_result":
        content = block.pop("content", None)
        block.update(to_result_content(content, f"{path}.content", notes))
    return block


def _call_part(part: Mapping[str, Any], path: str, notes: Notes) -> Block:
    """LangChain gives an input that was streamed as text, and may keep it beside an empty one."""
    given = to_tool_input(part.get("input") or part.get("partial_json"), f"{path}.input", notes)
    return to_native_block({**part, "input": given}, path, notes)


def _attachment_part(part: Mapping[str, Any], path: str, notes: Notes) -> Block | None:
    """Anthropic's image or document, whatever type it declares; or MCP's image, which holds its data itself."""
    if "source" not in part and isinstance(part.get("data"), str):
        return _image_of(*_bytes_of(part["data"], f"{path}.data", notes.pause), f"{path}.data")
    block = _native_part(part, path, notes)
    source, title = block["source"], block.get("title")
    data, param = source.get("data"), f"{path}.source.data"
    if source.get("type") not in ("base64", "text") or not isinstance(data, str):
        return block
    if source["type"] == "text":
        made = _text_document(data, title)
    elif block["type"] == "image":
        made = _image_of(*_bytes_of(data, param, notes.pause), param)
    else:
        made = _by_its_bytes(data, source.get("media_type"), title, param, notes)
    return {**block, **made} if made is not None and made["type"] == block["type"] else made


def to_result_content(content: Any, param: str, notes: Notes) -> Block:
    """`content` of a tool_result block, and its breakpoint: one within a result is one behind it. Empty where there is
    none."""
    if isinstance(content, dict | int | float):  # a program's result as it is, where its text is asked for
        content = exact_json.dumps(content).decode()
    if isinstance(content, str):
        return {} if is_blank(content) else {"content": content}
    made: Block = {}
    blocks = to_result_blocks(content, param, notes)
    for block in blocks:
        mark_last([made], block.pop("cache_control", None))
    return {"content": blocks, **made} if blocks else made


def _native(*kinds: str) -> dict[str, Part]:
    return {kind: _OWN.get(kind, Part(_native_part, "Anthropic's own, passed on")) for kind in kinds}


_OWN: Mapping[str, Part] = {
    "image": Part(_attachment_part, "Anthropic's own, or MCP's (`data`, `mimeType`); by its bytes, as `image_url`"),
    "document": Part(_attachment_part, "Anthropic's own; by its bytes, as `file`"),
    "tool_use": Part(_call_part, "Anthropic's own, passed on; an entry of `tool_calls` with its id is the same call"),
    **{kind: Part(_call_part, "Anthropic's own, passed on") for kind in SERVER_CALLS},
}


_TEXT = Part(_text_part, "a text block")
_IMAGE = Part(
    _image_part,
    "an image block: data URLs (the type is read off the bytes; PDFs become documents), https URLs (Anthropic fetches "
    "them), ids of files at Anthropic (`file_…`)",
)
_FILE = Part(
    _file_part,
    "by its bytes an image, a PDF or a text document; `file_id` of a file at Anthropic; `citations: {enabled: true}` "
    "asks for citations",
)
_READABLE = {"text": _TEXT, "image_url": _IMAGE, "file": _FILE}
_AUDIO = {kind: Part(_audio_part, "400: Claude models do not take audio") for kind in ("input_audio", "audio")}
_RESPONSES_NAMES = {"input_text": _TEXT, "input_image": _IMAGE, "input_file": _FILE}

_SYSTEM_PARTS: Mapping[str, Part] = {"text": _TEXT}
_ASSISTANT_PARTS: Mapping[str, Part] = {
    "text": Part(_assistant_text_part, "a text block"),
    "refusal": Part(_refusal_part, "a text block"),
    **_native(*IN_ASSISTANT),
    "output_text": Part(_text_part, "a text block"),
    "input_json_delta": Part(_left_over_part, "left out: what LangChain leaves of a call that stands beside it"),
}
_USER_PARTS: Mapping[str, Part] = {
    **_READABLE,
    **_AUDIO,
    **_native(*IN_USER),
    **_RESPONSES_NAMES,
}
_RESULT_PARTS: Mapping[str, Part] = {
    **_READABLE,
    **_AUDIO,
    **_native("image", "document", "search_result"),
    **_RESPONSES_NAMES,
}


_OTHER = "400 that names the part; in what stands before the last answer left out and told (`history_mended`)"
_OTHERS = {
    "system, developer": "400 that names the part",
    "assistant": "left out and told (`history_mended`); 400 in strict mode",
}


def parts_table() -> str:
    """The table of content parts for docs/compatibility.md."""
    rows = ["| in a message of | part | what becomes of it |", "|---|---|---|"]
    for role, parts in (
        ("system, developer", _SYSTEM_PARTS),
        ("user", _USER_PARTS),
        ("assistant", _ASSISTANT_PARTS),
        ("tool", _RESULT_PARTS),
    ):
        grouped: dict[str, list[str]] = {}
        for kind, part in parts.items():
            grouped.setdefault(part.becomes, []).append(f"`{kind}`")
        rows += [f"| {role} | {', '.join(kinds)} | {becomes}. |" for becomes, kinds in grouped.items()]
        rows.append(f"| {role} | any other | {_OTHERS.get(role, _OTHER)}. |")
    return "\n".join(rows)

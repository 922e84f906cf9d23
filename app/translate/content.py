"""Content parts of a message into content blocks: text, images and documents.

https://docs.anthropic.com/en/docs/build-with-claude/vision,
https://docs.anthropic.com/en/docs/build-with-claude/pdf-support
"""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

from app.errors import UntranslatableRequest, shown
from app.translate.caching import mark_last, to_cache_control
from app.translate.notes import Notes

Block = dict[str, Any]

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
_PDF = b"%PDF"
_IMAGE_KINDS = "JPEG, PNG, GIF or WebP"
_URL_SAFE = str.maketrans("-_", "+/")
_WHITESPACE = re.compile(r"\s+")
# Parts that Claude could take, or that OpenAI has, but that this version does not translate.
_NOT_YET = ("document", "image", "tool_result", "tool_use", "thinking", "redacted_thinking", "search_result")


def is_blank(text: str) -> bool:
    """Whether the API would refuse `text` as a block of its own."""
    return not text or text.isspace()


def text_block(text: str) -> Block:
    return {"type": "text", "text": text}


def to_text_blocks(content: Any, param: str) -> list[Block]:
    """Blocks of a message that may hold text only (system, developer, assistant); blank ones are left out."""
    return _without_blanks(_to_blocks(content, param, _text_only))


def to_user_blocks(content: Any, param: str, notes: Notes) -> list[Block]:
    """Blocks of a user message or a tool result; blank texts are left out."""

    def convert(part: Mapping[str, Any], path: str) -> Block:
        return _user_part(part, path, notes)

    return _without_blanks(_to_blocks(content, param, convert))


def _without_blanks(blocks: list[Block]) -> list[Block]:
    """The breakpoint of a block that is left out moves to the one before it."""
    kept: list[Block] = []
    for block in blocks:
        if block["type"] != "text" or not is_blank(block["text"]):
            kept.append(block)
        elif "cache_control" in block:
            mark_last(kept, block["cache_control"])
    return kept


def _to_blocks(content: Any, param: str, convert: Any) -> list[Block]:
    if content is None:
        return []
    if isinstance(content, str):
        return [text_block(content)]
    if not isinstance(content, list):
        raise UntranslatableRequest(
            f"{param} must be a string or an array of content parts.", param=param, code="invalid_type"
        )
    blocks = []
    for i, part in enumerate(content):
        path = f"{param}[{i}]"
        if isinstance(part, str):
            blocks.append(text_block(part))
        elif isinstance(part, dict):
            block = convert(part, path)
            mark_last([block], to_cache_control(part, path))
            blocks.append(block)
        else:
            raise UntranslatableRequest(f"{path} must be an object with a `type`.", param=path, code="invalid_type")
    return blocks


def _text_only(part: Mapping[str, Any], path: str) -> Block:
    kind = part.get("type")
    if kind == "text":
        return _text_part(part, path)
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return text_block(part["refusal"])
    if kind in _NOT_YET:
        raise _unsupported_part(kind, path)
    raise UntranslatableRequest(
        f"{path}.type must be 'text' in this role's messages, not {shown(kind)}.",
        param=f"{path}.type",
        code="invalid_value",
    )


def _user_part(part: Mapping[str, Any], path: str, notes: Notes) -> Block:
    kind = part.get("type")
    if kind in ("text", "input_text"):
        return _text_part(part, path)
    if kind in ("image_url", "input_image"):
        return _image_part(part, path, notes)
    if kind in ("file", "input_file"):
        return _file_part(part, path)
    if kind == "input_audio":
        raise UntranslatableRequest(
            "Claude models do not take audio input.", param=f"{path}.type", code="unsupported_value"
        )
    if kind in _NOT_YET:
        raise _unsupported_part(kind, path)
    raise UntranslatableRequest(
        f"{path}.type is {shown(kind)}; accepted are 'text', 'image_url' and 'file'.",
        param=f"{path}.type",
        code="invalid_value",
    )


def _unsupported_part(kind: Any, path: str) -> UntranslatableRequest:
    return UntranslatableRequest(
        f"Content parts of type {kind!r} are not supported by this version of the gateway.",
        param=f"{path}.type",
        code="unsupported_parameter",
    )


def _text_part(part: Mapping[str, Any], path: str) -> Block:
    text = part.get("text")
    if not isinstance(text, str):
        raise UntranslatableRequest(f"{path}.text must be a string.", param=f"{path}.text", code="invalid_type")
    return text_block(text)


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
        return _image_of(*_decoded(url, param), param)
    if scheme.startswith(("https://", "http://")):
        if scheme.startswith("http:"):
            notes.warn("image_url_not_https", param, "Anthropic fetches images over https only.")
        return {"type": "image", "source": {"type": "url", "url": url}}
    if url.startswith(("file-", "file_")):
        raise UntranslatableRequest(
            "Images by file id are not supported by this version of the gateway.",
            param=param,
            code="unsupported_parameter",
        )
    raise UntranslatableRequest(f"{param} must be a data: or https: URL.", param=param, code="invalid_image_url")


def _image_of(data: str, raw: bytes, param: str) -> Block:
    """An image block; a document for a PDF, which many clients send as an image."""
    if raw.startswith(_PDF):
        return _pdf(data, None)
    media_type = sniff_image(raw)
    if media_type is None:
        raise UntranslatableRequest(
            f"{param} does not hold an image that Claude takes: {_IMAGE_KINDS}.",
            param=param,
            code="invalid_image_format",
        )
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


def _file_part(part: Mapping[str, Any], path: str) -> Block:
    """By its bytes: an image, a PDF or a text document. https://platform.openai.com/docs/guides/pdf-files"""
    file = part.get("file")
    if not isinstance(file, dict):
        raise UntranslatableRequest(
            f"{path}.file must be an object with `file_data`.", param=f"{path}.file", code="missing_required_parameter"
        )
    if file.get("file_id") is not None:
        raise UntranslatableRequest(
            "Files by id are not supported by this version of the gateway; send file_data.",
            param=f"{path}.file.file_id",
            code="unsupported_parameter",
        )
    content, param = file.get("file_data"), f"{path}.file.file_data"
    if not isinstance(content, str) or not content:
        raise UntranslatableRequest(
            f"{param} must be a data URL or base64.", param=param, code="missing_required_parameter"
        )
    is_data_url = content[:5].lower() == "data:"
    data, raw = _decoded(content, param) if is_data_url else _clean_base64(content, param)
    name = file.get("filename")
    title = name if isinstance(name, str) and name else None
    if raw.startswith(_PDF):
        return _pdf(data, title)
    if sniff_image(raw) is not None:
        return _image_of(data, raw, param)
    return _text_document(raw, title, param)


def _pdf(data: str, title: str | None) -> Block:
    source = {"type": "base64", "media_type": "application/pdf", "data": data}
    return {"type": "document", "source": source, **({"title": title} if title else {})}


def _text_document(raw: bytes, title: str | None, param: str) -> Block:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if is_blank(text) or "\0" in text:
        raise UntranslatableRequest(
            f"{param} is neither a PDF, nor an image ({_IMAGE_KINDS}), nor text in UTF-8.",
            param=param,
            code="invalid_file_format",
        )
    source = {"type": "text", "media_type": "text/plain", "data": text}
    return {"type": "document", "source": source, **({"title": title} if title else {})}


def _decoded(url: str, param: str) -> tuple[str, bytes]:
    """(base64, bytes) of a data URL, however it is written."""
    header, comma, payload = url.partition(",")
    if not comma:
        raise UntranslatableRequest(f"{param} is a data URL without data.", param=param, code="invalid_base64")
    if ";base64" in header.lower():
        return _clean_base64(payload, param)
    raw = urllib.parse.unquote_to_bytes(payload)
    return base64.b64encode(raw).decode(), raw


def _clean_base64(payload: str, param: str) -> tuple[str, bytes]:
    """The data in the standard alphabet, padded, and what it decodes to."""
    data = payload
    if "%" in data:
        data = urllib.parse.unquote(data)
    data = _WHITESPACE.sub("", data).translate(_URL_SAFE).rstrip("=")
    data += "=" * (-len(data) % 4)
    try:
        return data, base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise UntranslatableRequest(f"{param} is not valid base64.", param=param, code="invalid_base64") from None


def sniff_image(raw: bytes) -> str | None:
    """The media type by the first bytes: the API refuses an image whose declared type is another one."""
    if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP":
        return "image/webp"
    return next((media_type for magic, media_type in _MAGIC if raw.startswith(magic)), None)

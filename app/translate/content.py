"""Content parts of a message into content blocks: text and images.

https://docs.anthropic.com/en/docs/build-with-claude/vision
"""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

from app.errors import UntranslatableRequest, shown
from app.translate.notes import Notes

Block = dict[str, Any]

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
_IMAGE_KINDS = "JPEG, PNG, GIF or WebP"
_URL_SAFE = str.maketrans("-_", "+/")
_WHITESPACE = re.compile(r"\s+")
# Parts that Claude could take, or that OpenAI has, but that this version does not translate.
_NOT_YET = ("file", "document", "image", "tool_result", "tool_use", "thinking", "redacted_thinking", "search_result")


def is_blank(text: str) -> bool:
    """Whether the API would refuse `text` as a block of its own."""
    return not text or text.isspace()


def text_block(text: str) -> Block:
    return {"type": "text", "text": text}


def to_text_blocks(content: Any, param: str) -> list[Block]:
    """Blocks of a message that may hold text only (system, developer, assistant); blank ones are left out."""
    return [b for b in _to_blocks(content, param, _text_only) if b["type"] != "text" or not is_blank(b["text"])]


def to_user_blocks(content: Any, param: str, notes: Notes) -> list[Block]:
    """Blocks of a user message or a tool result; blank texts are left out."""

    def convert(part: Mapping[str, Any], path: str) -> Block:
        return _user_part(part, path, notes)

    return [b for b in _to_blocks(content, param, convert) if b["type"] != "text" or not is_blank(b["text"])]


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
            blocks.append(convert(part, path))
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
    if kind == "input_audio":
        raise UntranslatableRequest(
            "Claude models do not take audio input.", param=f"{path}.type", code="unsupported_value"
        )
    if kind in _NOT_YET:
        raise _unsupported_part(kind, path)
    raise UntranslatableRequest(
        f"{path}.type is {shown(kind)}; accepted are 'text' and 'image_url'.",
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
    for field in ("cache_control", "prompt_cache_breakpoint"):
        if part.get(field) is not None:
            raise UntranslatableRequest(
                f"{path}.{field} is not supported by this version of the gateway.",
                param=f"{path}.{field}",
                code="unsupported_parameter",
            )
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
        return {"type": "image", "source": _data_url_source(url, param)}
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


def _data_url_source(url: str, param: str) -> Block:
    header, comma, payload = url.partition(",")
    if not comma:
        raise UntranslatableRequest(f"{param} is a data URL without data.", param=param, code="invalid_base64")
    if ";base64" in header.lower():
        data, raw = _clean_base64(payload, param)
    else:
        raw = urllib.parse.unquote_to_bytes(payload)
        data = base64.b64encode(raw).decode()
    if raw.startswith(b"%PDF"):
        raise UntranslatableRequest(
            "PDF documents are not supported by this version of the gateway.",
            param=param,
            code="unsupported_parameter",
        )
    media_type = sniff_image(raw)
    if media_type is None:
        raise UntranslatableRequest(
            f"{param} does not hold an image that Claude takes: {_IMAGE_KINDS}.",
            param=param,
            code="invalid_image_format",
        )
    return {"type": "base64", "media_type": media_type, "data": data}


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

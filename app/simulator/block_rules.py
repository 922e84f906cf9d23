"""Content blocks: a table of what each may hold, and the rules that a table cannot say."""

import base64
import binascii
from typing import Any

from app.simulator.rules import (
    NEW_VERSION,
    Check,
    Context,
    anything,
    array,
    boolean,
    cache_control,
    fail,
    fields,
    https_url,
    list_of,
    matching,
    non_empty,
    obj,
    one_of,
    optional,
    optional_string,
    string,
)

MAX_IMAGE_BYTES = 10 * 1024 * 1024
IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
TOOL_ID = matching(r"^[a-zA-Z0-9_-]+$")
CACHED: dict[str, Check] = {"cache_control": cache_control}


def _citations_config(value: Any, path: str) -> None:
    fields(value, path, {}, {"enabled": boolean})


Shape = tuple[dict[str, Check], dict[str, Check]]
RESULT: Shape = ({"tool_use_id": TOOL_ID, "content": anything}, {**CACHED, "caller": anything})
"""What the result of a tool that runs at Anthropic's holds."""

SHAPES: dict[str, Shape] = {
    "text": ({"text": string}, {**CACHED, "citations": optional(list_of(obj))}),
    "image": ({"source": obj}, {**CACHED, "transformations": optional(obj)}),
    "document": (
        {"source": obj},
        {**CACHED, "title": optional_string, "context": optional_string, "citations": optional(_citations_config)},
    ),
    "search_result": (
        {"source": string, "title": string, "content": array},
        {**CACHED, "citations": optional(_citations_config)},
    ),
    "thinking": ({"thinking": string, "signature": string}, {}),
    "redacted_thinking": ({"data": string}, {}),
    "tool_use": (
        {"id": TOOL_ID, "name": non_empty, "input": obj},
        {**CACHED, "caller": anything, "toolset_name": optional_string},
    ),
    "tool_result": (
        {"tool_use_id": TOOL_ID},
        {**CACHED, "content": anything, "is_error": boolean, "toolset_name": optional_string},
    ),
    "server_tool_use": ({"id": TOOL_ID, "name": non_empty, "input": obj}, {**CACHED, "caller": anything}),
    "web_search_tool_result": RESULT,
    "web_fetch_tool_result": RESULT,
    "code_execution_tool_result": RESULT,
    "bash_code_execution_tool_result": RESULT,
    "text_editor_code_execution_tool_result": RESULT,
    "tool_search_tool_result": RESULT,
    "advisor_tool_result": RESULT,
    "container_upload": ({"file_id": non_empty}, CACHED),
    "mcp_tool_use": ({"id": TOOL_ID, "name": non_empty, "input": obj, "server_name": non_empty}, CACHED),
    "mcp_tool_result": ({"tool_use_id": TOOL_ID}, {**CACHED, "content": anything, "is_error": boolean}),
    "compaction": ({"content": optional_string}, {**CACHED, "signature": anything, "encrypted_content": anything}),
    "tool_addition": ({"tool": obj}, CACHED),
    "tool_removal": ({"tool": obj}, CACHED),
    "tool_reference": ({"tool_name": non_empty}, CACHED),
}
SERVER_RESULTS = tuple(kind for kind in SHAPES if kind.endswith("_tool_result"))
"""Results of calls that stand in the same assistant turn."""
ROLES: dict[str, frozenset[str]] = {
    "user": frozenset({"text", "image", "document", "search_result", "tool_result", "container_upload"}),
    "assistant": frozenset(
        {
            *("text", "image", "document", "search_result", "thinking", "redacted_thinking", "tool_use"),
            *("server_tool_use", "mcp_tool_use", "compaction", "container_upload", *SERVER_RESULTS),
        }
    ),
    "system": frozenset({"text", "tool_addition", "tool_removal"}),
    "tool_result": frozenset({"text", "image", "document", "search_result", "tool_reference"}),
    "search_result": frozenset({"text"}),
}
BETAS: dict[str, tuple[str, ...]] = {
    "mcp_tool_use": ("mcp-client-",),
    "mcp_tool_result": ("mcp-client-",),
    "advisor_tool_result": ("advisor-tool-",),
    "compaction": ("compact-",),
    "tool_addition": ("mid-conversation-tool-changes-", "inline-tools-"),
    "tool_removal": ("mid-conversation-tool-changes-", "inline-tools-"),
}
FILES_BETA = "files-api-"


def check_block(block: Any, path: str, where: str, context: Context) -> None:
    """Raises a Refusal for a block that is not valid inside `where` (a role, or the block that holds it)."""
    obj(block, path)
    kind = block.get("type")
    if kind is None:
        fail(f"{path}.type", "Field required")
    if kind not in ROLES[where]:
        if kind in SHAPES and where in ("user", "assistant", "system"):
            fail(path, f"`{kind}` blocks are not permitted in `{where}` messages")
        tags = ", ".join(f"'{tag}'" for tag in sorted(ROLES[where]))
        fail(path, f"Input tag '{kind}' found using 'type' does not match any of the expected tags: {tags}")
    if kind in BETAS:
        context.need_beta(BETAS[kind], path)
    inner = f"{path}.{kind}"
    required, allowed = SHAPES[kind]
    fields(block, inner, required, allowed, also=("type",))
    match kind:
        case "text":
            _text(block, path, where, context)
        case "image":
            _image(block["source"], f"{inner}.source", context)
        case "document":
            _document(block["source"], f"{inner}.source", where, context)
        case "tool_result":
            _tool_result(block, inner, context)
        case "search_result":
            for place, part in enumerate(block["content"]):
                check_block(part, f"{inner}.content.{place}", "search_result", context)


def _text(block: dict[str, Any], path: str, where: str, context: Context) -> None:
    text = block["text"]
    if not text:
        fail(f"{path}.text", "text content blocks must be non-empty")
    # Seen in a recording: an assistant turn may hold a block of blanks beside its calls.
    if where != "assistant" and not text.strip():
        fail(f"{path}.text", "text content blocks must contain non-whitespace text")
    if where == "user" and block.get("citations") and context.version >= NEW_VERSION:
        fail(f"{path}.citations", "Extra inputs are not permitted")


def decoded(data: Any, path: str) -> bytes:
    """The bytes of strict base64. Raises a Refusal."""
    string(data, path)
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        fail(path, "Invalid base64 data")


def sniffed(data: bytes) -> str | None:
    """The media type that the bytes themselves say."""
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def _image(source: dict[str, Any], path: str, context: Context) -> None:
    match source.get("type"):
        case "base64":
            fields(source, path, {"type": string, "media_type": one_of(*IMAGE_TYPES), "data": non_empty}, {})
            if len(source["data"]) > MAX_IMAGE_BYTES:
                fail(path, f"image exceeds 10 MB maximum: {len(source['data'])} bytes > {MAX_IMAGE_BYTES} bytes")
            found = sniffed(decoded(source["data"], f"{path}.base64.data"))
            if found is None:
                fail(f"{path}.base64.data", "Could not process image")
            # Retired models are in recordings with a wrong media type; the present ones refuse it.
            if found != source["media_type"] and context.model.strict:
                said = source["media_type"]
                text = (
                    f"The image was specified using the {said} media type, but the image appears to be a {found} image"
                )
                fail(f"{path}.base64.data", text)
        case _:
            _url_or_file(source, path, context, ("base64", "url", "file"))


def _document(source: dict[str, Any], path: str, where: str, context: Context) -> None:
    if where == "assistant" and context.version >= NEW_VERSION:
        fail(path.removesuffix(".source"), "`document` blocks are not permitted in `assistant` messages")
    match source.get("type"):
        case "base64":
            fields(source, path, {"type": string, "media_type": one_of("application/pdf"), "data": non_empty}, {})
            if not decoded(source["data"], f"{path}.base64.data").startswith(b"%PDF"):
                fail(f"{path}.base64.data", "The PDF specified was not valid.")
        case "text":
            fields(source, path, {"type": string, "media_type": one_of("text/plain"), "data": non_empty}, {})
        case "content":
            fields(source, path, {"type": string, "content": anything}, {})
            if not isinstance(source["content"], str):
                array(source["content"], f"{path}.content")
                for place, part in enumerate(source["content"]):
                    check_block(part, f"{path}.content.{place}", "tool_result", context)
        case _:
            _url_or_file(source, path, context, ("base64", "text", "content", "url", "file"))


def _url_or_file(source: dict[str, Any], path: str, context: Context, tags: tuple[str, ...]) -> None:
    match source.get("type"):
        case "url":
            fields(source, path, {"type": string, "url": https_url}, {})
        case "file":
            context.need_beta(FILES_BETA, path)
            fields(source, path, {"type": string, "file_id": non_empty}, {})
        case kind:
            expected = ", ".join(f"'{tag}'" for tag in tags)
            fail(path, f"Input tag '{kind}' found using 'type' does not match any of the expected tags: {expected}")


def _tool_result(block: dict[str, Any], path: str, context: Context) -> None:
    content = block.get("content", "")
    if isinstance(content, str):
        return
    array(content, f"{path}.content")
    for place, part in enumerate(content):
        check_block(part, f"{path}.content.{place}", "tool_result", context)
        if block.get("is_error") and part["type"] != "text":
            fail(f"{path}.content", "all content must be type `text` if `is_error` is true")

"""Files, images and documents: what they are, whatever the client calls them."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from app.errors import UntranslatableRequest
from app.schemas.chat import chat_request
from app.simulator.models import catalogue
from app.simulator.validator import validate
from app.translate.chat.request import Options, to_message_params
from app.translate.facts import facts_for
from app.translate.translation import Translation
from app.upstream.names import OVERLAY

MODEL = "claude-sonnet-5"
ASKED = {"type": "text", "text": "review"}
FIND = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


PNG = b64(b"\x89PNG\r\n\x1a\n" + b"\xff\xfe\xfd" * 10)
JPEG = b64(b"\xff\xd8\xff\xe0" + b"\0" * 20)
PDF = b64(b"%PDF-1.7 ...")
A_PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
A_PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}}


def a_text(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": text}, **more}


def sent(messages: list[Any], strict: bool = False) -> Translation:
    """Each is checked by the simulator's rules, which are those of the API."""
    asked = chat_request({"model": MODEL, "messages": messages, "tools": [TOOL]})
    made = to_message_params(asked, facts_for(MODEL, OVERLAY), Options(strict=strict))
    model = catalogue().find(MODEL)
    assert model is not None
    validate(orjson.loads(orjson.dumps(made.body)), made.headers, model)
    return made


def of_user(*parts: Any, strict: bool = False) -> list[Any]:
    content: list[Any] = sent([{"role": "user", "content": [ASKED, *parts]}], strict).body["messages"][0]["content"]
    return content[1:]


def of_tool(*parts: Any) -> list[Any]:
    history = [{"role": "user", "content": "shot"}, {"role": "assistant", "content": None, "tool_calls": [FIND]}]
    made = sent([*history, {"role": "tool", "tool_call_id": "c1", "content": list(parts)}])
    content: list[Any] = made.body["messages"][2]["content"][0]["content"]
    return content


def file(data: str, **more: Any) -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": data, **more}}


def document(media_type: str, data: str, **more: Any) -> dict[str, Any]:
    return {"type": "document", "source": {"type": "base64", "media_type": media_type, "data": data}, **more}


@pytest.mark.parametrize(
    ("part", "becomes"),
    [
        (file("data:text/x-python;base64,", filename="__init__.py"), ["(empty file: __init__.py)"]),
        (file("data:text/plain,", filename="a.txt"), ["(empty file: a.txt)"]),
        (file("", filename="a.txt"), ["(empty file: a.txt)"]),
        (file("data:;base64,", filename=".gitkeep"), ["(empty file: .gitkeep)"]),
        (file("data:application/pdf;base64,", filename="a.pdf"), ["(empty file: a.pdf)"]),
        (file(b64(b"\n \n"), filename="blank.md"), ["(empty file: blank.md)"]),
        (file(b64(b"\xef\xbb\xbf"), filename="bom.csv"), ["(empty file: bom.csv)"]),
        (file("data:text/x-python;base64,"), []),
        (file("data:text/x-python;base64,", filename=None), []),
        (file("", filename=""), []),
        (document("text/plain", "", title="a.txt"), ["(empty file: a.txt)"]),
        (document("text/plain", ""), []),
        ({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": ""}, "title": "a.txt"},
         ["(empty file: a.txt)"]),
    ],
)  # fmt: skip
def test_of_an_empty_file_claude_is_told_its_name(part: Any, becomes: list[str]) -> None:
    assert [block["text"] for block in of_user(part)] == becomes
    assert of_user(part, strict=True) == of_user(part)


def test_a_message_with_nothing_but_an_empty_file_keeps_its_turn() -> None:
    made = sent([{"role": "user", "content": [file("data:text/plain;base64,")]}, {"role": "user", "content": "x"}])
    assert made.body["messages"][0]["content"] == [{"type": "text", "text": "x"}]


def test_the_breakpoint_of_an_empty_file_moves_to_the_part_before_it() -> None:
    cached = {**file(""), "cache_control": {"type": "ephemeral"}}
    made = sent([{"role": "user", "content": [ASKED, cached]}])
    assert made.body["messages"][0]["content"] == [{**ASKED, "cache_control": {"type": "ephemeral"}}]


NAMES = "Name;Größe\n"


@pytest.mark.parametrize(
    ("raw", "declared", "text", "codes"),
    [
        (base64.b64decode("//5OAGEAbQBlADsARwByAPYA3wBlAAoA"), "text/csv", NAMES, ()),
        (NAMES.encode("utf-16"), "text/csv", NAMES, ()),
        (b"\xfe\xff" + NAMES.encode("utf-16-be"), "application/octet-stream", NAMES, ()),
        (NAMES.encode("utf-32"), "text/csv", NAMES, ()),
        (b"\0\0\xfe\xff" + NAMES.encode("utf-32-be"), "text/csv", NAMES, ()),
        (NAMES.encode("utf-8-sig"), "text/csv", NAMES, ()),
        (NAMES.encode(), "application/json", NAMES, ()),
        (base64.b64decode("TmFtZTtHcvbfZQpKb3PpOzMK"), "text/csv", "Name;Größe\nJosé;3\n", ("encoding_guessed",)),
        ("5 €, „so“".encode("windows-1252"), "TEXT/plain;charset=windows-1252", "5 €, „so“", ("encoding_guessed",)),
        ("Größe".encode("iso-8859-1"), "text/html", "Größe", ("encoding_guessed",)),
    ],
)  # fmt: skip
def test_a_text_is_read_in_the_encoding_that_it_is_in(
    raw: bytes, declared: str, text: str, codes: tuple[str, ...]
) -> None:
    part = file(f"data:{declared};base64,{b64(raw)}", filename="a.csv")
    made = sent([{"role": "user", "content": [part]}])
    assert made.body["messages"][0]["content"] == [a_text(text, title="a.csv")]
    assert made.reply.warnings == codes
    if codes:
        with pytest.raises(UntranslatableRequest) as caught:
            of_user(part, strict=True)
        assert caught.value.code == "invalid_file_format"


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (f"data:text/csv;base64,{b64(b'a' + bytes([0x81]))}", "Windows-1252"),
        (f"data:text/csv;base64,{b64(NAMES.encode('utf-16-le'))}", "UTF-16 with a byte order mark"),
        (f"data:text/csv;base64,{b64(bytes([0xFF, 0xFE, 0x00, 0xD8]))}", "UTF-16"),
        (f"data:application/zip;base64,{b64(b'PK' + bytes(4))}", "text in UTF-8"),
        (b64("Größe".encode("windows-1252")), "text in UTF-8"),
    ],
)
def test_what_is_no_text_is_refused_with_the_encodings_that_are_taken(data: str, named: str) -> None:
    with pytest.raises(UntranslatableRequest) as caught:
        of_user(file(data))
    assert (caught.value.param, caught.value.code) == (
        "messages[0].content[1].file.file_data",
        "invalid_file_format",
    )
    assert named in caught.value.message


IN_URL_SAFE = PNG.replace("+", "-").replace("/", "_").rstrip("=")


@pytest.mark.parametrize(
    ("part", "block"),
    [
        ({"type": "image", "data": PNG, "mimeType": "image/png"}, A_PNG),
        ({"type": "image", "data": PNG, "mimeType": "image/jpeg"}, A_PNG),
        ({"type": "image", "data": PNG}, A_PNG),
        ({"type": "image", "data": f"data:image/png;base64,{PNG}", "mimeType": "image/png"}, A_PNG),
        ({"type": "image", "data": PDF, "mimeType": "image/png"}, A_PDF),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": PNG}}, A_PNG),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/jpg", "data": JPEG}},
         {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": JPEG}}),
        ({"type": "image", "source": {"type": "base64", "data": f"{PNG[:8]}\n {PNG[8:]}"}}, A_PNG),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": IN_URL_SAFE}}, A_PNG),
        ({"type": "image", "source": {"type": "base64", "data": f"data:image/png;base64,{PNG}"}}, A_PNG),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PDF}}, A_PDF),
        (document("application/pdf", PDF), A_PDF),
        (document("application/pdf", PNG, title="a.png"), A_PNG),
        (document("application/octet-stream", PDF, title="a.pdf"), {**A_PDF, "title": "a.pdf"}),
        (document("text/plain", "aGVsbG8=", title="a.txt", context="c"), a_text("hello", title="a.txt", context="c")),
        (document("text/csv", b64("Größe".encode("windows-1252"))), a_text("Größe")),
        ({"type": "document", "source": {"type": "text", "media_type": "text/markdown", "data": "# A"}}, a_text("# A")),
        ({"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}},
         {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}}),
        ({"type": "document", "source": {"type": "content", "content": "x"}},
         {"type": "document", "source": {"type": "content", "content": "x"}}),
    ],
)  # fmt: skip
def test_an_image_or_a_document_is_what_its_bytes_are(part: Any, block: Any) -> None:
    assert of_user(part) == [block]
    assert of_tool(part) == [block]


def test_a_breakpoint_stays_with_what_a_document_becomes() -> None:
    control = {"cache_control": {"type": "ephemeral"}}
    assert of_user(document("text/plain", "aGVsbG8=", **control)) == [a_text("hello", **control)]
    assert of_user({"type": "image", "data": PNG, "mimeType": "image/png", **control}) == [{**A_PNG, **control}]


def test_citations_stay_with_what_a_document_becomes() -> None:
    assert of_user(document("text/plain", "aGVsbG8=", citations={"enabled": True})) == [
        a_text("hello", citations={"enabled": True})
    ]


@pytest.mark.parametrize(
    ("part", "param", "code"),
    [
        ({"type": "image", "data": "aGVsbG8=", "mimeType": "image/png"}, "data", "invalid_image_format"),
        ({"type": "image", "data": "??", "mimeType": "image/png"}, "data", "invalid_base64"),
        ({"type": "image", "mimeType": "image/png"}, "source", "missing_required_parameter"),
        ({"type": "image", "source": {"type": "base64", "data": "aGVsbG8="}}, "source.data", "invalid_image_format"),
        ({"type": "image", "source": {"type": "base64", "data": "??"}}, "source.data", "invalid_base64"),
        (document("application/pdf", b64(b"PK\3\4" + bytes(4))), "source.data", "invalid_file_format"),
        ({"type": "audio", "data": "UklGRg==", "mimeType": "audio/wav"}, "type", "unsupported_value"),
    ],
)
def test_what_is_neither_image_nor_document_is_refused_with_its_path(part: Any, param: str, code: str) -> None:
    with pytest.raises(UntranslatableRequest) as caught:
        of_user(part)
    assert (caught.value.param, caught.value.code) == (f"messages[0].content[1].{param}", code)
    with pytest.raises(UntranslatableRequest) as caught:
        of_tool(part)
    assert (caught.value.param, caught.value.code) == (f"messages[2].content[0].{param}", code)

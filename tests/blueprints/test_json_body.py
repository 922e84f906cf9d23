"""What may stand around the JSON of a request's body: compression, a byte order mark, halves of characters."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from backports import zstd
from flask.testing import FlaskClient

from app.blueprints import json_body, large_json
from app.blueprints.content_encoding import decoded
from app.errors import InvalidRequest
from app.translate.pause import no_pause
from tests.conftest import ADMIN, CLIENT, AppMaker

HI: dict[str, Any] = {"model": "claude-sonnet-5", "messages": [{"role": "user", "content": "hi"}]}
BODY = orjson.dumps(HI)
LIMIT = 10_000


@pytest.fixture
def client(make_app: AppMaker) -> FlaskClient:
    environment = {"ENABLE_ANTHROPIC_API": "true", "ANTHROPIC_API_KEYS": "sk-ant-of-these-tests"}
    return make_app(runtime=environment, max_body_bytes=LIMIT).test_client()


def ask(client: FlaskClient, body: bytes, encoding: str = "", **headers: str) -> Any:
    coded = {"content-encoding": encoding} if encoding else {}
    return client.post("/v1/chat/completions?explain=1", data=body, headers={**CLIENT, **coded, **headers})


def said(answer: Any) -> str:
    """What Claude would be told last."""
    assert answer.status_code == 200, answer.json
    assert answer.json["refused"] is None, answer.json["refused"]
    text: str = answer.json["request"]["body"]["messages"][-1]["content"][-1]["text"]
    return text


def raw_deflate(data: bytes) -> bytes:
    made = zlib.compressobj(wbits=-15)
    return made.compress(data) + made.flush()


CODED: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("GZIP", gzip.compress),
    ("x-gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("zstd", zstd.compress),
    ("identity", bytes),
    ("gzip, zstd", lambda data: zstd.compress(gzip.compress(data))),
]


@pytest.mark.parametrize(("encoding", "compress"), CODED)
def test_a_compressed_body_is_read(client: FlaskClient, encoding: str, compress: Callable[[bytes], bytes]) -> None:
    assert said(ask(client, compress(BODY), encoding)) == "hi"


@pytest.mark.parametrize("encoding", ["br", "compress", "gzip, br", "aes128gcm"])
def test_another_coding_is_a_415_that_names_what_is_taken(client: FlaskClient, encoding: str) -> None:
    answer = ask(client, BODY, encoding)
    assert answer.status_code == 415
    assert answer.json["error"]["param"] == "Content-Encoding"
    assert answer.json["error"]["code"] == "unsupported_media_type"
    assert answer.headers["accept-encoding"] == "gzip, deflate, zstd"


@pytest.mark.parametrize(("encoding", "compress"), [c for c in CODED if "," not in c[0] and c[0] != "identity"])
def test_what_is_not_coded_so_is_a_400(client: FlaskClient, encoding: str, compress: Callable[[bytes], bytes]) -> None:
    whole = compress(BODY)
    for body in (b"", BODY, whole[: len(whole) // 2], whole + b"and more"):
        answer = ask(client, body, encoding)
        assert answer.status_code == 400, body
        assert answer.json["error"]["param"] == "Content-Encoding"


@pytest.mark.parametrize(("encoding", "compress"), [c for c in CODED if c[0] != "identity"])
def test_a_small_body_that_is_large_when_decoded_is_too_large(
    client: FlaskClient, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    bomb = compress(b" " * 5_000_000 + BODY)
    assert len(bomb) < LIMIT
    answer = ask(client, bomb, encoding)
    assert answer.status_code == 413
    assert said(ask(client, compress(b" " * 9_000 + BODY), encoding)) == "hi"


@pytest.mark.parametrize(("encoding", "compress"), CODED)
def test_a_coded_body_of_several_reads_comes_out_whole(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    body = random.Random(7).randbytes(300_000)
    assert decoded(compress(body), encoding.lower(), 2**20, no_pause) == body


@pytest.mark.parametrize(
    ("encoding", "head", "block"),
    [("deflate", b"", bytes.fromhex("000000ffff")), ("zstd", bytes.fromhex("28b52ffd0058"), bytes.fromhex("02000041"))],
)
def test_others_get_their_turn_while_a_coded_body_makes_nothing(encoding: str, head: bytes, block: bytes) -> None:
    pauses: list[None] = []
    with pytest.raises(InvalidRequest):
        decoded(head + block * (2**20 // len(block)), encoding, 2**20, lambda: pauses.append(None))
    assert len(pauses) >= 16


def test_a_window_larger_than_the_standard_allows_is_not_reserved(client: FlaskClient) -> None:
    head = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    greedy = head.compress(BODY) + head.flush()
    answer = ask(client, greedy, "zstd")
    assert answer.status_code == 400
    assert "zstd" in answer.json["error"]["message"]


def test_a_byte_order_mark_is_skipped(client: FlaskClient) -> None:
    assert said(ask(client, b"\xef\xbb\xbf" + BODY)) == "hi"


@pytest.mark.parametrize(("text", "place"), [("Größe", "0xf6"), ("10 €", "0x80")])
def test_what_is_not_utf_8_is_called_so(client: FlaskClient, text: str, place: str) -> None:
    answer = ask(client, BODY.decode().replace("hi", text).encode("cp1252"))
    assert answer.status_code == 400
    assert "not UTF-8" in answer.json["error"]["message"]
    assert place in answer.json["error"]["message"]


HALVES = [
    (r"a\ud83d", "a\ufffd"),
    (r"\ude00b", "\ufffdb"),
    (r"\uD83D\uD83D\uDE00", "\ufffd\U0001f600"),
    (r"\ud83dx\ude00", "\ufffdx\ufffd"),
    (r"\\ud83d\ud83d", "\\ud83d\ufffd"),
    (r"\n\udfff\"", '\n\ufffd"'),
    (r"\ud83d\n", "\ufffd\n"),
    (r"\ud83d\\ude00", "\ufffd\\ude00"),
]


@pytest.mark.parametrize(("escaped", "text"), HALVES)
def test_halves_of_characters_are_replaced_and_told(client: FlaskClient, escaped: str, text: str) -> None:
    answer = ask(client, BODY.replace(b"hi", escaped.encode()))
    assert said(answer) == text
    assert [warning["code"] for warning in answer.json["warnings"]] == ["broken_character"]


def test_whole_pairs_are_left_alone(client: FlaskClient) -> None:
    answer = ask(client, b"\xef\xbb\xbf" + BODY.replace(b"hi", rb"\ud83d\ude00 \\ud83d"))
    assert said(answer) == "\U0001f600 \\ud83d"
    assert answer.json["warnings"] == []


def test_strict_mode_refuses_halves(client: FlaskClient) -> None:
    answer = ask(client, BODY.replace(b"hi", rb"\ud83d"), **{"x-gateway-strict": "true"})
    assert answer.json["refused"]["status"] == 400


@pytest.mark.parametrize("escaped", [r"\ud8", r"\ud8zz", r"\udz83", r"\uD83D\uDE0", "\\"])
def test_what_is_no_json_stays_none(client: FlaskClient, escaped: str) -> None:
    answer = ask(client, BODY.replace(b"hi", escaped.encode()))
    assert answer.status_code == 400
    assert "could not parse" in answer.json["error"]["message"]


def test_the_configuration_takes_no_halves(client: FlaskClient) -> None:
    answer: Any = client.post("/config/update", data=rb'{"COMPAT": "\ud83d"}', headers=ADMIN)
    assert answer.status_code == 400
    assert "surrogate" in answer.json["error"]["message"]


def test_codings_upon_codings_are_refused(client: FlaskClient) -> None:
    """Each costs its time, and a header has room for a thousand."""
    answer = ask(client, BODY, ",".join(["gzip"] * 1000))
    assert answer.status_code == 415
    assert "1000 codings" in answer.json["error"]["message"]


def test_more_escapes_than_can_be_written_in_a_moment_are_refused(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_body, "MOST_ESCAPES", 1000)
    assert said(ask(client, BODY.replace(b"hi", rb"\n" * 999 + b"hi"))).endswith("hi")
    answer = ask(client, BODY.replace(b"hi", rb"\n" * 1001))
    assert answer.status_code == 400
    assert answer.json["error"]["code"] == "too_many_values"
    assert "1,000 backslashes" in answer.json["error"]["message"]


def test_more_values_than_can_be_read_in_a_moment_are_refused(make_app: AppMaker) -> None:
    environment = {"ENABLE_ANTHROPIC_API": "true", "ANTHROPIC_API_KEYS": "sk-ant-of-these-tests"}
    client = make_app(runtime=environment).test_client()
    for many in (b"[" + b"[]," * 300_000 + b"1]", b"{" + b'"a":1,' * 600_000 + b'"b":2}'):
        answer = ask(client, BODY.replace(b'"hi"', many))
        assert answer.status_code == 400
        assert answer.json["error"]["code"] == "too_many_values"
    prose = BODY.replace(b"hi", b'a,[{ \\\\ \\" ,' * 100_000)
    assert ask(client, prose).status_code == 200


def test_an_explanation_is_for_requests_of_sixteen_megabytes_at_most(make_app: AppMaker) -> None:
    """It repeats them twice, and is written in one go."""
    environment = {"ENABLE_ANTHROPIC_API": "true", "ANTHROPIC_API_KEYS": "sk-ant-of-these-tests"}
    client = make_app(runtime=environment).test_client()
    for size, status in ((15_000_000, 200), (17_000_000, 413)):
        answer = ask(client, BODY.replace(b"hi", b"x" * size))
        assert answer.status_code == status
    assert "16777216 bytes" in answer.json["error"]["message"]


@pytest.mark.parametrize(("encoding", "compress"), [("", bytes), ("deflate", zlib.compress), ("zstd", zstd.compress)])
def test_a_large_body_is_not_copied_as_a_whole(
    make_app: AppMaker, monkeypatch: pytest.MonkeyPatch, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    size = 15_000_000
    coded = compress(orjson.dumps({**HI, "x": "x" * size}))
    peaks: list[int] = []

    def loads(raw: bytes, pause: Callable[[], None]) -> Any:
        peaks.append(tracemalloc.get_traced_memory()[1])
        assert len(raw) > size
        return HI

    monkeypatch.setattr(large_json, "loads", loads)
    client = make_app(max_body_bytes=2 * size).test_client()
    tracemalloc.start()
    try:
        ask(client, coded, encoding)
    finally:
        tracemalloc.stop()
    (peak,) = peaks
    assert peak < 1.3 * size, "there is room for an eighth more"

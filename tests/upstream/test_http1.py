"""Responses and events are read alike, whatever pieces the network makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.upstream.events import EventParser, InvalidEvent
from app.upstream.http1 import BadResponse, ChunkedDecoder, ResponseDecoder

CODED = b"5\r\nhello\r\n6;name=value\r\n world\r\nB \r\n\r\n0\r\n\r\nCRLF\r\n0\r\nTrailer: x\r\n\r\n"
DECODED = b"hello world\r\n0\r\n\r\nCRLF"
EVENTS = [{"type": "a", "text": "x\u2028y"}, {"type": "ping"}, {"type": "b", "text": "ü😀"}]


def sse(newline: bytes) -> bytes:
    blocks = [
        b": comment" + newline * 2,
        *(b"event: e" + newline + b"data: " + orjson.dumps(event) + newline * 2 for event in EVENTS),
        b'data: {"type":' + newline + b'data:"c"}' + newline * 2,
    ]
    return b"".join(blocks)


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """`data` whole, byte by byte, and in two at every place."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    for i in range(1, len(data)):
        yield [data[:i], data[i:]]


def test_a_chunked_body_cut_at_any_byte_is_the_same_body() -> None:
    for pieces in cuts(CODED):
        decoder = ChunkedDecoder()
        assert b"".join(decoder.feed(piece) for piece in pieces) == DECODED
        assert decoder.is_complete


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=8), st.lists(st.integers(0, 200), max_size=12))
def test_any_chunked_body_in_any_pieces_is_the_same_body(chunks: list[bytes], places: list[int]) -> None:
    coded = b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks) + b"0\r\n\r\n"
    borders = sorted({0, len(coded), *(p for p in places if p < len(coded))})
    decoder = ChunkedDecoder()
    pieces = [coded[a:b] for a, b in pairwise(borders)]
    assert b"".join(decoder.feed(piece) for piece in pieces) == b"".join(chunks)
    assert decoder.is_complete


def test_a_chunked_body_is_not_complete_before_its_last_byte() -> None:
    decoder = ChunkedDecoder()
    decoder.feed(CODED[:-1])
    assert not decoder.is_complete


@pytest.mark.parametrize(
    "blank", [b"data:", b"data: ", b"data", b"data:\ndata:", b"data: [DONE]", b"event: ping", b":", b""]
)
def test_blank_data_is_no_event(blank: bytes) -> None:
    assert EventParser().feed(blank + b'\n\ndata: {"type":"ping"}\n\n') == [{"type": "ping"}]


@pytest.mark.parametrize("at", range(5))
def test_a_byte_order_mark_is_skipped_wherever_it_is_cut(at: int) -> None:
    text = b'\xef\xbb\xbfdata: {"type":"ping"}\n\n'
    parser = EventParser()
    pieces = [piece for piece in (text[:at], text[at:]) if piece]
    assert [event for piece in pieces for event in parser.feed(piece)] == [{"type": "ping"}]


@pytest.mark.parametrize("bad", [b"zz\r\n", b"-5\r\n", b"\r\n", b"5\r\nhellooo\r\n", b"1" * 70_000])
def test_what_is_no_chunked_coding_is_refused(bad: bytes) -> None:
    with pytest.raises(BadResponse):
        ChunkedDecoder().feed(bad)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_events_cut_at_any_byte_are_the_same_events(newline: bytes) -> None:
    for pieces in cuts(sse(newline)):
        parser = EventParser()
        events = [event for piece in pieces for event in parser.feed(piece)]
        if newline == b"\r":  # a lone CR at the very end may yet be the half of a CR LF
            events += parser.feed(b"\n")
        assert events == [*EVENTS, {"type": "c"}]


@pytest.mark.parametrize("bad", [b"data: {oops\n\n", b"data: 5\n\n", b"data: \xff\n\n"])
def test_data_that_is_no_json_object_is_refused(bad: bytes) -> None:
    with pytest.raises(InvalidEvent):
        EventParser().feed(bad)


def decoded(pieces: list[bytes], *, closes: bool = False) -> tuple[ResponseDecoder, bytes]:
    decoder = ResponseDecoder()
    body = b"".join([decoder.feed(piece) for piece in pieces])
    if closes:
        decoder.end()
    return decoder, body


HEAD = b"HTTP/1.1 200 OK\r\nrequest-id: req_1\r\nX-Two: a\r\nx-two:  b\t\r\n"


@pytest.mark.parametrize(
    ("raw", "body", "keeps_alive", "closes"),
    [
        (HEAD + b"content-length: 5\r\n\r\nhello", b"hello", True, False),
        (HEAD + b"content-length: 5, 5\r\n\r\nhello", b"hello", True, False),
        (HEAD + b"content-length: 0\r\n\r\n", b"", True, False),
        (HEAD + b"Transfer-Encoding: Chunked\r\n\r\n" + CODED, DECODED, True, False),
        (HEAD + b"connection: close\r\n\r\nuntil the end", b"until the end", False, True),
        (HEAD + b"\r\nuntil the end", b"until the end", False, True),
        (HEAD + b"connection: x, Close\r\ncontent-length: 2\r\n\r\nhi", b"hi", False, False),
        (HEAD.replace(b"1.1", b"1.0") + b"content-length: 2\r\n\r\nhi", b"hi", False, False),
        (HEAD.replace(b"1.1", b"1.0") + b"connection: keep-alive\r\ncontent-length: 2\r\n\r\nhi", b"hi", True, False),
        (HEAD.replace(b"200 OK", b"204") + b"\r\n", b"", True, False),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"content-length: 2\r\n\r\nhi", b"hi", True, False),
        (HEAD + b"content-length: 2\r\n\r\nhi, and more", b"hi", False, False),
        (HEAD + b"content-length: 9\r\ntransfer-encoding: chunked\r\n\r\n" + CODED, DECODED, False, False),
        (HEAD.replace(b"1.1", b"1.0") + b"transfer-encoding: chunked\r\n\r\n" + CODED, DECODED, False, False),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\nmore", b"", False, False),
    ],
)
def test_a_response_cut_at_any_byte_is_the_same_response(
    raw: bytes, body: bytes, keeps_alive: bool, closes: bool
) -> None:
    for pieces in cuts(raw):
        decoder, found = decoded(pieces, closes=closes)
        assert (found, decoder.is_complete) == (body, True)
        assert decoder.status in (200, 204)
        assert decoder.headers[:3] == [(b"request-id", b"req_1"), (b"X-Two", b"a"), (b"x-two", b"b")]
        if b"more" not in raw or len(pieces) == 1:  # what comes after the end in a read of its own is not looked at
            assert decoder.keeps_alive is keeps_alive


def test_a_header_that_goes_on_in_the_next_line_is_one() -> None:
    decoder, _ = decoded([b"HTTP/1.1 200 OK\r\na: b\r\n  c\r\ncontent-length: 0\r\n\r\n"])
    assert decoder.headers[0] == (b"a", b"b c")


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"",
    ],
)
def test_a_response_that_ends_early_is_none(raw: bytes) -> None:
    with pytest.raises(BadResponse, match="connection was closed"):
        decoded([raw], closes=True)


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"HTTP/1.1 200 OK\nx: y\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nname : value\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n goes on: from nothing\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\nset-cookie: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\rset-cookie: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"x: y\r\n" * 20_000,
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000,
    ],
)
def test_what_is_no_response_is_refused(raw: bytes) -> None:
    with pytest.raises(BadResponse):
        decoded([raw])

"""Bodies and events are read alike, whatever pieces the network makes of them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.client import HTTPResponse
from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.exceptions import ProtocolError

from app.upstream.body import BodyReader, ChunkedDecoder
from app.upstream.events import EventParser, InvalidEvent

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


@pytest.mark.parametrize("bad", [b"zz\r\n", b"-5\r\n", b"\r\n", b"5\r\nhellooo\r\n", b"1" * 70_000])
def test_what_is_no_chunked_coding_is_refused(bad: bytes) -> None:
    with pytest.raises(ProtocolError):
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


def response_to(raw: bytes) -> tuple[HTTPResponse, threading.Thread]:
    here, there = socket.socketpair()

    def send() -> None:
        for i in range(0, len(raw), 7):
            there.sendall(raw[i : i + 7])
        there.close()

    thread = threading.Thread(target=send)
    thread.start()
    response = HTTPResponse(here)
    response.begin()
    here.close()
    return response, thread


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + CODED, DECODED),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b""),
    ],
)
def test_a_body_is_read_to_its_declared_end(raw: bytes, expected: bytes) -> None:
    response, thread = response_to(raw)
    with response:
        reader = BodyReader(response)
        assert b"".join(iter(reader.read, b"")) == expected
        assert reader.is_complete
    thread.join()


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ],
)
def test_a_body_that_ends_early_is_no_body(raw: bytes) -> None:
    response, thread = response_to(raw)
    with response, pytest.raises(ProtocolError):
        reader = BodyReader(response)
        while reader.read():
            pass
    thread.join()

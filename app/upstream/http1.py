"""An HTTP/1.1 response as it comes over the wire. Pure: bytes in, bytes out, in whatever pieces.

http.client and urllib3 hand out one transfer chunk at a time, give a response up when a read is interrupted, and read
each head with the parser for e-mails.

https://www.rfc-editor.org/rfc/rfc9112
"""

from __future__ import annotations

import re

_LONGEST_HEAD = 128 * 1024
_LONGEST_LINE = 65536
_HEX = re.compile(rb"[0-9a-fA-F]{1,16}")
_WHOLE = re.compile(rb"([1-9a-fA-F][0-9a-fA-F]{0,6})\r\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\r\n]*)?")
_HEADER_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BREAK = re.compile(rb"[\r\n\0]")
_LENGTH = re.compile(rb"[0-9]{1,18}")

Headers = list[tuple[bytes, bytes]]


class BadResponse(Exception):
    """The other side does not speak HTTP/1.1, or broke off in the middle."""


class ResponseDecoder:
    """Feed it what arrives; it gives the bytes of the body. `status` is 0 until the head is there, `is_complete` tells
    that the declared end of the body was seen, `keeps_alive` whether another request may follow on the connection."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self.is_complete = False
        self.keeps_alive = False
        self.has_begun = False
        """Something has come."""
        self._head = bytearray()
        self._chunks: ChunkedDecoder | None = None
        self._left: int | None = None
        """Bytes that the body still owes; None: chunks, or until the connection closes."""

    def feed(self, data: bytes) -> bytes:
        """Raises BadResponse."""
        if not self.status:
            data = self._feed_head(data)
            if not self.status:
                return b""
        if self._chunks is not None:
            data = self._chunks.feed(data)
            self.is_complete = self._chunks.is_complete
            self.keeps_alive = self.keeps_alive and not self._chunks.has_surplus
        elif self._left is not None:
            if len(data) > self._left:
                self.keeps_alive = False  # bytes that nobody asked for
                data = data[: self._left]
            self._left -= len(data)
            self.is_complete = self._left == 0
        return data

    def end(self) -> None:
        """The connection was closed. Raises BadResponse where that is not the end of the body."""
        if not self.status:
            raise BadResponse("the connection was closed before an answer came")
        if not self.is_complete and (self._chunks is not None or self._left is not None):
            raise BadResponse("the connection was closed in the middle of the body")
        self.is_complete = True
        self.keeps_alive = False

    def _feed_head(self, data: bytes) -> bytes:
        """What follows the head, b"" while it has not come."""
        self.has_begun = True
        looked_at = max(0, len(self._head) - 3)
        self._head += data
        while (end := self._head.find(b"\r\n\r\n", looked_at)) >= 0:
            status = self._parse(bytes(self._head[:end]))
            del self._head[: end + 4]
            looked_at = 0
            if status >= 200:
                self.status = status
                rest, self._head = bytes(self._head), bytearray()
                return rest
        if len(self._head) > _LONGEST_HEAD:
            raise BadResponse("the head of the answer is too long")
        return b""

    def _parse(self, head: bytes) -> int:
        first, *lines = head.split(b"\r\n")
        match = _STATUS_LINE.fullmatch(first)
        if match is None:
            raise BadResponse("it is not HTTP/1.1")
        status = int(match[2])
        if status == 101:
            raise BadResponse("it changes to another protocol")
        self.headers = _headers_of(lines)
        values: dict[bytes, list[bytes]] = {}
        for name, value in self.headers:
            values.setdefault(name.lower(), []).append(value)
        tokens = [token.strip().lower() for value in values.get(b"connection", ()) for token in value.split(b",")]
        self.keeps_alive = b"close" not in tokens and (match[1] == b"1" or b"keep-alive" in tokens)
        codings = [c.strip().lower() for value in values.get(b"transfer-encoding", ()) for c in value.split(b",")]
        self._chunks, self._left, self.is_complete = None, None, False
        if status in (204, 304):
            self._left, self.is_complete = 0, True
        elif codings:
            if codings != [b"chunked"]:
                raise BadResponse("its transfer coding is not chunked")
            self._chunks = ChunkedDecoder()
            if match[1] == b"0" or b"content-length" in values:
                self.keeps_alive = False  # others may see another end
        elif b"content-length" in values:
            lengths = {length.strip() for value in values[b"content-length"] for length in value.split(b",")}
            if len(lengths) != 1 or not _LENGTH.fullmatch(next(iter(lengths))):
                raise BadResponse("its length is not a number")
            self._left = int(lengths.pop())
            self.is_complete = self._left == 0
        else:
            self.keeps_alive = False
        return status


def _headers_of(lines: list[bytes]) -> Headers:
    headers: Headers = []
    for line in lines:
        if line[:1] in (b" ", b"\t") and headers:  # a line that goes on, as it used to be done
            headers[-1] = (headers[-1][0], headers[-1][1] + b" " + line.strip(b" \t"))
            continue
        name, colon, value = line.partition(b":")
        if not colon or not _HEADER_NAME.fullmatch(name) or _BREAK.search(value):
            raise BadResponse("it has a header that is none")
        headers.append((name, value.strip(b" \t")))
    return headers


class ChunkedDecoder:
    """Takes the chunked transfer coding off a body, whatever pieces it comes in.

    https://www.rfc-editor.org/rfc/rfc9112#section-7.1
    """

    def __init__(self) -> None:
        self.is_complete = False
        self._rest = b""
        """What has arrived of a line that is not whole yet."""
        self._left = 0
        """Bytes that the current chunk still owes."""
        self._expects_end_of_chunk = False
        self._in_trailers = False
        self._trailers = 0
        self.has_surplus = False
        """Something came after the end."""

    def feed(self, data: bytes) -> bytes:
        """Raises BadResponse for what is not chunked coding."""
        out = []
        at = 0
        if self._rest:
            data = self._rest + data
            self._rest = b""
        while at < len(data) and not self.is_complete:
            if not (self._left or self._expects_end_of_chunk or self._in_trailers) and (
                whole := _WHOLE.match(data, at)
            ):
                end = whole.end() + int(whole[1], 16)
                if data[end : end + 2] == b"\r\n":  # the usual case, in one step
                    out.append(data[whole.end() : end])
                    at = end + 2
                    continue
            if self._left:
                piece = data[at : at + self._left]
                out.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._expects_end_of_chunk = True
                continue
            end = data.find(b"\n", at)
            if end < 0:
                self._rest = data[at:]
                if len(self._rest) > _LONGEST_LINE:
                    raise BadResponse("a line of the chunked coding is too long")
                break
            self._line(data[at:end].rstrip(b"\r"))
            at = end + 1
        self.has_surplus = self.is_complete and at < len(data)
        return b"".join(out)

    def _line(self, line: bytes) -> None:
        if self._in_trailers:
            self.is_complete = not line
            self._trailers += len(line)
            if self._trailers > _LONGEST_LINE:
                raise BadResponse("the trailers are too long")
        elif self._expects_end_of_chunk:
            if line:
                raise BadResponse("a chunk is longer than it said")
            self._expects_end_of_chunk = False
        else:
            self._left = _chunk_size(line)
            self._in_trailers = self._left == 0


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not _HEX.fullmatch(digits):  # int() would take signs and underscores
        raise BadResponse("not the size of a chunk")
    return int(digits, 16)

"""The body of an HTTP/1.1 response, read as it arrives.

urllib3 hands out one transfer chunk at a time and gives a response up when a read is interrupted. This reader takes all
bytes that have arrived in one go, and a read that a timer interrupted can be taken up again.
"""

from __future__ import annotations

import re
from http.client import HTTPResponse

from urllib3.exceptions import ProtocolError

_READ_SIZE = 16384  # held by each stream while it waits
_LONGEST_LINE = 65536
_HEX = re.compile(rb"[0-9a-fA-F]{1,16}")


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

    def feed(self, data: bytes) -> bytes:
        """Raises ProtocolError for what is not chunked coding."""
        out = []
        at = 0
        if self._rest:
            data = self._rest + data
            self._rest = b""
        while at < len(data) and not self.is_complete:
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
                    raise ProtocolError("a line of the chunked coding is too long")
                break
            self._line(data[at:end].rstrip(b"\r"))
            at = end + 1
        return b"".join(out)

    def _line(self, line: bytes) -> None:
        if self._in_trailers:
            self.is_complete = not line
        elif self._expects_end_of_chunk:
            if line:
                raise ProtocolError("a chunk is longer than it said")
            self._expects_end_of_chunk = False
        else:
            self._left = _chunk_size(line)
            self._in_trailers = self._left == 0


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not _HEX.fullmatch(digits):  # int() would take signs and underscores
        raise ProtocolError("not the size of a chunk")
    return int(digits, 16)


class BodyReader:
    """Reads the body that follows the head of `response`; `is_complete` once its declared end was seen."""

    def __init__(self, response: HTTPResponse) -> None:
        self.is_complete = False
        self._file = response.fp
        self._decoder = ChunkedDecoder() if response.chunked else None
        self._left = response.length  # None: until the connection closes

    def read(self) -> bytes:
        """What has arrived, at least one byte; b"" at the end. Raises ProtocolError when the body was cut short."""
        while not self.is_complete:
            if self._left == 0 and self._decoder is None:
                self.is_complete = True
                break
            data = self._file.read1(_READ_SIZE if self._left is None else min(self._left, _READ_SIZE))
            if not data:
                self._end_of_connection()
                break
            if self._decoder is None:
                if self._left is not None:
                    self._left -= len(data)
                    self.is_complete = self._left == 0
                return data
            decoded = self._decoder.feed(data)
            self.is_complete = self._decoder.is_complete
            if decoded:
                return decoded
        return b""

    def _end_of_connection(self) -> None:
        if self._decoder is not None or self._left:
            raise ProtocolError("the connection was closed in the middle of the body")
        self.is_complete = True

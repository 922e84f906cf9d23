"""Just enough HTTP/1.1: bytes to requests, and the bytes of an answer."""

from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qs, unquote, urlsplit

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 32 * 1024 * 1024
LAST_CHUNK = b"0\r\n\r\n"


class MalformedRequest(Exception):
    """Bytes that are not HTTP, or more of them than are allowed; the connection is of no further use."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(slots=True)
class Request:
    """One request. Header names are lower case; `path` is unquoted and has no query. `query` has the last value of each
    name, `lists` all of them. `target` and `raw_headers` are as they came: names in their case, doubled ones twice."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""
    lists: dict[str, list[str]] = field(default_factory=dict)
    target: str = ""
    raw_headers: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Parser:
    """Feed it what arrives, take requests out; holds what is not complete yet."""

    buffer: bytearray = field(default_factory=bytearray)
    head: Request | None = None
    length: int | None = None
    """Content length of the request whose head was read; None while its body comes in chunks."""
    wants_continue: bool = False
    chunks: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> None:
        self.buffer += data

    def next_request(self) -> Request | None:
        """The next complete request, or None until more bytes came. Raises MalformedRequest."""
        if self.head is None and not self._read_head():
            return None
        body = self._chunked_body() if self.length is None else self._plain_body(self.length)
        if body is None:
            return None
        request, self.head = self.head, None
        assert request is not None  # _read_head() has just said so
        request.body = body
        return request

    def _read_head(self) -> bool:
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self.buffer) > MAX_HEAD_BYTES:
                raise MalformedRequest(431, "Request headers are too large")
            return False
        first, *lines = bytes(self.buffer[:end]).decode("latin-1").split("\r\n")
        del self.buffer[: end + 4]
        try:
            method, target, _ = first.split(" ")
        except ValueError:
            raise MalformedRequest(400, "Malformed request line") from None
        raw_headers = [_header(line) for line in lines]
        headers = _joined(raw_headers)
        url = urlsplit(target)
        lists = parse_qs(url.query, keep_blank_values=True)
        query = {name: values[-1] for name, values in lists.items() if values[-1]}
        path = unquote(url.path)
        self.head = Request(method, path, query, headers, lists=lists, target=target, raw_headers=raw_headers)
        self.length = None if "chunked" in headers.get("transfer-encoding", "") else _content_length(headers)
        self.wants_continue = headers.get("expect", "").lower() == "100-continue"
        return True

    def _plain_body(self, length: int) -> bytes | None:
        if length > MAX_BODY_BYTES:
            raise MalformedRequest(413, "Request exceeds the maximum size")
        if len(self.buffer) < length:
            return None
        body = bytes(self.buffer[:length])
        del self.buffer[:length]
        return body

    def _chunked_body(self) -> bytes | None:
        while True:
            line_end = self.buffer.find(b"\r\n")
            if line_end < 0:
                return None
            try:
                size = int(self.buffer[:line_end].split(b";")[0], 16)
            except ValueError:
                raise MalformedRequest(400, "Malformed chunk") from None
            if len(self.chunks) + size > MAX_BODY_BYTES:
                raise MalformedRequest(413, "Request exceeds the maximum size")
            start, end = line_end + 2, line_end + 2 + size
            if len(self.buffer) < end + 2:
                return None
            self.chunks += self.buffer[start:end]
            del self.buffer[: end + 2]
            if size == 0:
                body = bytes(self.chunks)
                self.chunks.clear()
                return body


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon:
        raise MalformedRequest(400, "Malformed header")
    return name.strip(), value.strip()


def _joined(raw_headers: list[tuple[str, str]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in raw_headers:
        name = name.lower()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _content_length(headers: dict[str, str]) -> int:
    text = headers.get("content-length", "0")
    if not text.isdigit():
        raise MalformedRequest(400, "Malformed content-length")
    return int(text)


def reason(status: int) -> str:
    """The words behind a status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Overloaded" if status == 529 else "Unknown Error"  # registered nowhere


def head(status: int, headers: dict[str, str]) -> bytes:
    """Status line and headers, with the empty line that ends them."""
    lines = [f"HTTP/1.1 {status} {reason(status)}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)

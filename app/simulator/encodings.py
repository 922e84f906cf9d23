"""Compressed bodies: those of requests by their `content-encoding`, those of answers by `accept-encoding`."""

import gzip
import zlib

from app.simulator.http import MAX_BODY_BYTES
from app.simulator.refusal import Refusal

_WINDOW = {"gzip": 31, "deflate": zlib.MAX_WBITS}
_STREAM_WINDOW = 31


def decoded(body: bytes, headers: dict[str, str]) -> bytes:
    """The body without its content encodings. Raises a Refusal with one of the `request_body_…` codes."""
    names = [name.strip().lower() for name in headers.get("content-encoding", "").split(",")]
    for name in reversed([name for name in names if name not in ("", "identity")]):
        if name not in _WINDOW:
            raise Refusal(f"Content-Encoding {name!r} is not supported", error_code="request_body_encoding_unsupported")
        body = _unpacked(body, _WINDOW[name], name)
    return body


def _unpacked(body: bytes, window: int, name: str) -> bytes:
    unpacker = zlib.decompressobj(window)
    invalid = f"The request body is not valid {name}"
    try:
        plain = unpacker.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise Refusal(invalid, error_code="request_body_encoding_invalid") from None
    if len(plain) > MAX_BODY_BYTES:
        raise Refusal(
            "Request exceeds the maximum size once decoded", 413, error_code="request_body_too_large_after_decoding"
        )
    if not unpacker.eof or unpacker.unused_data:
        raise Refusal(invalid, error_code="request_body_encoding_invalid")
    return plain


def takes_gzip(headers: dict[str, str]) -> bool:
    """Whether `accept-encoding` names gzip, and not with q=0."""
    for item in headers.get("accept-encoding", "").split(","):
        name, _, quality = item.partition(";")
        if name.strip().lower() == "gzip":
            return quality.replace(" ", "").rstrip("0.") != "q="
    return False


def gzipped(body: bytes) -> bytes:
    return gzip.compress(body, compresslevel=1, mtime=0)


class GzipStream:
    """Compresses piece by piece; what went in has gone out whole after each."""

    def __init__(self) -> None:
        self._packer = zlib.compressobj(1, zlib.DEFLATED, _STREAM_WINDOW)

    def piece(self, data: bytes) -> bytes:
        return self._packer.compress(data) + self._packer.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self._packer.flush()

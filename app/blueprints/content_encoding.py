"""Bodies that come compressed, as agents and proxies send large ones. https://www.rfc-editor.org/rfc/rfc9110#section-8.4"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Mapping

from app.errors import InvalidRequest, UnsupportedMediaType, shown

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_MOST_CODINGS = 2
_LARGEST_WINDOW_LOG = 23  # 8 MB, https://www.rfc-editor.org/rfc/rfc9659
_READ_AT_ONCE = 64 * 1024
"""Blocks that make nothing of what they hold cost up to 0.1 s for each megabyte of them."""
_MADE_AT_ONCE = 1024 * 1024
_Bytes = bytes | bytearray
"""What has been put together is not copied once more: of 32 MB that takes up to 0.1 s."""


def decoded(raw: _Bytes, encodings: str, limit: int, pause: Callable[[], None]) -> _Bytes:
    """`raw` without the codings that the header Content-Encoding names; more than `limit` bytes when it holds more.
    Calls `pause` after every megabyte made, and every 64 KB read: a few bytes may stand for many, and many for none.

    Raises UnsupportedMediaType for a coding that is not known, InvalidRequest for what is not coded so.
    """
    names = [part.strip().lower() for part in encodings.split(",")]
    if len(names) > _MOST_CODINGS:
        raise UnsupportedMediaType(
            f"Content-Encoding names {len(names)} codings; at most {_MOST_CODINGS} are taken.", param="Content-Encoding"
        )
    for name in reversed(names):
        if name in ("", "identity"):
            continue
        decode = _DECODERS.get(name)
        if decode is None:
            raise UnsupportedMediaType(
                f"Content-Encoding is {shown(name)}; accepted are {_ACCEPTED}.",
                param="Content-Encoding",
                headers={"accept-encoding": _ACCEPTED},
            )
        try:
            raw, is_whole = decode(raw, limit + 1, pause)
        except (zlib.error, zstd.ZstdError) as error:
            raise _malformed(name, str(error)) from error
        if len(raw) > limit:
            return raw
        if not is_whole:
            raise _malformed(name, "it is cut short, or something stands behind its end")
    return raw


def _malformed(name: str, reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"The body of your request could not be decoded as {name} (Content-Encoding): {reason}.",
        param="Content-Encoding",
    )


def _inflated(raw: _Bytes, most: int, pause: Callable[[], None]) -> tuple[_Bytes, bool]:
    """gzip, or what is called deflate: zlib's format by the standard, without its head from some clients."""
    is_headless = raw[:1] != b"\x1f" and (len(raw) < 2 or raw[0] & 0x0F != 8 or (raw[0] << 8 | raw[1]) % 31)
    stream = zlib.decompressobj(wbits=-15 if is_headless else 47)
    data = bytearray()
    for start in range(0, len(raw), _READ_AT_ONCE):
        given = raw[start : start + _READ_AT_ONCE]
        is_emptied = False
        while not is_emptied and not stream.eof:
            room = min(_MADE_AT_ONCE, most - len(data))
            piece = stream.decompress(given, room)
            data += piece
            if len(data) == most:
                return data, False
            given = stream.unconsumed_tail
            is_emptied = not given and len(piece) < room
            pause()
        if stream.eof:
            return data, not stream.unused_data and start + _READ_AT_ONCE >= len(raw)
    return data, False


def _unzstd(raw: _Bytes, most: int, pause: Callable[[], None]) -> tuple[_Bytes, bool]:
    stream = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _LARGEST_WINDOW_LOG})
    data = bytearray()
    start = 0
    while not stream.eof and len(data) < most and (start < len(raw) or not stream.needs_input):
        given = raw[start : start + _READ_AT_ONCE] if stream.needs_input else b""
        start += len(given)
        data += stream.decompress(given, min(_MADE_AT_ONCE, most - len(data)))
        pause()
    return data, stream.eof and not stream.unused_data and start >= len(raw)


_DECODERS: Mapping[str, Callable[[_Bytes, int, Callable[[], None]], tuple[_Bytes, bool]]] = {
    "gzip": _inflated,
    "x-gzip": _inflated,
    "deflate": _inflated,
    "zstd": _unzstd,
}
_ACCEPTED = "gzip, deflate, zstd"

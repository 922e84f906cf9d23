"""Signatures of thinking blocks: made when they are sent, checked when they come back.

A signature holds the model family, and for models with bound thinking a digest of the conversation before the turn and
of the account. The key is fixed: blocks survive a restart, as they do with the real API.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

import orjson

KEY = b"simulator, not a secret"
SEPARATOR = "|"


@dataclass(frozen=True, slots=True)
class Binding:
    """What a block was signed for; an empty field is not bound."""

    family: str
    prefix: str = ""
    account: str = ""


def sign(text: str, binding: Binding) -> str:
    """The signature of thinking text (empty when its display is omitted) or of redacted data."""
    head = SEPARATOR.join((binding.family, binding.prefix, binding.account))
    return base64.b64encode(f"{head}{SEPARATOR}{_mac(head, text)}".encode()).decode()


def check(text: str, signature: str) -> Binding | None:
    """What the block was signed for, or None when text and signature do not belong together."""
    try:
        family, prefix, account, mac = base64.b64decode(signature, validate=True).decode().split(SEPARATOR)
    except ValueError:
        return None
    head = SEPARATOR.join((family, prefix, account))
    return Binding(family, prefix, account) if hmac.compare_digest(mac, _mac(head, text)) else None


def redacted_data(binding: Binding) -> str:
    """The `data` of a redacted_thinking block."""
    return sign("redacted", binding)


def check_redacted(data: str) -> Binding | None:
    return check("redacted", data)


def account_of(key: str) -> str:
    """Which account a key belongs to: keys that differ only behind a dot share one."""
    return hashlib.blake2b(key.partition(".")[0].encode(), digest_size=8).hexdigest()


def prefix_digest(body: dict[str, Any], turns: list[dict[str, Any]]) -> str:
    """A digest of system, tools and the `turns` before the one with the thinking block.

    `cache_control` does not count, and a string is the same as one text block.
    """
    system = body.get("system") or []
    seen = [_blocks(system), _bare(body.get("tools") or []), [[t["role"], _blocks(t["content"])] for t in turns]]
    return hashlib.blake2b(orjson.dumps(seen, option=orjson.OPT_SORT_KEYS), digest_size=8).hexdigest()


def _blocks(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else _bare(content)


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _bare(item) for key, item in value.items() if key != "cache_control"}
    return [_bare(item) for item in value] if isinstance(value, list) else value


def _mac(head: str, text: str) -> str:
    return hmac.new(KEY, f"{head}{SEPARATOR}{text}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

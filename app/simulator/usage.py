"""Token estimates and the prompt cache: deterministic, so that tests can compare whole values."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

CHARACTERS_PER_TOKEN = 4
IMAGE_TOKENS = 1_500
DOCUMENT_TOKENS = 3_000
OVERHEAD_TOKENS = 8
TTL_S = {"5m": 300.0, "1h": 3600.0}
LOOKBACK_BLOCKS = 20


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """How the prompt was billed: what was neither written nor read is `input`."""

    input: int
    write_5m: int = 0
    write_1h: int = 0
    read: int = 0

    @property
    def total(self) -> int:
        return self.input + self.write_5m + self.write_1h + self.read

    def as_usage(self) -> dict[str, Any]:
        return {
            "input_tokens": self.input,
            "cache_creation_input_tokens": self.write_5m + self.write_1h,
            "cache_read_input_tokens": self.read,
        }

    def breakdown(self) -> dict[str, int]:
        return {"ephemeral_5m_input_tokens": self.write_5m, "ephemeral_1h_input_tokens": self.write_1h}


def text_tokens(text: str) -> int:
    """About one token per four bytes, at least one for any text."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // CHARACTERS_PER_TOKEN)


def count_prompt(body: dict[str, Any]) -> int:
    """The tokens of a whole request."""
    return OVERHEAD_TOKENS + sum(tokens for _, tokens, _ in _pieces(body))


def _pieces(body: dict[str, Any]) -> Iterator[tuple[Any, int, str | None]]:
    """The pieces of the prompt in the order the cache sees them: the piece, its tokens, its breakpoint's ttl."""
    for tool in body.get("tools") or ():
        yield _piece(tool)
    system = body.get("system") or ()
    for block in [{"type": "text", "text": system}] if isinstance(system, str) else system:
        yield _piece(block)
    for message in body["messages"]:
        content = message["content"]
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            piece, tokens, ttl = _piece(block)
            yield (message["role"], piece), tokens, ttl


def _piece(block: dict[str, Any]) -> tuple[Any, int, str | None]:
    control = block.get("cache_control")
    bare = {key: value for key, value in block.items() if key != "cache_control"}
    return bare, _block_tokens(bare), control.get("ttl", "5m") if control else None


def _block_tokens(block: Any) -> int:
    kind = block.get("type")
    if kind == "text":
        return text_tokens(block.get("text") or "")
    if kind == "image":
        return IMAGE_TOKENS
    if kind == "document":
        return DOCUMENT_TOKENS
    if kind == "tool_result" and isinstance(block.get("content"), list):
        return 1 + sum(_block_tokens(part) for part in block["content"])
    return text_tokens(orjson.dumps(block).decode())


@dataclass
class PromptCache:
    """What each account has cached: (account, model, digest of a prefix) → when it expires."""

    expires: dict[tuple[str, str, bytes], float] = field(default_factory=dict)
    lowest_size_to_sweep: int = 10_000

    def bill(self, account: str, model: str, minimum: int, body: dict[str, Any], now_s: float) -> PromptTokens:
        """How the prompt is billed; remembers what it writes. Prompts below `minimum` tokens are never cached."""
        automatic = body.get("cache_control")
        if not automatic and not has_breakpoint(body):
            return PromptTokens(count_prompt(body))
        prefixes = self._prefixes(body, (automatic or {}).get("ttl", "5m") if automatic else None)
        total = prefixes[-1][1]
        marked = [place for place, (_, tokens, ttl) in enumerate(prefixes) if ttl and tokens >= minimum]
        if not marked:
            return PromptTokens(total)
        read = self._longest_hit(account, model, prefixes, marked, now_s)
        written = {"5m": 0, "1h": 0}
        done = read
        for place in marked:
            digest, tokens, ttl = prefixes[place]
            assert ttl is not None  # by construction of `marked`
            written[ttl] += max(0, tokens - done)
            done = max(done, tokens)
            self.expires[account, model, digest] = now_s + TTL_S[ttl]
        self._sweep(now_s)
        return PromptTokens(total - done, written["5m"], written["1h"], read)

    def _prefixes(self, body: dict[str, Any], automatic_ttl: str | None) -> list[tuple[bytes, int, str | None]]:
        digest = hashlib.blake2b(digest_size=16)
        tokens = OVERHEAD_TOKENS
        prefixes: list[tuple[bytes, int, str | None]] = []
        for piece, size, ttl in _pieces(body):
            digest.update(orjson.dumps(piece))  # keys in the order that they came in: another one is another prompt
            tokens += size
            prefixes.append((digest.digest(), tokens, ttl))
        if automatic_ttl:
            last_digest, last_tokens, ttl = prefixes[-1]
            prefixes[-1] = (last_digest, last_tokens, ttl or automatic_ttl)
        return prefixes

    def _longest_hit(
        self, account: str, model: str, prefixes: list[tuple[bytes, int, str | None]], marked: list[int], now_s: float
    ) -> int:
        """Tokens of the longest known prefix that ends at most 20 blocks before a breakpoint."""
        for place in reversed(marked):
            for near in range(place, max(-1, place - LOOKBACK_BLOCKS), -1):
                digest, tokens, _ = prefixes[near]
                if self.expires.get((account, model, digest), 0.0) > now_s:
                    return tokens
        return 0

    def _sweep(self, now_s: float) -> None:
        if len(self.expires) > self.lowest_size_to_sweep:
            self.expires = {key: at for key, at in self.expires.items() if at > now_s}


def has_breakpoint(body: dict[str, Any]) -> bool:
    """Whether any tool, system block or content block carries `cache_control`."""
    return any(ttl for _, _, ttl in _pieces(body))

"""How strict the API is with a key, and what its account is like: `POST /_sim/policies {"key": …, "policy": {…}}`.

{"known_betas": true}               other values of `anthropic-beta` are refused; a list says which are known
{"beta_fields": "strict"}           further fields need their beta, those of `STRICT`; "taken": no field needs one
{"oldest_claude_code": "2.1.300"}   older ones are refused by their user agent
{"unified": "allowed"}              limits of a subscription in the headers; "rejected": 429 to everything
{"threads": "unsupported"}          `thread` is refused; "ignored": it is taken, and nothing is remembered

`"policy": null` lifts the one of that key; "*" is any key that has none of its own.
"""

import re
import time
from dataclasses import dataclass, field
from typing import Any

from app.simulator.refusal import Refusal
from app.simulator.rules import fail

ANY_KEY = "*"
KNOWN_BETAS = frozenset(
    [
        *("message-batches-2024-09-24", "prompt-caching-2024-07-31", "token-counting-2024-11-01", "pdfs-2024-09-25"),
        *("computer-use-2024-10-22", "computer-use-2025-01-24", "computer-use-2025-11-24", "output-128k-2025-02-19"),
        *("token-efficient-tools-2025-02-19", "files-api-2025-04-14", "mcp-client-2025-04-04"),
        *("mcp-client-2025-11-20", "mcp-client-2026-09-15", "dev-full-thinking-2025-05-14"),
        *("interleaved-thinking-2025-05-14", "code-execution-2025-05-22", "extended-cache-ttl-2025-04-11"),
        *("context-1m-2025-08-07", "context-management-2025-06-27", "model-context-window-exceeded-2025-08-26"),
        *("skills-2025-10-02", "fast-mode-2026-02-01", "output-300k-2026-03-24", "user-profiles-2026-03-24"),
        *("user-profiles-2026-08-18", "user-profiles-2026-09-04", "advisor-tool-2026-03-01"),
        *("thinking-token-count-2026-05-13", "server-side-fallback-2026-06-01", "server-side-fallback-2026-07-01"),
        *("fallback-credit-2026-06-01", "fallback-credit-2026-07-01", "mid-conversation-tool-changes-2026-07-01"),
        *("compact-2026-01-12", "compact-2026-09-04", "structured-outputs-2025-11-13", "task-budgets-2026-03-13"),
        *("thinking-display-updates-2026-08-18", "mid-conversation-output-config-2026-07-01"),
        *("thinking-binding-controls-2026-08-01", "mid-conversation-system-clear-at-2026-08-21"),
        *("inline-tools-2026-09-15", "message-threads-2026-08-12", "cache-diagnosis-2026-04-07"),
        *("user-profiles-billing-2026-10-01", "analytics-usage-cost-2026-08-24"),
        # Claude Code's own, in no list of the SDK's
        *("claude-code-20250219", "oauth-2025-04-20", "prompt-caching-scope-2026-01-05", "effort-2025-11-24"),
        *("structured-outputs-2025-12-15", "advanced-tool-use-2025-11-20", "tool-search-tool-2025-10-19"),
        *("fine-grained-tool-streaming-2025-05-14", "redact-thinking-2026-02-12", "context-hint-2026-04-09"),
        *("mid-conversation-system-2026-04-07", "dangerous-tool-use-2026-09-03", "afk-mode-2026-01-31"),
    ]
)
STRICT = {
    "system message": ("mid-conversation-system-",),
    "scope": ("prompt-caching-scope-",),
    "defer_loading": ("advanced-tool-use-", "tool-search-tool-", "inline-tools-"),
    "eager_input_streaming": ("fine-grained-tool-streaming-",),
    "safeguards": ("dangerous-tool-use-",),
}
"""What needs a beta of one of these beginnings with `beta_fields: "strict"`; see `validator` for what always does."""
_CLAUDE_CODE = re.compile(r"claude-(?:cli|code)/(\d+)\.(\d+)\.(\d+)")
_CHOICES = {
    "beta_fields": ("usual", "strict", "taken"),
    "unified": (None, "allowed", "allowed_warning", "rejected"),
    "threads": ("kept", "unsupported", "ignored"),
}


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for a key; as it is here when nothing was ordered."""

    known_betas: frozenset[str] | None = None
    beta_fields: str = "usual"
    oldest_claude_code: tuple[int, ...] | None = None
    unified: str | None = None
    threads: str = "kept"

    def check(self, headers: dict[str, str], betas: tuple[str, ...]) -> None:
        """Raises a Refusal for what is told by the headers alone."""
        found = _CLAUDE_CODE.match(headers.get("user-agent", ""))
        if self.oldest_claude_code and found and tuple(map(int, found.groups())) < self.oldest_claude_code:
            oldest = ".".join(map(str, self.oldest_claude_code))
            raise Refusal(
                f"This version of Claude Code is too old: at least {oldest} is needed. Please run `claude update`.",
                error_code="claude_code_version_too_old",
            )
        if self.unified == "rejected":
            raise Refusal("This request would exceed your account's rate limit. Please try again later.", 429)
        if self.known_betas is None:
            return
        unknown = [beta for beta in betas if beta not in self.known_betas]
        if unknown:
            listed = ", ".join(f"`{beta}`" for beta in unknown)
            raise Refusal(
                f"Unexpected value(s) {listed} for the `anthropic-beta` header. Please consult our documentation at "
                "docs.anthropic.com or try again without the header."
            )

    def check_fields(self, body: dict[str, Any], betas: tuple[str, ...]) -> None:
        """Raises a Refusal for the first field that came without its beta."""
        if self.beta_fields != "strict":
            return
        lacking = {name for name, beginnings in STRICT.items() if not any(b.startswith(beginnings) for b in betas)}
        for name, path in _fields_with_betas(body):
            if name in lacking:
                fail(path, "Extra inputs are not permitted")

    def limits(self) -> dict[str, str]:
        """The headers of a subscription's limits, none for an account that pays by use."""
        if self.unified is None:
            return {}
        five_hours, seven_days = str(int(time.time()) + 7_200), str(int(time.time()) + 400_000)
        used = {"allowed": "0.12", "allowed_warning": "0.91", "rejected": "1.0"}[self.unified]
        headers = {
            "status": self.unified,
            "reset": five_hours,
            "representative-claim": "five_hour",
            "fallback-percentage": "0.5",
            "overage-status": "rejected",
            "overage-disabled-reason": "out_of_credits",
            "5h-status": self.unified,
            "5h-reset": five_hours,
            "5h-utilization": used,
            "7d-status": "allowed",
            "7d-reset": seven_days,
            "7d-utilization": "0.59",
        }
        named = {f"anthropic-ratelimit-unified-{name}": value for name, value in headers.items()}
        return {**named, "retry-after": "7200"} if self.unified == "rejected" else named


def _fields_with_betas(body: dict[str, Any]) -> list[tuple[str, str]]:
    """(name in STRICT, path in the API's words) of all such fields that are there."""
    found = [("safeguards", "safeguards")] if "safeguards" in body else []
    for place, tool in enumerate(body.get("tools") or ()):
        kind = tool.get("type") or "custom"
        found += [
            (name, f"tools.{place}.{kind}.{name}")
            for name in ("defer_loading", "eager_input_streaming")
            if name in tool
        ]
        found += _scoped(tool, f"tools.{place}.{kind}")
    system = body.get("system")
    for place, block in enumerate(system if isinstance(system, list) else ()):
        found += _scoped(block, f"system.{place}")
    for place, message in enumerate(body["messages"]):
        if message["role"] == "system":
            found.append(("system message", f"messages.{place}.role"))
        content = message.get("content")
        for at, block in enumerate(content if isinstance(content, list) else ()):
            found += _scoped(block, f"messages.{place}.content.{at}.{block['type']}")
    return found


def _scoped(block: dict[str, Any], path: str) -> list[tuple[str, str]]:
    has_scope = "scope" in (block.get("cache_control") or {})
    return [("scope", f"{path}.cache_control.ephemeral.scope")] if has_scope else []


def parse(policy: Any) -> Policy:
    """The policy that a control request describes. Raises a Refusal for what it does not know."""
    if not isinstance(policy, dict) or set(policy) - set(Policy.__dataclass_fields__):
        raise Refusal(f"policy: an object with any of {sorted(Policy.__dataclass_fields__)}")
    for name, choices in _CHOICES.items():
        if name in policy and policy[name] not in choices:
            raise Refusal(f"policy: {name} is one of {choices}")
    betas, oldest = policy.get("known_betas"), policy.get("oldest_claude_code")
    return Policy(
        known_betas=KNOWN_BETAS if betas is True else frozenset(betas) if isinstance(betas, list) else None,
        beta_fields=policy.get("beta_fields", "usual"),
        oldest_claude_code=tuple(map(int, oldest.split("."))) if oldest else None,
        unified=policy.get("unified"),
        threads=policy.get("threads", "kept"),
    )


@dataclass
class Policies:
    """The policies in force. One for the key itself goes before one for all keys."""

    by_key: dict[str, Policy] = field(default_factory=dict)

    def order(self, document: Any) -> None:
        """Takes an order. Raises a Refusal."""
        if not isinstance(document, dict) or not isinstance(document.get("key"), str) or "policy" not in document:
            raise Refusal('A policy is {"key": "sk-ant-…" or "*", "policy": {…} or null}')
        if document["policy"] is None:
            self.by_key.pop(document["key"], None)
        else:
            self.by_key[document["key"]] = parse(document["policy"])

    def of(self, key: str) -> Policy:
        return self.by_key.get(key) or self.by_key.get(ANY_KEY) or USUAL


USUAL = Policy()

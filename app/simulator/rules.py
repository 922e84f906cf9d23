"""Checks of single values, with the texts and paths the API answers with: `messages.3.content.0.text: …`."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from app.simulator.models import Model
from app.simulator.refusal import Refusal

OLD_VERSION, NEW_VERSION = "2023-06-01", "2026-10-21"
VERSIONS = frozenset({"2023-01-01", OLD_VERSION, NEW_VERSION})

Check = Callable[[Any, str], None]


@dataclass(frozen=True, slots=True)
class Leniency:
    """What a recorded request cannot prove any more, because headers were dropped or keys were not ours."""

    betas: bool = False
    """Every beta header counts as sent."""
    foreign_signatures: bool = False
    """Thinking signed by somebody else is taken."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a rule may depend on beside the body."""

    model: Model
    version: str
    betas: tuple[str, ...]
    account: str = ""
    leniency: Leniency = Leniency()

    def need_beta(self, prefixes: str | tuple[str, ...], path: str) -> None:
        """Refuses a field that is not known without a beta header of one of these beginnings."""
        if not self.leniency.betas and not any(beta.startswith(prefixes) for beta in self.betas):
            fail(path, "Extra inputs are not permitted")


def fail(path: str, message: str) -> NoReturn:
    raise Refusal(f"{path}: {message}")


def string(value: Any, path: str) -> None:
    if not isinstance(value, str):
        fail(path, "Input should be a valid string")


def non_empty(value: Any, path: str) -> None:
    string(value, path)
    if not value:
        fail(path, "String should have at least 1 character")


def optional_string(value: Any, path: str) -> None:
    if value is not None:
        string(value, path)


def boolean(value: Any, path: str) -> None:
    if not isinstance(value, bool):
        fail(path, "Input should be a valid boolean")


def integer(value: Any, path: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        fail(path, "Input should be a valid integer")


def positive(value: Any, path: str) -> None:
    integer(value, path)
    if value < 1:
        fail(path, "Input should be greater than or equal to 1")


def obj(value: Any, path: str) -> None:
    if not isinstance(value, dict):
        fail(path, "Input should be a valid dictionary")


def array(value: Any, path: str) -> None:
    if not isinstance(value, list):
        fail(path, "Input should be a valid list")


def anything(value: Any, path: str) -> None:
    """No rule of ours."""


def optional(check: Check) -> Check:
    """The check, for a field that may be null too."""

    def run(value: Any, path: str) -> None:
        if value is not None:
            check(value, path)

    return run


def one_of(*allowed: str) -> Check:
    """One of these strings."""
    listed = " or ".join(f"'{value}'" for value in allowed)

    def run(value: Any, path: str) -> None:
        if not isinstance(value, str) or value not in allowed:
            fail(path, f"Input should be {listed}")

    return run


def number_between(low: float, high: float) -> Check:
    def run(value: Any, path: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            fail(path, "Input should be a valid number")
        if value < low:
            fail(path, f"Input should be greater than or equal to {low:g}")
        if value > high:
            fail(path, f"Input should be less than or equal to {high:g}")

    return run


def matching(pattern: str) -> Check:
    compiled = re.compile(pattern)

    def run(value: Any, path: str) -> None:
        string(value, path)
        if not compiled.fullmatch(value):
            fail(path, f"String should match pattern '{pattern}'")

    return run


def list_of(check: Check) -> Check:
    def run(value: Any, path: str) -> None:
        array(value, path)
        for place, item in enumerate(value):
            check(item, f"{path}.{place}")

    return run


def https_url(value: Any, path: str) -> None:
    string(value, path)
    if not value.startswith("https://"):
        fail(path, "Only HTTPS URLs are supported")


def fields(
    value: Any, path: str, required: Mapping[str, Check], allowed: Mapping[str, Check], also: Collection[str] = ()
) -> None:
    """An object with all of `required`, any of `allowed`, and nothing else; keys in `also` are checked elsewhere."""
    obj(value, path)
    for key, check in required.items():
        if key not in value:
            fail(f"{path}.{key}" if path else key, "Field required")
        check(value[key], f"{path}.{key}" if path else key)
    for key, item in value.items():
        if key in required or key in also:
            continue
        if key not in allowed:
            fail(f"{path}.{key}" if path else key, "Extra inputs are not permitted")
        allowed[key](item, f"{path}.{key}" if path else key)


def cache_control(value: Any, path: str) -> None:
    """`{"type": "ephemeral", "ttl": "5m" | "1h"}` or null."""
    if value is None:
        return
    fields(value, path, {"type": one_of("ephemeral")}, {"ttl": one_of("5m", "1h")}, also=("scope",))

"""What a translation could not carry over exactly, to be told to the client."""

from __future__ import annotations

from app.errors import UntranslatableRequest


class Notes:
    """Collects warning codes for `x-gateway-warnings`; in strict mode each becomes a 400 `unsupported_parameter`."""

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._codes: dict[str, None] = {}

    def warn(self, code: str, param: str, reason: str) -> None:
        if self._strict:
            raise UntranslatableRequest(
                f"{reason} Leave it out, or leave strict mode (COMPAT, x-gateway-strict) to have it ignored.",
                param=param,
                code="unsupported_parameter",
            )
        self._codes[code] = None

    @property
    def codes(self) -> tuple[str, ...]:
        return tuple(self._codes)

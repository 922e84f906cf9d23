"""What a translation could not carry over exactly, to be told to the client, and what it needs beside the body."""

from __future__ import annotations

from dataclasses import dataclass

from app.errors import UntranslatableRequest
from app.translate.pause import Pause, no_pause
from app.translate.warnings import AT_THE_HEAD


@dataclass(frozen=True)
class Note:
    """`param` is the path of the client's field, as in `messages[2].content`."""

    code: str
    param: str
    reason: str


class Notes:
    """Collects warnings for `x-gateway-warnings`; in strict mode each becomes a 400.
    `betas` are the names for the header `anthropic-beta`. `pause` is for whoever walks what may be long."""

    def __init__(self, *, strict: bool = False, pause: Pause = no_pause) -> None:
        self.pause = pause
        self._strict = strict
        self._forgives = False
        self._warnings: dict[tuple[str, str], Note] = {}
        self.betas: dict[str, None] = {}

    def warn(self, code: str, param: str, reason: str, *, strict_code: str = "unsupported_parameter") -> None:
        assert code in AT_THE_HEAD or code.endswith("_ignored"), code  # every warning is documented
        if self._strict:
            raise UntranslatableRequest(
                f"{reason} Strict mode (COMPAT, x-gateway-strict) refuses what cannot be carried over exactly.",
                param=param,
                code=strict_code,
            )
        self._warnings.setdefault((code, param), Note(code, param, reason))

    def of_history(self) -> Notes:
        """The same notes, of what was said before: its client cannot change it, and would be refused for ever."""
        view = Notes(strict=self._strict, pause=self.pause)
        view._forgives = not self._strict
        view._warnings, view.betas = self._warnings, self.betas
        return view

    def forgive(self, fault: UntranslatableRequest) -> None:
        """Tells of a fault in the history that the caller leaves out or mends; any other is raised."""
        if not self._forgives:
            raise fault
        self.warn("history_mended", fault.param or "messages", fault.message)

    def need_beta(self, *names: str) -> None:
        self.betas.update(dict.fromkeys(names))

    @property
    def warnings(self) -> tuple[Note, ...]:
        return tuple(self._warnings.values())

    @property
    def codes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(note.code for note in self._warnings.values()))

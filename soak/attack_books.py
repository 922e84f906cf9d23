"""What attacks did to those who have nothing to do with them: how long an innocent stream stood still, and in which.

Apart from the books of the clients: of an attack it matters that it ends and whom it held up, not what it was told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from typing import Any

from soak.table import table

AFTERMATH_S = 1.0
"""After the end of an attack, what stands still is still counted as its doing."""
OUTCOMES = ("answered", "refused", "cut", "left")


@dataclass(frozen=True)
class Gap:
    """Between two pieces of an innocent stream. Times are monotonic; `worker` is None for a stream that was read from
    its simulator, without the gateway. `waited_s`: for how long the worker, the simulator or the reader, whichever
    waited longest, could have gone on and no CPU was free."""

    began: float
    ended: float
    worker: int | None
    waited_s: float = 0.0

    @property
    def ms(self) -> float:
        return (self.ended - self.began) * 1000

    @property
    def own_ms(self) -> float:
        """The gateway's part: on a machine whose CPUs are taken, the rest is no attack's doing."""
        return self.ms - self.waited_s * 1000


OWN = attrgetter("own_ms")
WHOLE = attrgetter("ms")


@dataclass(frozen=True)
class Attack:
    """That was made: `answered` and `refused` count answers, `cut` the connections that ended without one, `left` those
    that the attacker ended without one."""

    name: str
    began: float
    ended: float
    sent: int
    """In bytes."""
    answered: int = 0
    refused: int = 0
    cut: int = 0
    left: int = 0

    def overlaps(self, began: float, ended: float) -> bool:
        """With what comes after it."""
        return ended >= self.began and began <= self.ended + AFTERMATH_S


@dataclass
class Staff:
    """The workers that are there. Whoever is to be replaced is dismissed first."""

    there: set[int] = field(default_factory=set)
    dismissed: set[int] = field(default_factory=set)

    def dismiss(self, pids: Iterable[int]) -> None:
        self.dismissed.update(pids)

    def look(self, pids: Iterable[int]) -> list[int]:
        """Those that have gone since the last look, though nobody dismissed them."""
        before, self.there = self.there, set(pids)
        return sorted(before - self.there - self.dismissed)


@dataclass
class AttackBooks:
    limit_ms: float
    origin: float = field(default_factory=time.monotonic)
    attacks: list[Attack] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    """The longest of each stream in each fraction of a second."""
    killed: set[int] = field(default_factory=set)
    """Workers that the soak itself killed."""
    broken: list[str] = field(default_factory=list)
    """Innocent streams that broke off although their worker was not killed."""

    def attack(self, told: Mapping[str, Any]) -> None:
        """What the attackers tell."""
        self.attacks.append(Attack(**told))

    def innocent(self, told: Mapping[str, Any]) -> None:
        """What the readers of innocent streams tell. What a killed worker was writing broke off with it."""
        if "broke" not in told:
            self.gaps.append(Gap(**told))
        elif told["worker"] not in self.killed:
            at = told["at"] - self.origin
            self.broken.append(
                f"an innocent stream of worker {told['worker']} broke off at {at:.1f} s: {told['broke']}"
            )

    def names_at(self, began: float, ended: float) -> list[str]:
        """Whose doing it is, if it is an attack's."""
        return sorted({attack.name for attack in self.attacks if attack.overlaps(began, ended)})

    def longest(
        self, *, attacked: bool, straight: bool = False, during: str | None = None, by: Callable[[Gap], float] = OWN
    ) -> Gap | None:
        """While there were attacks (only those with the name `during`), or while there were none; with `straight` of
        the streams that do not pass the gateway."""
        attacks = [attack for attack in self.attacks if during is None or attack.name == during]
        found = (
            gap
            for gap in self.gaps
            if (gap.worker is None) == straight and any(a.overlaps(gap.began, gap.ended) for a in attacks) == attacked
        )
        return max(found, key=by, default=None)

    @property
    def is_within_limit(self) -> bool:
        gap = self.longest(attacked=True)
        return gap is None or gap.own_ms <= self.limit_ms

    def complaints(self) -> list[str]:
        """What makes the figures worthless, or is no matter of a limit."""
        found = list(self.broken)
        if not self.attacks:
            found.append("no attack was made")
        if self.longest(attacked=True) is None:
            found.append("no innocent stream was read while there were attacks")
        return found

    def rows(self) -> list[dict[str, Any]]:
        """By attack."""
        rows = []
        for name in sorted({attack.name for attack in self.attacks}):
            made = [attack for attack in self.attacks if attack.name == name]
            whole, own = (self.longest(attacked=True, during=name, by=by) for by in (WHOLE, OWN))
            rows.append(
                {
                    "attack": name,
                    "times": len(made),
                    "seconds": round(sum(attack.ended - attack.began for attack in made), 1),
                    **{outcome: sum(getattr(attack, outcome) for attack in made) for outcome in OUTCOMES},
                    "sent_mb": round(sum(attack.sent for attack in made) / 1e6, 1),
                    "gap_ms": None if whole is None else round(whole.ms),
                    "own_ms": None if own is None else round(own.own_ms),
                }
            )
        return rows

    def as_json(self) -> dict[str, Any]:
        longest = {
            f"{who} {when} {what}": None if gap is None else {**asdict(gap), "ms": gap.ms, "own_ms": gap.own_ms}
            for who, straight in (("innocent", False), ("straight", True))
            for when, attacked in (("attacked", True), ("calm", False))
            for what, by in (("whole", WHOLE), ("own", OWN))
            for gap in (self.longest(attacked=attacked, straight=straight, by=by),)
        }
        return {"limit_ms": self.limit_ms, "longest": longest, "attacks": self.rows()}

    def text(self) -> str:
        columns = ["times", "seconds", *OUTCOMES, "sent_mb", "gap_ms", "own_ms"]
        rows: list[Sequence[Any]] = [[row["attack"], *[row[column] for column in columns]] for row in self.rows()]
        heads = {"sent_mb": "sent MB", "gap_ms": "longest gap ms", "own_ms": "the gateway's part ms"}
        lines = [table("Attacks", ["", *[heads.get(column, column) for column in columns]], rows)]
        for what, by in (("Longest gap of an innocent stream", WHOLE), ("Longest without waits for a CPU", OWN)):
            worst = self.longest(attacked=True, by=by)
            calm = self.longest(attacked=False, by=by)
            lines.append(f"{what}: under attack {self._told(worst, by)}, without attacks {self._told(calm, by)}")
        lines[-1] += f"; limit {self.limit_ms:g} ms"
        straight = (self._told(self.longest(attacked=when, straight=True, by=WHOLE), WHOLE) for when in (True, False))
        lines.append(f"Longest gap of one that does not pass the gateway: {', without attacks '.join(straight)}")
        return "\n".join(lines)

    def _told(self, gap: Gap | None, by: Callable[[Gap], float]) -> str:
        if gap is None:
            return "-"
        where = [
            *self.names_at(gap.began, gap.ended),
            *([] if gap.worker is None else [f"worker {gap.worker}"]),
            f"at {gap.began - self.origin:.1f} s",
        ]
        return f"{by(gap):.0f} ms ({', '.join(where)})"

"""What the gateway's own books say of a soak: all that clients were told is in them, and nothing that nobody sent."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from app.storage.ledger import WHOLE
from soak.table import table

AFTER_DISPATCH = {"upstream_disconnected", "upstream_timeout"}
"""Codes of refusals that cannot have come before anything went upstream."""
_MOST_TOLD = 20


@dataclass(frozen=True)
class Row:
    id: str
    ending: str


def rows_of(text: str, apart: Collection[str]) -> Iterable[Row]:
    """Of /usage/requests.csv, without those of the connections whose ids, or whose models' prefixes, are in `apart`."""
    for row in csv.DictReader(io.StringIO(text)):
        if row["connection"] not in apart and row["model_asked"].partition(".")[0] not in apart:
            yield Row(row["id"], row["ending"])


@dataclass
class LedgerBooks:
    """By the id that a client was told: whether its request was answered, and the code of what refused it."""

    answered: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    """Whose clients left, or which were lost."""
    endings: Counter[str] = field(default_factory=Counter)
    before_dispatch: Counter[str] = field(default_factory=Counter)
    sent: int = 0

    def compare(self, rows: Iterable[Row], sent: int, silent: int, resent: int) -> list[str]:
        """What must not be. `silent` requests ended without an answer: some of them are in the books, under ids that
        nobody was told, and so may be some of those that were `resent`."""
        by_id = {row.id: row.ending for row in rows}
        self.sent = sent
        self.endings = Counter(by_id.values())
        found = [f"an answer that its client had whole is not in the ledger: {id}" for id in self.answered - {*by_id}]
        found += [
            f"an answer that its client had whole stands in the ledger as {by_id[id]}: {id}"
            for id in self.answered & {*by_id}
            if by_id[id] not in WHOLE
        ]
        for id, code in self.refused.items():
            if id not in by_id:
                self.before_dispatch[code] += 1
                if code in AFTER_DISPATCH:
                    found.append(f"a request that was refused with {code} is not in the ledger: {id}")
        unknown = len({*by_id} - self.answered - {*self.refused} - self.others)
        if unknown > silent + resent:
            found.append(f"{unknown} rows of the ledger have ids that nobody was told; {silent} clients were told none")
        if not -resent <= self.left_before <= silent + len(self.others):
            found.append(f"of {sent} requests the ledger has {len(by_id)}; {self.before_dispatch.total()} were refused")
        return found[:_MOST_TOLD]

    @property
    def left_before(self) -> int:
        return self.sent - self.endings.total() - self.before_dispatch.total()

    def text(self) -> str:
        counts = [*self.endings.most_common(), *((f"refused: {c}", n) for c, n in self.before_dispatch.most_common())]
        booked, refused = self.endings.total(), self.before_dispatch.total()
        return (
            f"{self.sent} sent = {booked} booked + {refused} refused before dispatch + "
            f"{self.left_before} that left, or were lost, before it\n\n{table('The ledger', ['', 'requests'], counts)}"
        )

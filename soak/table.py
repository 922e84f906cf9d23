"""Figures in columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """The title stands where the first column's head would."""
    cells = [[_shown(cell) for cell in row] for row in ([title, *head[1:]], *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *[c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]]).rstrip()
        for row in cells
    )


def _shown(cell: Any) -> str:
    if isinstance(cell, float):
        return f"{cell:.1f}"
    return "-" if cell is None else str(cell)

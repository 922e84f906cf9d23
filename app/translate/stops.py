"""Stop strings that Claude refuses (white space only), met by the gateway itself."""

from __future__ import annotations


class StopFilter:
    """Feed it text in any pieces; it gives what may be shown. As a model would, it stops where the first of the stop
    strings is complete: `met` says which. Text that could be the beginning of one is held back until it is not."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.met: str | None = None
        self._stops = stops
        self._held = ""
        self._most_held = max(map(len, stops), default=1) - 1

    def feed(self, text: str) -> str:
        text = self._held + text
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            _, at, self.met = min(found)
            self._held = ""
            return text[:at]
        kept = next((n for n in range(min(self._most_held, len(text)), 0, -1) if self._may_begin(text[-n:])), 0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def _may_begin(self, ending: str) -> bool:
        return any(stop.startswith(ending) for stop in self._stops)

    def release(self) -> str:
        """What is still held back: nothing follows that could complete it."""
        held, self._held = self._held, ""
        return held

"""The accounts of a soak: what became of each request, and whether the gateway and the simulators say the same.

Each request that was sent ends as exactly one of ENDINGS. A discrepancy is what must not happen; it is kept with all
that is known of the request.
"""

from __future__ import annotations

import re
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from soak.attack_books import AttackBooks
from soak.client import Seen
from soak.ledger import LedgerBooks, Row
from soak.table import table
from soak.traffic_mix import Question

ANSWERED, REFUSED, ABORTED, LOST, WRONG = "answered", "refused", "aborted", "lost with a killed worker", "wrong"
ENDINGS = (ANSWERED, REFUSED, ABORTED, LOST, WRONG)
ROUTE = "/v1/chat/completions"
KILL_NOTICED_S = 3.0
TROUBLE_LASTS_S = 1.0
MOST_GROWTH_MB_PER_MIN = 1.0
SHORTEST_JUDGED_S = 150.0
"""Growth over less time than this is told, not judged: allocators and caches fill up at first."""
SPARE_FDS = 3
"""More than before that are no leak: an event descriptor of a pool of threads that was not needed before."""
SPARE_MB = 100
"""What large requests leave free behind them, and a little; of large things one block says nothing."""
SPARE_BLOCKS = 70_000
"""About seven megabytes: what libraries make when they are first used, and caches."""
MOST_THREADS = 19
"""The first, and those of all pools, which start when needed: gevent's own 10, 6 of SQLite, 2 of accounts."""
_SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass
class Entry:
    """A request under way."""

    number: int
    question: Question
    began: float


@dataclass
class Kill:
    at: float
    in_flight: int
    lost: int = 0


@dataclass
class Trouble:
    """Something that a connection suffers, from `began` until `ended`."""

    what: str
    breaks_streams: bool
    """Also those that have begun."""
    began: float
    ended: float = float("inf")


@dataclass
class Books:
    """Times are monotonic."""

    origin: float = field(default_factory=time.monotonic)
    sent: int = 0
    open: dict[int, Entry] = field(default_factory=dict)
    endings: Counter[str] = field(default_factory=Counter)
    by_kind: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    statuses: Counter[int] = field(default_factory=Counter)
    """Of the heads that clients saw."""
    headless: int = 0
    """Requests whose client left, or whose worker was killed, before there was a head."""
    resent: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    """Of refusals, by where they stood: "503 all_connections_failed", "in the stream upstream_disconnected"."""
    stream_errors: int = 0
    avoidable: int = 0
    first_text_s: list[float] = field(default_factory=list)
    discrepancies: list[str] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    ledger: LedgerBooks = field(default_factory=LedgerBooks)

    def begin(self, question: Question) -> Entry:
        self.sent += 1
        entry = Entry(self.sent, question, time.monotonic())
        self.open[entry.number] = entry
        return entry

    def settle(self, entry: Entry, seen: Seen) -> str:
        """How it ended."""
        del self.open[entry.number]
        ending, complaint = judge(entry.question, seen)
        if ending == WRONG and (kill := self._kill_of(entry, seen)) is not None:
            kill.lost += 1
            ending, complaint = LOST, None
        if ending == REFUSED:
            self._refused(entry, seen)
        self.endings[ending] += 1
        self.by_kind[entry.question.kind][ending] += 1
        self.resent += seen.resent
        if seen.status is None:
            self.headless += 1
        else:
            self.statuses[seen.status] += 1
            self._note_id(seen.headers.get("x-gateway-request-id", ""), ending, seen)
        if complaint is not None:
            self._note(complaint, entry, seen)
        elif ending == ANSWERED and not self._troubles_of(seen):
            self._time(entry.question, seen)
        return ending

    def _note_id(self, id: str, ending: str, seen: Seen) -> None:
        if ending == ANSWERED:
            self.ledger.answered.add(id)
        elif ending == REFUSED:
            self.ledger.refused[id] = seen.error.get("code") or seen.error["type"]
        else:
            self.ledger.others.add(id)

    def lose(self, entry: Entry, error: BaseException) -> None:
        """The soak itself failed on it."""
        del self.open[entry.number]
        self.endings[WRONG] += 1
        self.headless += 1
        self.complain(f"the soak failed on request {entry.number} ({entry.question.kind}): {error!r}")

    def complain(self, what: str) -> None:
        self.discrepancies.append(f"{time.monotonic() - self.origin:.1f} s: {what}")

    def trouble(self, what: str, *, breaks_streams: bool) -> Trouble:
        """Begins now; set its end."""
        made = Trouble(what, breaks_streams, time.monotonic())
        self.troubles.append(made)
        return made

    def kill(self) -> None:
        """A worker is killed now."""
        self.kills.append(Kill(time.monotonic(), len(self.open)))

    def _time(self, question: Question, seen: Seen) -> None:
        if question.ttft_s is not None and seen.stream and seen.first_text_at is not None:
            self.first_text_s.append(seen.first_text_at - seen.began - question.ttft_s)

    def _refused(self, entry: Entry, seen: Seen) -> None:
        in_stream = seen.status == 200
        code = seen.error.get("code") or seen.error["type"]
        self.codes[f"{'in the stream' if in_stream else seen.status} {code}"] += 1
        self.stream_errors += in_stream
        question = entry.question
        if not question.is_doomed and not self._is_excused(question, seen):
            self.avoidable += 1
            self._note("an innocent request was refused while a connection was well", entry, seen)

    def _is_excused(self, question: Question, seen: Seen) -> bool:
        """Whether what had begun was broken off by what its connection suffered. One connection is always well, so
        that there is no excuse for a refusal before that."""
        troubles = self._troubles_of(seen)
        if seen.error.get("code") == "gateway_stopping":
            return False  # no answer takes as long as the gateway may wait for it
        # Of n > 1 an answer that has begun is not asked for again, also where no byte was sent yet.
        has_begun = seen.status == 200 or question.choices > 1
        return has_begun and any(t.breaks_streams or question.later_calls for t in troubles)

    def _troubles_of(self, seen: Seen) -> list[Trouble]:
        return [t for t in self.troubles if t.began <= seen.ended and t.ended + TROUBLE_LASTS_S >= seen.began]

    def _kill_of(self, entry: Entry, seen: Seen) -> Kill | None:
        """The kill that cut this answer off: it was under way then, and ended without a word soon after."""
        if seen.is_late or seen.oddities or seen.is_whole:
            return None
        slowness_s = 30.0 if entry.question.manners.reads_bytes_per_s else 0.0
        for kill in self.kills:
            if seen.began <= kill.at + 0.5 and kill.at - 0.1 <= seen.ended <= kill.at + KILL_NOTICED_S + slowness_s:
                return kill
        return None

    def _note(self, what: str, entry: Entry, seen: Seen) -> None:
        troubles = "; ".join(
            f"{t.what} {t.began - self.origin:.1f}-{t.ended - self.origin:.1f}" for t in self._troubles_of(seen)
        )
        body = entry.question.body
        asked = f"{body['model']} stream={body.get('stream')} n={body.get('n', 1)} messages={len(body['messages'])}"
        manners = ", ".join(f"{name} {value}" for name, value in asdict(entry.question.manners).items() if value)
        choices = "; ".join(f"{len(c.text)} characters, finish {c.finish}" for c in seen.choices.values())
        self.complain(
            f"{what}\n    request {entry.number}, {entry.question.kind}: {asked}, client {manners or 'like any'}\n"
            f"    {seen.began - self.origin:.2f}-{seen.ended - self.origin:.2f} s, "
            f"{seen.headers.get('x-gateway-request-id')}, status {seen.status}, "
            f"{seen.ends} [DONE], whole {seen.is_whole}, left {seen.left}, broke {seen.broke!r}, resent {seen.resent}\n"
            f"    choices: {choices or 'none'}; error: {seen.error}; troubles then: {troubles or 'none'}"
        )

    # ------------------------------------------------------------------------------------------- when all is over

    def close(self) -> None:
        """The sums."""
        for entry in self.open.values():
            self.complain(f"request {entry.number} ({entry.question.kind}) was never settled")
        settled = sum(self.endings.values())
        if self.sent != settled:
            self.complain(f"{self.sent} requests were sent and {settled} accounted for")
        for kill in self.kills:
            if kill.lost > kill.in_flight:
                self.complain(f"a kill with {kill.in_flight} requests in flight lost {kill.lost}")

    def compare_with_gateway(self, counts: Counts) -> None:
        """A client that left may or may not have been answered, so that each of the gateway's counts lies between what
        clients saw and that plus the clients who left without seeing it."""
        lost_counts = sum(kill.in_flight for kill in self.kills)
        unseen = self.headless + self.resent
        for status in sorted({*self.statuses, *counts.statuses}):
            self._between(
                f"requests with status {status}",
                counts.statuses[status],
                self.statuses[status] - lost_counts,
                self.statuses[status] + unseen,
            )
        self._between(
            "requests", counts.statuses.total(), self.statuses.total() - lost_counts, self.statuses.total() + unseen
        )
        gone = self.endings[ABORTED] + self.endings[LOST] + self.resent
        answered = self.endings[ANSWERED]
        self._between("complete answers", counts.endings["complete"], answered - lost_counts, answered + gone)
        self._between("answers whose client left", counts.endings["client_gone"], 0, gone)
        failed = counts.endings.total() - counts.endings["complete"] - counts.endings["client_gone"]
        self._between("streams with an error", failed, self.stream_errors - lost_counts, self.stream_errors + gone)
        # A stream whose head went out before it had an upstream, and whose client then left, has no answer to count.
        self._between(
            "answers (each 200 is one)",
            counts.endings.total(),
            counts.statuses[200] - lost_counts,
            counts.statuses[200],
        )

    def _between(self, what: str, value: float, low: float, high: float) -> None:
        if not low <= value <= high:
            self.complain(f"the gateway counts {value:g} {what}; by the books it is {low:g} to {high:g}")

    def compare_with_ledger(self, rows: Iterable[Row]) -> None:
        for found in self.ledger.compare(rows, self.sent, self.headless, self.resent):
            self.complain(found)

    def compare_with_simulator(self, name: str, stats: Mapping[str, Any]) -> None:
        """Its journal after all clients have gone."""
        if stats["live"]:
            self.complain(f"{name}: {stats['live']} requests are still open")
        ended = stats["finished"] + stats["aborted_by_client"] + stats["errors"]
        if stats["requests"] != ended + stats["live"]:
            self.complain(f"{name}: {stats['requests']} requests, {ended} of them ended")


def judge(question: Question, seen: Seen) -> tuple[str, str | None]:
    """(how it ended, what is wrong with that)."""
    if seen.is_late:
        return WRONG, "it did not end"
    if seen.oddities:
        return WRONG, "; ".join(seen.oddities)
    was_answered = seen.status == 200 and seen.is_whole and seen.error is None
    for index, choice in sorted(seen.choices.items()):
        if index >= question.choices:
            return WRONG, f"choice {index} was not asked for"
        if fault := question.says.fault_of(choice, is_whole=was_answered):
            return WRONG, f"choice {index}: {fault}"
    if seen.left:
        return ABORTED, None
    if seen.error is not None:
        return (WRONG, fault) if (fault := _fault_of_refusal(seen)) else (REFUSED, None)
    if not was_answered:
        return WRONG, "cut off without a word"
    if len(seen.choices) < question.choices:
        return WRONG, f"{len(seen.choices)} of {question.choices} choices"
    if seen.stream and seen.ends != 1:
        return WRONG, f"{seen.ends} [DONE] at the end"
    if question.is_doomed:
        return WRONG, "answered, though the simulator does not answer that"
    return ANSWERED, None


def _fault_of_refusal(seen: Seen) -> str | None:
    error = seen.error
    if not isinstance(error, Mapping) or not {"message", "type", "param", "code"} <= error.keys():
        return f"an error that is no envelope of OpenAI's: {error!r}"
    if not error["message"] or not isinstance(error["message"], str):
        return "an error without a message"
    if error["code"] == "internal_error" and "upstream" not in error:
        return "the gateway failed"
    if not seen.is_whole:
        return "an error, and no proper end after it"
    if seen.status == 200 and not seen.stream:
        return "an error with status 200"
    return "[DONE] beside an error" if seen.ends else None


@dataclass
class Counts:
    """What /metrics says."""

    statuses: Counter[int] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    attempts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    @staticmethod
    def of(exposition: str, apart: Collection[str] = ()) -> Counts:
        """Answers of the connections in `apart` are none of the clients'."""
        counts = Counts()
        for line in exposition.splitlines():
            if (match := _SAMPLE.fullmatch(line)) is None:
                continue
            labels = dict(_LABEL.findall(match[2] or ""))
            value = int(float(match[3])) if match[3] != "NaN" else 0
            match match[1]:
                case "dragoman_requests_total" if labels["route"] == ROUTE:
                    counts.statuses[int(labels["status"])] += value
                case "dragoman_answers_total" if labels["connection"] not in apart:
                    counts.endings[labels["ending"]] += value
                case "dragoman_attempts_total":
                    counts.attempts[labels["connection"]][labels["outcome"]] += value
        return counts


# ---------------------------------------------------------------------------------------------------------- resources


@dataclass(frozen=True)
class Sample:
    """A process at a moment. `clients` and `upstream` are its sockets by what they lead to, `fds` counts all but the
    pooled ones of the database; memory is in MB, `anonymous_mb` the part that no other process's coming and going
    changes."""

    at: float
    pid: int
    age_s: float
    fds: int
    clients: int
    upstream: int
    threads: int
    rss_mb: float
    pss_mb: float
    anonymous_mb: float
    greenlets: int | None = None
    memory_blocks: int | None = None
    """Of Python's memory, those in use: what is free between them is not given back, and counts in the megabytes."""


def slope(points: Sequence[tuple[float, float]]) -> float:
    """By Theil and Sen: the median of the slopes between all pairs, which a few high points do not turn."""
    pairs = [(b[0] - a[0], b[1] - a[1]) for i, a in enumerate(points) for b in points[i + 1 :]]
    return statistics.median(dy / dx for dx, dy in pairs if dx > 0) if any(dx > 0 for dx, _ in pairs) else 0.0


@dataclass(frozen=True)
class Growth:
    """Of the memory of one process under steady traffic, in MB per minute: over all that time, and its second half."""

    pid: int
    seconds: float
    samples: int
    overall: float
    late: float

    @staticmethod
    def of(samples: Sequence[Sample]) -> Growth:
        points = [(s.at / 60, s.anonymous_mb) for s in samples]
        late = points[len(points) // 2 :]
        return Growth(samples[0].pid, samples[-1].at - samples[0].at, len(points), slope(points), slope(late))

    @property
    def is_a_leak(self) -> bool:
        """What fills up at first has a late slope near zero."""
        limit = MOST_GROWTH_MB_PER_MIN
        return self.seconds >= SHORTEST_JUDGED_S and self.overall > limit and self.late > limit / 2


def leaks(before: Sequence[Sample], after: Sequence[Sample]) -> list[str]:
    """What workers at rest hold beyond what they held at rest before the traffic. The one that held most then is the
    measure, since which is which does not outlive a reload."""
    found = []
    if len(after) != len(before):
        found.append(f"{len(after)} workers instead of {len(before)}")
    for sample in after:
        for name, most in (("clients", 0), ("upstream", 0), ("threads", MOST_THREADS)):
            if (has := getattr(sample, name)) > most:
                found.append(f"worker {sample.pid} at rest has {has} {name}, and may have {most}")
        for name, spare in (
            ("fds", SPARE_FDS),
            ("greenlets", 2),
            ("memory_blocks", SPARE_BLOCKS),
            ("anonymous_mb", SPARE_MB),
        ):
            had = [value for s in before if (value := getattr(s, name)) is not None]
            has = getattr(sample, name)
            if had and has is not None and has > max(had) + spare:
                found.append(f"worker {sample.pid} at rest has {has} {name}, before the traffic it was {max(had)}")
    return found


# ------------------------------------------------------------------------------------------------------------- report


@dataclass
class Resources:
    """At rest before and after the traffic, while it ran, and how memory grew."""

    before: list[Sample] = field(default_factory=list)
    after: list[Sample] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)


@dataclass
class Report:
    seed: int
    seconds: float
    clients: int
    workers: int
    books: Books
    counts: Counts
    names: Mapping[str, str]
    """Of connections, by id."""
    simulators: Mapping[str, Mapping[str, Any]]
    acts: Mapping[str, int]
    """What was done to the gateway and its upstreams, how often."""
    resources: Resources
    attacks: AttackBooks | None = None

    @property
    def balances(self) -> bool:
        return not self.books.discrepancies

    @property
    def is_good(self) -> bool:
        return self.balances and (self.attacks is None or self.attacks.is_within_limit)

    def as_json(self) -> dict[str, Any]:
        books = self.books
        return {
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "clients": self.clients,
            "workers": self.workers,
            "balances": self.balances,
            "sent": books.sent,
            "endings": dict(books.endings),
            "by_kind": {kind: dict(counts) for kind, counts in books.by_kind.items()},
            "statuses": dict(books.statuses),
            "refusals": dict(books.codes),
            "avoidable": books.avoidable,
            "headless": books.headless,
            "booked": dict(books.ledger.endings),
            "refused_before_dispatch": dict(books.ledger.before_dispatch),
            "resent": books.resent,
            "first_text_ms": {"p50": percentile_ms(books, 0.5), "p99": percentile_ms(books, 0.99)},
            "gateway": {
                "requests": dict(self.counts.statuses),
                "answers": dict(self.counts.endings),
                "attempts": {name: dict(outcomes) for name, outcomes in self._by_name().items()},
            },
            "simulators": {name: dict(stats) for name, stats in self.simulators.items()},
            "acts": dict(self.acts),
            "kills": [asdict(kill) for kill in books.kills],
            "resources": asdict(self.resources),
            "attacks": None if self.attacks is None else self.attacks.as_json(),
            "discrepancies": books.discrepancies,
        }

    def text(self) -> str:
        books = self.books
        sums = " + ".join(f"{books.endings[ending]} {ending}" for ending in ENDINGS)
        p50, p99 = percentile_ms(books, 0.5), percentile_ms(books, 0.99)
        parts = [
            f"Soak of {self.seconds / 60:.1f} min, {self.clients} clients, {self.workers} workers, seed {self.seed}",
            table(
                "By kind",
                ["", "sent", *ENDINGS],
                (
                    [kind, counts.total(), *[counts[e] for e in ENDINGS]]
                    for kind, counts in sorted(books.by_kind.items())
                ),
            ),
            f"{books.sent} sent = {sums}",
            f"Avoidable refusals: {books.avoidable}\n"
            f"First text of {len(books.first_text_s)} innocent streams while all connections were well, without the "
            f"simulator's own delay: "
            f"p50 {p50} ms, p99 {p99} ms\n"
            f"Asked again on a new connection, since the one that was kept was closed: {books.resent}",
            table("Refusals", ["", "clients saw"], books.codes.most_common()),
            table(
                "Requests by status",
                ["", "clients saw", "gateway counts"],
                (
                    [s, books.statuses[s], self.counts.statuses[s]]
                    for s in sorted({*books.statuses, *self.counts.statuses})
                ),
            ),
            f"{books.headless} more left, or were lost, before they had a status.",
            books.ledger.text(),
            table("Answers by ending, as the gateway counts", ["", "answers"], self.counts.endings.most_common()),
            self._attempts(),
            self._simulators(),
            table("What was done to it", ["", "times"], sorted(self.acts.items())),
            self._resources(),
        ]
        if self.attacks is not None:
            parts.append(self.attacks.text())
        if books.discrepancies:
            parts.append(f"DISCREPANCIES: {len(books.discrepancies)}\n" + "\n".join(books.discrepancies))
        parts.append("The books balance." if self.balances else "THE BOOKS DO NOT BALANCE.")
        if self.attacks is not None and not self.attacks.is_within_limit:
            parts.append("AN INNOCENT STREAM STOOD STILL FOR TOO LONG.")
        return "\n\n".join(parts)

    def _by_name(self) -> dict[str, Counter[str]]:
        """The attempts by connection: one that is removed and added with another key has another id."""
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for id, outcomes in self.counts.attempts.items():
            found[self.names.get(id, id)] += outcomes
        return found

    def _attempts(self) -> str:
        by_name = self._by_name()
        outcomes = sorted({o for counts in by_name.values() for o in counts}, key=lambda o: (o.isdigit(), o))
        rows = ([name, *[counts[outcome] for outcome in outcomes]] for name, counts in sorted(by_name.items()))
        return table("Attempts by connection", ["", *outcomes], rows)

    def _simulators(self) -> str:
        columns = ["requests", "finished", "aborted_by_client", "errors", "live", "peak"]
        rows = [[name, *[stats[column] for column in columns]] for name, stats in self.simulators.items()]
        return table("Simulators, since they were last started", ["", *columns], rows)

    def _resources(self) -> str:
        names = [
            "fds",
            "clients",
            "upstream",
            "threads",
            "greenlets",
            "memory_blocks",
            "anonymous_mb",
            "pss_mb",
            "rss_mb",
        ]
        rows = [
            [f"{when}, worker {s.pid} ({s.age_s:.0f} s old)", *[getattr(s, name) for name in names]]
            for when, samples in (("before", self.resources.before), ("after", self.resources.after))
            for s in samples
        ]
        lines = [table("Workers at rest, without a connection configured", ["", *names], rows)]
        for growth in self.resources.growth:
            judged = "" if growth.seconds >= SHORTEST_JUDGED_S else "; too short to be judged"
            judged = "; not judged under attack" if self.attacks is not None else judged
            lines.append(
                f"Memory of {growth.pid} under steady traffic for {growth.seconds:.0f} s: {growth.overall:+.2f} MB/min,"
                f" in the second half {growth.late:+.2f} (limit {MOST_GROWTH_MB_PER_MIN:g}{judged})"
            )
        return "\n".join(lines)


def percentile_ms(books: Books, share: float) -> float | None:
    ordered = sorted(books.first_text_s)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 1) if ordered else None

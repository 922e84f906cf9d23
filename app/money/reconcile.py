"""The books beside what Anthropic counted: equal, different for a reason that the books know of, or different.

Which instant puts a request into Anthropic's report is not documented: one that began near an end of the range may be
counted on either side of it. Nor is it whether a refusal that costs nothing has its tokens counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

from app.money.charges import FACTOR, Charge
from app.money.tokens import Tokens

EDGE = timedelta(minutes=10)
SEARCHES = "web searches"
_SEARCH_MICROS = 10_000
_NAMED = 5
Verdict = Literal["equal", "explained", "differs"]


@dataclass(frozen=True, order=True)
class Kind:
    """What Anthropic reports apart."""

    model: str
    speed: str = "standard"
    geo: str = ""
    tier: str = "standard"

    @staticmethod
    def of(model: str | None, speed: str | None, geo: str | None, tier: str | None) -> Kind:
        """A region that costs nothing extra is told in several ways."""
        return Kind(model or "", speed or "standard", "us" if geo == "us" else "", tier or "standard")

    def __str__(self) -> str:
        more = (self.speed.replace("standard", ""), self.geo, self.tier.replace("standard", ""))
        return " ".join((self.model or "(no model)", *(text for text in more if text)))


@dataclass(frozen=True)
class Booked:
    """A charge of a row of the books. `message_ids` are those of the whole row; `is_whole` is False where what it used
    had to be estimated, whether there was a price or not."""

    id: str
    at: datetime
    charge: Charge
    message_ids: Sequence[str] = ()
    is_whole: bool = True

    @property
    def kind(self) -> Kind:
        return Kind.of(self.charge.model, self.charge.speed, self.charge.geo, self.charge.tier)

    @property
    def is_free(self) -> bool:
        return self.charge.micros == 0 and self.charge.price_version is None

    @property
    def is_unheard(self) -> bool:
        """Nothing is known of it: not even whether Anthropic began to answer."""
        return self.charge.micros is None and self.charge.tokens == Tokens()


@dataclass(frozen=True)
class Reported:
    """A line of Anthropic's report on usage."""

    begin: datetime
    kind: Kind
    requests: int
    tokens: Tokens
    searches: int = 0


@dataclass
class Sum:
    requests: int = 0
    tokens: Tokens = field(default_factory=Tokens)
    searches: int = 0

    def add(self, requests: int, tokens: Tokens, searches: int) -> None:
        self.requests += requests
        self.tokens += Tokens(**{**_classes(tokens), "thinking": 0})
        self.searches += searches

    @property
    def total(self) -> int:
        return self.tokens.prompt + self.tokens.output


@dataclass(frozen=True)
class Line:
    """Of one kind. `causes` says what explains a difference, or may."""

    kind: Kind
    verdict: Verdict
    booked: Sum
    reported: Sum
    causes: Sequence[str] = ()


def compare(booked: Sequence[Booked], reported: Iterable[Reported], begin: datetime, end: datetime) -> list[Line]:
    """`booked` reaches EDGE beyond both ends."""
    theirs: dict[Kind, Sum] = defaultdict(Sum)
    for line in reported:
        theirs[line.kind].add(line.requests, line.tokens, line.searches)
    ours: dict[Kind, list[Booked]] = defaultdict(list)
    for row in booked:
        ours[row.kind].append(row)
    lines = (_line(kind, ours[kind], theirs[kind], begin, end) for kind in sorted({*ours, *theirs}))
    return [line for line in lines if line.booked.requests or line.booked.total or line.reported != Sum()]


def _line(kind: Kind, rows: Sequence[Booked], theirs: Sum, begin: datetime, end: datetime) -> Line:
    inside = [row for row in rows if begin <= row.at < end]
    whole = _sum(inside)
    if whole == theirs:
        return Line(kind, "equal", whole, theirs)
    at_an_edge = [row for row in inside if row.at < begin + EDGE or row.at >= end - EDGE]
    beyond = [row for row in rows if not begin <= row.at < end]
    unheard = [row for row in inside if row.is_unheard]
    estimated = [row for row in inside if row.charge.state == "estimated" or not (row.is_whole or row.is_unheard)]
    free = [row for row in inside if row.is_free]
    least, most = _sum([*at_an_edge, *(row for row in unheard if row not in at_an_edge)]), _sum(beyond)
    is_counted = whole.requests - least.requests <= theirs.requests <= whole.requests + most.requests
    is_explained = is_counted and (bool(unheard or estimated) or _are_between(whole, least, _sum(free), most, theirs))
    named = (
        ("are estimates", estimated),
        ("ended before anything was heard of what they used", unheard),
        ("are refusals that cost nothing", free),
        ("began so near an end of the range that Anthropic may count them elsewhere", [*at_an_edge, *beyond]),
    )
    causes = [f"{len(found)} {text}: {_ids(found)}" for text, found in named if found]
    if not is_counted:
        causes.insert(0, _lacking(whole.requests - theirs.requests))
    return Line(kind, "explained" if is_explained else "differs", whole, theirs, causes)


def _lacking(more: int) -> str:
    if more < 0:
        return f"{-more} that Anthropic counted {'is' if more == -1 else 'are'} not in the books"
    return f"{more} in the books {'is' if more == 1 else 'are'} not among what Anthropic counted"


def _are_between(whole: Sum, edge: Sum, free: Sum, beyond: Sum, theirs: Sum) -> bool:
    if not whole.searches - edge.searches <= theirs.searches <= whole.searches + beyond.searches:
        return False
    ours, least, most, found = (_classes(s.tokens) for s in (whole, edge, beyond, theirs))
    unpaid = _classes(free.tokens)
    return all(ours[n] - least[n] - unpaid[n] <= found[n] <= ours[n] + most[n] for n in ours)


def _classes(tokens: Tokens) -> dict[str, int]:
    return {f.name: getattr(tokens, f.name) for f in fields(tokens)}


def _sum(rows: Iterable[Booked]) -> Sum:
    made = Sum()
    for row in rows:
        made.add(row.charge.messages, row.charge.tokens, row.charge.searches)
    return made


def _ids(rows: Iterable[Booked]) -> str:
    ids = list(dict.fromkeys(row.id for row in rows))
    return ", ".join(ids[:_NAMED]) + (", …" if len(ids) > _NAMED else "")


def twice(booked: Iterable[Booked]) -> Iterator[str]:
    """Messages of Anthropic's that stand in more than one row."""
    rows: dict[str, set[str]] = defaultdict(set)
    for row in booked:
        for message in row.message_ids:
            rows[message].add(row.id)
    for message, ids in rows.items():
        if len(ids) > 1:
            yield f"{message} is in the books {len(ids)} times: {', '.join(sorted(ids))}"


def minutes(kind: Kind, booked: Iterable[Booked], reported: Iterable[Reported]) -> Iterator[str]:
    """In which minutes the two differ. A difference that the next minute makes up for is none."""
    theirs: dict[datetime, Sum] = defaultdict(Sum)
    for line in reported:
        if line.kind == kind:
            theirs[line.begin].add(line.requests, line.tokens, line.searches)
    ours: dict[datetime, list[Booked]] = defaultdict(list)
    for row in booked:
        if row.kind == kind:
            ours[row.at.replace(second=0, microsecond=0)].append(row)
    carried = (0, 0)
    for at in sorted({*ours, *theirs}):
        sum, other = _sum(ours[at]), theirs[at]
        less = (other.requests - sum.requests, other.total - sum.total)
        following = at + timedelta(minutes=1)
        next_ours, next_theirs = _sum(ours.get(following, ())), theirs.get(following, Sum())
        ahead = (next_theirs.requests - next_ours.requests, next_theirs.total - next_ours.total)
        if less != (0, 0) and less != tuple(-n for n in carried) and less != tuple(-n for n in ahead):
            yield (
                f"{at:%Y-%m-%dT%H:%MZ}: {other.requests} requests and {other.total:,} tokens at Anthropic, "
                f"{sum.requests} and {sum.total:,} in the books{f' ({_ids(ours[at])})' if ours[at] else ''}"
            )
        carried = less


@dataclass(frozen=True)
class Cost:
    """Of a model's tokens, or of all searches, in µ$. `listed` and `charged` are Anthropic's, `slack` what rounding
    may come to."""

    what: str
    booked: Decimal
    listed: Decimal
    charged: Decimal
    slack: Decimal
    unknown: int
    """Charges whose cost the books do not know."""

    @property
    def is_equal(self) -> bool:
        return abs(self.booked - self.listed) <= self.slack


def costs(
    booked: Iterable[Booked],
    listed: Mapping[tuple[str, str], tuple[Decimal, Decimal]],
    factors: Mapping[str, int],
) -> list[Cost]:
    """`listed` is (at list prices, charged) in µ$ by (model, cost type); `factors` are those of the connections, which
    the books multiply list prices by."""
    tokens: dict[str, Decimal] = defaultdict(Decimal)
    charges: dict[str, int] = defaultdict(int)
    unknown: dict[str, int] = defaultdict(int)
    searches = 0
    for row in booked:
        charge = row.charge
        searches += charge.searches
        charges[charge.model] += 1
        if charge.micros is None:
            unknown[charge.model] += 1
            continue
        of_tokens = Decimal(charge.micros - charge.searches * _SEARCH_MICROS)
        tokens[charge.model] += of_tokens * FACTOR / factors.get(charge.connection, FACTOR)
    models = sorted({*charges, *(model for model, kind in listed if kind == "tokens")})
    made = [
        Cost(
            model, tokens[model], *listed.get((model, "tokens"), _NOTHING), Decimal(charges[model] + 1), unknown[model]
        )
        for model in models
    ]
    of_searches = [amounts for (_, kind), amounts in listed.items() if kind == "web_search"]
    if searches or of_searches:
        at_list, charged = (sum((amounts[i] for amounts in of_searches), Decimal(0)) for i in (0, 1))
        made.append(Cost(SEARCHES, Decimal(searches * _SEARCH_MICROS), at_list, charged, Decimal(1), 0))
    return made


_NOTHING = (Decimal(0), Decimal(0))

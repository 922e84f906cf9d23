"""What a soak makes of the gateway's own books."""

from __future__ import annotations

from soak.ledger import LedgerBooks, Row, rows_of

TEXT = (
    "id,model_asked,connection,ending\n"
    "req_gw_1,sim-text:tokens=3,conn_1,complete\n"
    "req_gw_2,attackers.sim-text,conn_1,complete\n"
    "req_gw_3,sim-text,conn_2,complete\n"
)


def books() -> LedgerBooks:
    return LedgerBooks(answered={"a", "b"}, refused={"c": "invalid_value", "d": "upstream_disconnected"}, others={"e"})


def rows(**endings: str) -> list[Row]:
    return [Row(id, ending) for id, ending in endings.items()]


def test_each_request_is_booked_or_was_refused_or_left_before_anything_went_upstream() -> None:
    made = books()
    found = made.compare(rows(a="complete", b="length", d="upstream_cut", x="client_gone"), 7, silent=2, resent=0)
    assert found == []
    assert made.text().startswith(
        "7 sent = 4 booked + 1 refused before dispatch + 2 that left, or were lost, before it"
    )


def test_an_answer_that_is_not_booked_is_told() -> None:
    (told,) = books().compare(rows(a="complete", d="upstream_cut"), 5, silent=2, resent=0)
    assert told.endswith("is not in the ledger: b")


def test_an_answer_that_is_booked_as_another_is_told() -> None:
    (told,) = books().compare(rows(a="complete", b="worker_lost", d="upstream_cut"), 5, silent=0, resent=0)
    assert told.endswith("stands in the ledger as worker_lost: b")


def test_a_refusal_that_came_from_upstream_must_be_booked() -> None:
    (told,) = books().compare(rows(a="complete", b="complete"), 5, silent=1, resent=0)
    assert told.endswith("refused with upstream_disconnected is not in the ledger: d")


def test_rows_of_nobodys_requests_are_told() -> None:
    some = rows(a="complete", b="complete", d="upstream_cut", x="complete", y="complete")
    told = books().compare(some, 5, silent=1, resent=0)
    assert "2 rows of the ledger have ids that nobody was told" in told[0]


def test_requests_that_are_nowhere_are_told() -> None:
    (told,) = books().compare(rows(a="complete", b="complete", d="upstream_cut"), 9, silent=1, resent=0)
    assert told == "of 9 requests the ledger has 3; 1 were refused"


def test_rows_of_attackers_stand_apart() -> None:
    assert list(rows_of(TEXT, {"attackers", "conn_2"})) == [Row("req_gw_1", "complete")]

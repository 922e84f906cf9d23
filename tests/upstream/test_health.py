"""A connection is left out for as long as it said, or as its failures make likely, and comes back by itself."""

from __future__ import annotations

import pytest

from app.errors import UpstreamError
from app.upstream.health import (
    ADMIN_PAUSE_S,
    COOL_DOWN_S,
    FAILURES_IN_A_ROW,
    FIRST_PAUSE_S,
    LONGEST_COOL_DOWN_S,
    LONGEST_PAUSE_S,
    TOO_LARGE_FOR_S,
    TRIAL_S,
    Health,
    may_succeed_elsewhere,
)

A, B = "claude-a", "claude-b"


def error(status: int, code: str, **headers: str) -> UpstreamError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return UpstreamError("It failed.", status=status, type="server_error", code=code, headers=named)


def limited(retry_after: str | None = None) -> UpstreamError:
    return error(429, "rate_limit_exceeded", **({"retry_after": retry_after} if retry_after is not None else {}))


BROKEN = error(502, "upstream_unreachable")
OVERLOADED = error(503, "overloaded")
REFUSED = error(503, "upstream_authentication_failed")
BROKE = error(429, "insufficient_quota")


def failing(now: float = 0.0, failure: UpstreamError = BROKEN) -> Health:
    health = Health()
    for _ in range(FAILURES_IN_A_ROW):
        health.failed(A, failure, now)
    return health


def is_out(health: Health, now: float, model: str = A) -> bool:
    return health.out(model, now) is not None


def test_a_rate_limit_holds_for_its_model_and_as_long_as_it_says() -> None:
    health = Health()
    health.failed(A, limited("30"), 100.0)
    assert is_out(health, 129.9)
    assert not is_out(health, 130.0)
    assert not is_out(health, 100.0, B)
    health.begin(A, 130.0)
    assert not is_out(health, 130.0), "no trial: when the time has come the limit is gone for all"


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        (None, COOL_DOWN_S), ("", COOL_DOWN_S), ("soon", COOL_DOWN_S), ("nan", COOL_DOWN_S), ("inf", COOL_DOWN_S),
        ("-5", COOL_DOWN_S), ("1_000", COOL_DOWN_S), ("0.5", 0.5), ("999999999", LONGEST_COOL_DOWN_S),
    ],
)  # fmt: skip
def test_a_wait_that_is_none_is_a_usual_one(told: str | None, seconds: float) -> None:
    health = Health()
    health.failed(A, limited(told), 0.0)
    assert [out.until for _, out in health.outs(-1.0)] == [seconds]


def test_an_answer_that_was_under_way_does_not_end_a_cool_down() -> None:
    health = Health()
    health.failed(A, limited("30"), 0.0)
    health.began(A)
    health.completed(A)
    assert is_out(health, 1.0)


def test_a_shorter_wait_told_to_another_request_does_not_shorten_a_longer_one() -> None:
    health = Health()
    health.failed(A, limited("40"), 0.0)
    health.failed(A, limited("1"), 0.5)
    assert is_out(health, 39.9)


def test_a_long_wait_is_tried_by_one_request_now_and_then() -> None:
    health = Health()
    health.failed(A, limited("600"), 0.0)
    out = health.out(A, 10.0)
    assert out is not None
    assert out.may_be_tried_at == TRIAL_S
    health.begin(A, TRIAL_S)
    tried = health.out(A, TRIAL_S)
    assert tried is not None
    assert tried.may_be_tried_at == 2 * TRIAL_S
    health.began(A)
    assert not is_out(health, TRIAL_S)


def test_a_request_that_is_too_large_for_a_minute_takes_the_model_from_nobody_for_long() -> None:
    health = Health()
    health.failed(A, limited("60"), 0.0, size=1_000_000)
    out = health.out(A, 1.0)
    assert out is not None
    assert not out.may_be_tried(900_000, 1.0)
    assert out.may_be_tried(10_000, 1.0), "a much smaller one"
    health.begin(A, 1.0, 10_000)
    waiting = health.out(A, 1.0)
    assert waiting is not None
    assert not waiting.may_be_tried(10_000, 1.1), "one at a time"
    health.began(A, 1.5, 10_000)
    assert not is_out(health, 1.5)
    health.failed(A, limited("60"), 2.0, size=1_100_000)
    assert not is_out(health, 2.0), "its size is known to be refused for itself"
    health.failed(A, limited("60"), 3.0, size=10_000)
    assert is_out(health, 3.0), "but this one was not"


def test_where_smaller_requests_are_refused_too_the_limit_is_used_up() -> None:
    health = Health()
    health.failed(A, limited("60"), 0.0, size=1_000_000)
    health.begin(A, 1.0, 10_000)
    health.failed(A, limited("59"), 1.2, size=10_000)
    out = health.out(A, 1.3)
    assert out is not None
    assert not out.may_be_tried(10_000, 1.3)
    assert not out.may_be_tried(6_000, 1.3)
    health.failed(A, limited("50"), 2.0, size=2_000_000)
    assert is_out(health, 2.0)


def test_what_is_known_of_a_size_is_forgotten_in_time() -> None:
    health = Health()
    health.failed(A, limited("60"), 0.0, size=1_000_000)
    health.begin(A, 1.0, 10_000)
    health.began(A, 1.0, 10_000)
    health.failed(A, limited("60"), 1.0 + TOO_LARGE_FOR_S, size=1_000_000)
    assert is_out(health, 1.0 + TOO_LARGE_FOR_S)


def test_what_is_kept_of_a_failure_holds_nothing_of_its_request() -> None:
    try:
        raise OVERLOADED
    except UpstreamError as raised:
        health = Health()
        health.failed(A, limited("30"), 0.0)
        health.failed(B, BROKE, 0.0)
        for _ in range(FAILURES_IN_A_ROW):
            health.failed("claude-c", raised, 0.0)
    kept = [out.error for _, out in health.outs(0.0)]
    assert len(kept) == 3
    for error_kept in kept:
        assert error_kept.__traceback__ is None
        assert error_kept.headers == {}
        assert error_kept.message == "It failed."


def test_failures_count_once_they_come_in_a_row() -> None:
    health = Health()
    for _ in range(FAILURES_IN_A_ROW - 1):
        health.failed(A, BROKEN, 0.0)
    health.began(A)
    health.completed(A)
    for _ in range(FAILURES_IN_A_ROW - 1):
        health.failed(A, BROKEN, 1.0)
    assert not is_out(health, 1.0)
    health.failed(A, BROKEN, 1.0)
    assert is_out(health, 1.0)
    assert is_out(health, 1.0, B), "an unreachable host is so for all models"


def test_answers_that_begin_and_break_off_are_failures_in_a_row() -> None:
    health = Health()
    for _ in range(FAILURES_IN_A_ROW):
        health.began(A)
        health.failed(A, error(502, "upstream_disconnected"), 0.0)
    assert is_out(health, 0.0)


def test_an_overloaded_model_says_nothing_of_the_others() -> None:
    health = failing(failure=OVERLOADED)
    assert is_out(health, 0.0, A)
    assert not is_out(health, 0.0, B)
    assert [model for model, _ in health.outs(0.0)] == [A]


def test_when_the_pause_is_over_one_request_tries() -> None:
    health = failing(0.0)
    then = FIRST_PAUSE_S
    assert not is_out(health, then)
    health.begin(A, then)
    assert is_out(health, then + 0.1), "others wait for what the trial shows"
    health.began(A)
    assert not is_out(health, then + 0.1)


def test_a_trial_that_shows_nothing_is_followed_by_another() -> None:
    health = failing(0.0)
    health.begin(A, FIRST_PAUSE_S)
    assert is_out(health, FIRST_PAUSE_S + TRIAL_S - 0.1)
    assert not is_out(health, FIRST_PAUSE_S + TRIAL_S)


def test_each_trial_that_fails_doubles_the_pause_up_to_a_limit() -> None:
    health = failing(0.0)
    now, pauses = 0.0, []
    for _ in range(6):
        (_, out), *_ = health.outs(now)
        pauses.append(out.until - now)
        now = out.until
        health.begin(A, now)
        health.failed(A, BROKEN, now)
    assert pauses == [5.0, 10.0, 20.0, 40.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    health.begin(A, now + LONGEST_PAUSE_S)
    health.began(A)
    health.completed(A)
    for _ in range(FAILURES_IN_A_ROW):
        health.failed(A, BROKEN, 1000.0)
    assert [out.until for _, out in health.outs(1000.0)] == [1000.0 + FIRST_PAUSE_S]


def test_failures_of_requests_that_were_under_way_do_not_lengthen_the_pause() -> None:
    health = failing(0.0)
    for _ in range(50):
        health.failed(A, BROKEN, 0.1)
    assert [out.until for _, out in health.outs(0.2)] == [FIRST_PAUSE_S]


def test_back_after_a_trial_one_more_failure_takes_it_out_again() -> None:
    health = failing(0.0)
    health.begin(A, FIRST_PAUSE_S)
    health.began(A)
    health.failed(A, BROKEN, FIRST_PAUSE_S + 1)
    assert is_out(health, FIRST_PAUSE_S + 1)


@pytest.mark.parametrize(("failure", "reason"), [(REFUSED, "key_refused"), (BROKE, "out_of_funds")])
def test_a_refused_key_or_an_empty_account_counts_at_once_and_is_tried_again(
    failure: UpstreamError, reason: str
) -> None:
    health = Health()
    health.failed(A, failure, 0.0)
    assert [(model, out.reason) for model, out in health.outs(0.0)] == [(None, reason)]
    assert is_out(health, ADMIN_PAUSE_S - 0.1, B)
    health.begin(B, ADMIN_PAUSE_S)
    assert is_out(health, ADMIN_PAUSE_S + 0.1)
    health.began(B)
    assert not is_out(health, ADMIN_PAUSE_S + 0.1)


def test_model_names_that_clients_invent_do_not_pile_up() -> None:
    health = Health()
    for number in range(5000):
        health.failed(f"model-{number}", OVERLOADED, 0.0)
    assert len(health._models) <= 200


@pytest.mark.parametrize(
    ("failure", "moves"),
    [
        (limited("1"), True), (REFUSED, True), (BROKE, True), (OVERLOADED, True), (BROKEN, True),
        (error(504, "timeout"), True), (error(400, "invalid_value"), False), (error(413, "request_too_large"), False),
        (error(404, "model_not_found"), False),
        (error(500, "internal_error", x_should_retry="false"), False),
        (error(409, "conflict", x_should_retry="true"), True),
        (error(429, "insufficient_quota", x_should_retry="false"), True),
        (error(500, "internal_error", x_should_retry="perhaps"), True),
    ],
)  # fmt: skip
def test_what_may_succeed_elsewhere_is_the_connections_fault_or_said_to_be_worth_it(
    failure: UpstreamError, moves: bool
) -> None:
    assert may_succeed_elsewhere(failure) is moves

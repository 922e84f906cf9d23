"""Errors of the upstream as OpenAI's clients know them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from app.translate.errors import to_upstream_error
from app.translate.headers import to_client_headers


def error(kind: str, message: str = "Something.", **more: Any) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message, **more}, "request_id": "req_1"}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, error("invalid_request_error"), (400, "invalid_request_error", None)),
        (
            400,
            error("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
            (400, "invalid_request_error", "context_length_exceeded"),
        ),
        (
            400,
            error("invalid_request_error", "messages.0.content.1.image.source: bad"),
            (400, "invalid_request_error", "invalid_image"),
        ),
        (
            400,
            error("invalid_request_error", "max_tokens: 9 > 8, which is the maximum"),
            (400, "invalid_request_error", "invalid_value"),
        ),
        (
            400,
            error("invalid_request_error", "Your credit balance is too low to access the API."),
            (429, "insufficient_quota", "insufficient_quota"),
        ),
        (401, error("authentication_error"), (503, "server_error", "upstream_authentication_failed")),
        (402, error("billing_error"), (429, "insufficient_quota", "insufficient_quota")),
        (403, error("permission_error"), (503, "server_error", "upstream_authentication_failed")),
        (
            403,
            error("permission_error", "Your key may not use the model claude-mythos-5."),
            (403, "invalid_request_error", "permission_denied"),
        ),
        (403, None, (403, "invalid_request_error", "permission_denied")),
        (403, {"error": {"type": "forbidden"}}, (403, "invalid_request_error", "permission_denied")),
        (
            400,
            error("invalid_request_error", "tool_choice: tool 'your credit balance is too low' not found"),
            (400, "invalid_request_error", None),
        ),
        (
            429,
            error("rate_limit_error", "You have reached your specified API usage limits. You will regain access soon."),
            (429, "insufficient_quota", "insufficient_quota"),
        ),
        (404, error("not_found_error", "model: claude-x"), (404, "invalid_request_error", "model_not_found")),
        (404, error("not_found_error", "file: file_1"), (404, "invalid_request_error", "not_found")),
        (409, error("conflict_error"), (409, "invalid_request_error", "conflict")),
        (413, error("request_too_large"), (413, "invalid_request_error", "request_too_large")),
        (413, None, (413, "invalid_request_error", "request_too_large")),
        (429, error("rate_limit_error"), (429, "rate_limit_error", "rate_limit_exceeded")),
        (
            429,
            error("rate_limit_error", "Limit.", error_code="workspace_spend_limit_reached"),
            (429, "insufficient_quota", "insufficient_quota"),
        ),
        (500, error("api_error"), (500, "server_error", "internal_error")),
        (504, error("timeout_error"), (504, "server_error", "timeout")),
        (529, error("overloaded_error"), (503, "server_error", "overloaded")),
        (529, None, (503, "server_error", "overloaded")),
        (200, error("overloaded_error"), (503, "server_error", "overloaded")),
        (200, error("api_error"), (500, "server_error", "internal_error")),
        (502, None, (502, "server_error", "upstream_error")),
        (200, error("cosmic_error"), (502, "server_error", "cosmic_error")),
        (418, error("teapot_error"), (418, "invalid_request_error", "teapot_error")),
    ],
)
def test_each_error_gets_the_status_type_and_code_that_clients_know(
    status: int, body: Any, expected: tuple[int, str, str | None]
) -> None:
    made = to_upstream_error(status, body, {})
    assert (made.status, made.type, made.code) == expected


OUT_OF_CREDIT = "This gateway's Anthropic account has no credit left; its administrator must add some."
AT_ITS_LIMIT = "This gateway's Anthropic account has reached its spend limit; its administrator can raise it."
OVERLOADED = "Anthropic has more requests than it can serve at the moment; ask again in some seconds."


@pytest.mark.parametrize(
    ("status", "kind", "said", "more", "meaning"),
    [
        (400, "invalid_request_error", "Your credit balance is too low. Go to Plans & Billing.", {}, OUT_OF_CREDIT),
        (402, "billing_error", "Your payment failed.", {}, OUT_OF_CREDIT),
        (429, "rate_limit_error", "You have reached your API usage limits, until 2026-12-01.", {}, AT_ITS_LIMIT),
        (429, "rate_limit_error", "Until 2026-12-01.", {"error_code": "spend_limit_reached"}, AT_ITS_LIMIT),
        (402, "billing_error", "You have reached your spend limit.", {}, AT_ITS_LIMIT),
        (529, "overloaded_error", "Overloaded", {}, OVERLOADED),
        (200, "overloaded_error", "Overloaded", {}, OVERLOADED),
    ],
)
def test_a_trouble_of_the_gateways_account_is_not_told_as_the_clients_and_anthropics_words_are_kept_for_the_admin(
    status: int, kind: str, said: str, more: dict[str, str], meaning: str
) -> None:
    made = to_upstream_error(status, error(kind, said, **more), {})
    assert made.message == f"{meaning} Anthropic says: {said}"
    assert made.upstream is not None
    assert made.upstream["message"] == said


def test_where_anthropic_said_nothing_nothing_is_put_into_its_mouth() -> None:
    assert to_upstream_error(529, None, {}).message == OVERLOADED
    assert "Anthropic says" not in to_upstream_error(401, None, {}).message


def test_keys_never_stand_in_a_message() -> None:
    made = to_upstream_error(400, error("invalid_request_error", "bad key sk-ant-api03-abcdefghijk"), {})
    assert "abcdefghijk" not in str(made.body())


def test_of_a_long_text_the_beginning_is_passed_on_and_no_part_of_a_key_at_its_end() -> None:
    for start in range(1980, 2001):
        text = "x" * start + "own-secret-of-this-gateway" + "y" * 100_000
        made = to_upstream_error(529, error("overloaded_error", text), {}, secrets=["own-secret-of-this-gateway"])
        assert made.upstream is not None
        for told in (made.message, made.upstream["message"]):
            assert 1900 < len(told) < 2200
            assert "own" not in told


def test_paths_are_those_of_the_clients_own_messages() -> None:
    body = error("invalid_request_error", "messages.2.content.0.text: too odd")
    made = to_upstream_error(400, body, {}, message_sources=((1,), (2, 3, 4), (5,)))
    assert made.param == "messages[5]"
    assert made.message == "messages.5.content.0.text: too odd"
    assert made.body()["error"]["upstream"] == {
        "type": "invalid_request_error",
        "message": "messages.2.content.0.text: too odd",
        "request_id": "req_1",
    }


@pytest.mark.parametrize(
    ("status", "kind", "upstream", "expected"),
    [
        (
            429,
            "rate_limit_error",
            {"retry-after": "30", "x-should-retry": "true"},
            {"retry-after": "30", "retry-after-ms": "30000", "x-should-retry": "true"},
        ),
        (529, "overloaded_error", {}, {"retry-after": "5", "retry-after-ms": "5000"}),
        (401, "authentication_error", {"x-should-retry": "true"}, {"x-should-retry": "false"}),
        (402, "billing_error", {"retry-after": "9"}, {"x-should-retry": "false"}),
        (400, "invalid_request_error", {"retry-after": "9"}, {}),
    ],
)
def test_clients_are_told_whether_and_when_to_retry(
    status: int, kind: str, upstream: dict[str, str], expected: dict[str, str]
) -> None:
    assert to_upstream_error(status, error(kind), upstream).headers == expected


def test_limits_are_told_under_openais_names_too() -> None:
    upstream = {
        "request-id": "req_1",
        "retry-after": "9",
        "set-cookie": "secret",
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2026-11-22T00:01:03Z",
        "anthropic-ratelimit-input-tokens-limit": "1000",
        "anthropic-ratelimit-input-tokens-remaining": "900",
        "anthropic-ratelimit-input-tokens-reset": "2026-11-21T00:00:00Z",
    }
    made = to_client_headers(upstream, now=datetime(2026, 11, 22, tzinfo=UTC))
    assert made["x-request-id"] == "req_1"
    assert made["x-ratelimit-limit-requests"] == "50"
    assert made["x-ratelimit-remaining-requests"] == "49"
    assert made["x-ratelimit-reset-requests"] == "1m3s"
    assert made["x-ratelimit-remaining-tokens"] == "900"
    assert made["x-ratelimit-reset-tokens"] == "0ms"
    assert made["anthropic-ratelimit-requests-limit"] == "50"
    assert "set-cookie" not in made
    assert "retry-after" not in made


@pytest.mark.parametrize("told", ["-5", "1e3", "inf", "\u0444", "5\x01", "5\rset-cookie: a=b", "soon", ""])
def test_a_wait_that_is_none_is_not_passed_on(told: str) -> None:
    made = to_upstream_error(429, error("rate_limit_error"), {"retry-after": told, "x-should-retry": told})
    assert made.headers == {}


@pytest.mark.parametrize("told", ["0", "2.5", "Wed, 25 Nov 2026 10:00:00 GMT"])
def test_a_wait_in_seconds_or_until_a_date_is_passed_on(told: str) -> None:
    assert to_upstream_error(429, error("rate_limit_error"), {"retry-after": told}).headers["retry-after"] == told

"""Anthropic's Analytics reports on an organisation's usage and cost, by way of the SDK.

https://docs.anthropic.com/en/api/usage-cost-api
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

import anthropic

from app.errors import UpstreamError
from app.money.reconcile import Kind, Reported
from app.money.tokens import Tokens
from app.upstream.sdk import new_sdk

Width = Literal["1d", "1h", "1m"]
_TIMEOUT_S = 60.0
_MOST_ROWS = 1_000
_MICROS_PER_CENT = 10_000
_DIMENSIONS: Any = ("model", "speed", "inference_geo", "service_tier")


class Reports:
    """Of the organisation that an admin key belongs to. All methods raise UpstreamError."""

    def __init__(self, base_url: str, admin_key: str) -> None:
        self._client = new_sdk(api_key=admin_key, auth_token=None, base_url=base_url, timeout=_TIMEOUT_S)

    def close(self) -> None:
        self._client.close()

    def key_ids(self, keys: Iterable[str]) -> Mapping[str, str]:
        """By key, its id at Anthropic: a key is listed by its beginning and end alone. A key that fits none, or more
        than one, is left out."""
        listed = self._all(lambda: self._client.beta.organization.api_keys.list(limit=_MOST_ROWS))
        found: dict[str, str] = {}
        for key in keys:
            ids = [each.id for each in listed if _is_hint_of(each.partial_key_hint, key)]
            if len(ids) == 1:
                found[key] = ids[0]
        return found

    def refreshed_at(self, begin: datetime) -> datetime:
        """Until when the reports are complete."""
        page = self._ask(lambda: self._client.beta.organization.analytics.usage.list(starting_at=begin, limit=1))
        return (page.data_refreshed_at or datetime.now(UTC)).astimezone(UTC)

    def usage(self, begin: datetime, end: datetime, width: Width, key_ids: Sequence[str]) -> list[Reported]:
        rows = self._all(
            lambda: self._client.beta.organization.analytics.usage.list(
                starting_at=begin,
                ending_at=end,
                time_bucket_width=width,
                group_by=list(_DIMENSIONS),
                api_key_ids=list(key_ids),
                order_by="time",
                limit=_MOST_ROWS,
            )
        )
        return [
            Reported(
                begin=row.starting_at.astimezone(UTC),
                kind=Kind.of(row.group.model, row.group.speed, row.group.inference_geo, row.group.service_tier),
                requests=row.usage.requests or 0,
                tokens=Tokens(
                    row.usage.uncached_input_tokens,
                    row.usage.cache_creation.ephemeral_5m_input_tokens,
                    row.usage.cache_creation.ephemeral_1h_input_tokens,
                    row.usage.cache_read_input_tokens,
                    row.usage.output_tokens,
                ),
                searches=row.usage.server_tool_use.web_search_requests,
            )
            for row in rows
        ]

    def costs(
        self, begin: datetime, end: datetime, width: Width, key_ids: Sequence[str]
    ) -> dict[tuple[str, str], tuple[Decimal, Decimal]]:
        """µ$ at list prices, and after discounts, by (model, cost type)."""
        rows = self._all(
            lambda: self._client.beta.organization.analytics.cost.list(
                starting_at=begin,
                ending_at=end,
                time_bucket_width=width,
                group_by=["model", "cost_type"],
                api_key_ids=list(key_ids),
                limit=_MOST_ROWS,
            )
        )
        found: dict[tuple[str, str], tuple[Decimal, Decimal]] = {}
        for row in rows:
            key = (row.group.model or "", str(row.group.cost_type))
            listed, charged = found.get(key, (Decimal(0), Decimal(0)))
            found[key] = (
                listed + Decimal(row.cost.list_amount) * _MICROS_PER_CENT,
                charged + Decimal(row.cost.amount) * _MICROS_PER_CENT,
            )
        return found

    def _all(self, ask: Any) -> list[Any]:
        rows: list[Any] = self._ask(lambda: list(ask()))
        return rows

    def _ask(self, ask: Any) -> Any:
        try:
            return ask()
        except anthropic.APIStatusError as error:
            raise _failed(f"answered {error.status_code}: {_message(error)}") from None
        except anthropic.APIError as error:
            raise _failed(f"cannot be reached: {error}") from None


def _failed(how: str) -> UpstreamError:
    return UpstreamError(f"Anthropic's Analytics API {how}", status=502, type="server_error", code=None)


def _message(error: anthropic.APIStatusError) -> str:
    body = error.body
    inner = body.get("error") if isinstance(body, Mapping) else None
    return str(inner.get("message") if isinstance(inner, Mapping) else error.message)


def _is_hint_of(hint: str | None, key: str) -> bool:
    """`sk-ant-api03-R2D...igAA`."""
    begin, dots, end = (hint or "").partition("...")
    return bool(dots and begin) and key.startswith(begin) and key.endswith(end)

"""What the books answer: sums, series and rows."""

from __future__ import annotations

from marshmallow import Schema, fields


class _TokensSchema(Schema):
    input_tokens = fields.Integer()
    cache_write_5m_tokens = fields.Integer()
    cache_write_1h_tokens = fields.Integer()
    cache_read_tokens = fields.Integer()
    output_tokens = fields.Integer()
    thinking_tokens = fields.Integer(metadata={"description": "Part of output_tokens"})
    searches = fields.Integer()


class SumsSchema(_TokensSchema):
    requests = fields.Integer()
    unknown = fields.Integer(metadata={"description": "Requests whose cost is not known, and not in cost_micros"})  # type: ignore[assignment]  # a field
    estimated = fields.Integer(metadata={"description": "Requests whose cost is an estimate"})
    cost_micros = fields.Integer()
    saved_micros = fields.Integer(metadata={"description": "What the prompt cache saved; below 0 what it cost"})


class GroupSchema(SumsSchema):
    name = fields.String(
        allow_none=True,
        metadata={"description": "Of the key (its id), model, connection, ending, user or tag; null: all others"},
    )


class UsageTotalsSchema(Schema):
    object = fields.String()
    begin = fields.String(data_key="from")
    to = fields.String()
    by = fields.String(allow_none=True)
    total = fields.Nested(SumsSchema)
    data = fields.List(fields.Nested(GroupSchema))


class BucketSchema(GroupSchema):
    start = fields.String()
    end = fields.String()


class UsageSeriesSchema(Schema):
    object = fields.String()
    begin = fields.String(data_key="from")
    to = fields.String()
    interval = fields.String()
    tz = fields.String()
    by = fields.String(allow_none=True)
    data = fields.List(fields.Nested(BucketSchema))


class RequestSchema(_TokensSchema):
    """One request that went to Anthropic."""

    id = fields.String(metadata={"description": "As the client got it in x-gateway-request-id"})
    at = fields.String()
    key_id = fields.String()
    key_name = fields.String(allow_none=True)
    owner = fields.String(allow_none=True)
    client = fields.String(allow_none=True, metadata={"description": "From the header user-agent"})
    user_ref = fields.String(allow_none=True)
    tag = fields.String(allow_none=True)
    route = fields.String()
    model_asked = fields.String()
    model = fields.String()
    connection = fields.String()
    attempts = fields.Integer()
    status = fields.Integer()
    ending = fields.String()
    stream = fields.Boolean()
    cost_micros = fields.Integer(allow_none=True, metadata={"description": "null where it is not known"})
    saved_micros = fields.Integer(allow_none=True)
    cost_state = fields.String(metadata={"description": "exact, estimated or unknown"})
    price_version = fields.String(allow_none=True)
    tier = fields.String(allow_none=True)
    speed = fields.String(allow_none=True)
    geo = fields.String(allow_none=True)
    ttft_ms = fields.Integer(allow_none=True)
    duration_ms = fields.Integer()
    warnings = fields.List(fields.String())
    upstream_ids = fields.List(fields.String())
    parts = fields.Dict(allow_none=True, metadata={"description": "Of several calls or charges: `tries` and `charges`"})


class RequestListSchema(Schema):
    object = fields.String()
    data = fields.List(fields.Nested(RequestSchema))
    next = fields.String(allow_none=True, metadata={"description": "What to ask for with `before` (or `after`)"})


class KeyUsageSchema(Schema):
    """Of the client key that asks."""

    object = fields.String()
    key = fields.Dict()
    tz = fields.String()
    today = fields.Nested(SumsSchema)
    week = fields.Nested(SumsSchema)
    month = fields.Nested(SumsSchema)

"""What is asked of, and answered by, POST /verify."""

from __future__ import annotations

from marshmallow import Schema, fields

from app.schemas.base import Object, StrictSchema, String


class VerifyRequestSchema(StrictSchema):
    """Either `connection`, or `url` and `key`."""

    connection = String(metadata={"description": "The id of a configured connection"})
    url = String(metadata={"description": "A base URL"})
    key = String(metadata={"description": "A key; a masked one only with the URL it is stored with"})
    config = Object(metadata={"description": "Connection settings, as in ANTHROPIC_API_CONFIGS"})
    model = String(metadata={"description": "Sends a message of one token to this model as well"})


class VerifyAnswerSchema(Schema):
    ok = fields.Boolean()
    status = fields.Integer(allow_none=True, metadata={"description": "HTTP status of the upstream's answer"})
    latency_ms = fields.Integer()
    models = fields.List(fields.String())
    error = fields.String(allow_none=True, metadata={"description": "What is wrong and what to do, in plain words"})

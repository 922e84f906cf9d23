"""What /openapi.json says of Anthropic's own API. Nothing is checked by it: Anthropic judges what is sent.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from marshmallow import INCLUDE, Schema, fields


class _AnthropicsSchema(Schema):
    class Meta:
        unknown = INCLUDE


class AnthropicRequestSchema(_AnthropicsSchema):
    model = fields.String(required=True, metadata={"description": "The id of a model, or an alias."})
    messages = fields.List(fields.Dict(), required=True)
    max_tokens = fields.Integer(required=True)
    stream = fields.Boolean()
    system = fields.Raw(metadata={"description": "A string, or blocks of text."})
    tools = fields.List(fields.Dict())
    thinking = fields.Dict()
    metadata = fields.Dict()


class AnthropicCountSchema(_AnthropicsSchema):
    model = fields.String(required=True, metadata={"description": "The id of a model, or an alias."})
    messages = fields.List(fields.Dict(), required=True)


class AnthropicMessageSchema(_AnthropicsSchema):
    id = fields.String()
    type = fields.String()
    role = fields.String()
    model = fields.String()
    content = fields.List(fields.Dict())
    stop_reason = fields.String(allow_none=True)
    stop_sequence = fields.String(allow_none=True)
    usage = fields.Dict()


class AnthropicTokensSchema(_AnthropicsSchema):
    input_tokens = fields.Integer()

"""Models as they are listed; translate/models.py makes the objects."""

from __future__ import annotations

from marshmallow import INCLUDE, Schema, fields


class ModelSchema(Schema):
    class Meta:
        unknown = INCLUDE  # what other clients look for stands there as well

    id = fields.String()
    object = fields.String()
    created = fields.Integer(metadata={"description": "Unix seconds"})
    owned_by = fields.String()
    shutdown_date = fields.String(allow_none=True)
    name = fields.String()
    context_length = fields.Integer()
    max_output_tokens = fields.Integer()
    tokens_per_message = fields.Integer(metadata={"description": "The context window"})
    tokens_per_request = fields.Integer(metadata={"description": "The most output"})
    max_tokens = fields.Integer()
    capabilities = fields.Dict()
    lifecycle = fields.String()
    alias_of = fields.String(metadata={"description": "On names an administrator made: the model they stand for"})


class ModelListSchema(Schema):
    object = fields.String()
    data = fields.List(fields.Nested(ModelSchema))

"""Answers about the gateway itself."""

from __future__ import annotations

from marshmallow import Schema, fields


class AliveSchema(Schema):
    status = fields.Boolean()


class HealthSchema(Schema):
    status = fields.String()


class ReadinessSchema(Schema):
    status = fields.String(metadata={"description": "ok, degraded or unavailable"})
    reasons = fields.List(fields.String(), metadata={"description": "Only for admins and the metrics token"})
    generation = fields.Integer()
    connections = fields.List(fields.Dict())
    worker = fields.Dict(metadata={"description": "The process that answers"})
    workers = fields.List(fields.Dict(), metadata={"description": "All processes of this machine's gateway"})

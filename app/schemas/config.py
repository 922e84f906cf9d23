"""The configuration as /config gives and /config/update takes it, made from the one declaration of the settings.

Shapes are checked here, what a value means in storage/validation.py, which every writer of settings goes through.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from marshmallow import Schema, fields

from app.schemas.base import Boolean, Integer, List, Object, StrictSchema, String
from app.settings import RUNTIME_SETTINGS, RuntimeSetting

_FIELDS: Mapping[str, Callable[..., fields.Field[Any]]] = {
    "bool": Boolean,
    "int": Integer,
    "str": String,
    "list": lambda **kwargs: List(String(), **kwargs),
    "object": Object,
    "objects": lambda **kwargs: List(Object(), **kwargs),
}


def _field(setting: RuntimeSetting) -> fields.Field[Any]:
    return _FIELDS[setting.type](metadata={"description": setting.help})


_GENERATION = {"description": "Counts changes; posted back, it must be the current one, else the answer is 412."}

_SOURCES = {
    "description": "With ?all=true: where each value comes from: database, environment or default. Ignored when posted."
}

_WARNINGS = {
    "description": "In the answer to a change: of the names of models in it those that no connection lists, each in a "
    "sentence; they are saved all the same. Ignored when posted."
}

ConfigSchema: type[Schema] = StrictSchema.from_dict(
    {
        **{s.name: _field(s) for s in RUNTIME_SETTINGS},
        "sources": Object(metadata=_SOURCES),
        "warnings": List(String(), metadata=_WARNINGS),
        "generation": Integer(metadata=_GENERATION),
    },
    name="ConfigSchema",
)
ConfigUpdateSchema: type[Schema] = StrictSchema.from_dict(
    dict(ConfigSchema._declared_fields), name="ConfigUpdateSchema"
)

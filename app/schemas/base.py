"""Fields and a schema that never coerce: "5" is not 5, 1 is not true, and unknown fields are refused by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields

from app.errors import InvalidRequest


class StrictSchema(Schema):
    """`load` raises InvalidRequest with the path of the first bad field, as in `messages[2].role`."""

    class Meta:
        unknown = RAISE

    error_messages = {"unknown": "is not known here", "type": "must be a JSON object"}  # noqa: RUF012  # marshmallow's way

    def handle_error(self, error: ValidationError, data: Any, *, many: bool, **kwargs: Any) -> None:
        raise invalid_request(error.messages) from None


def invalid_request(messages: Any, prefix: str = "") -> InvalidRequest:
    """marshmallow's nested messages as one error that names the first field."""
    path = prefix
    while isinstance(messages, Mapping):
        key, messages = next(iter(messages.items()))
        if key == "_schema":
            continue
        path += f"[{key}]" if isinstance(key, int) else f".{str(key)[:100]}" if path else str(key)[:100]
    sentence = " ".join(map(str, messages)) if isinstance(messages, list) else str(messages)
    sentence = sentence.rstrip(".")
    return InvalidRequest(f"{path or 'The request body'} {sentence}.", param=path or None)


class Boolean(fields.Field[bool]):
    default_error_messages = {  # noqa: RUF012  # marshmallow's way
        "type": "must be true or false",
        "required": "is missing",
        "null": "must be true or false, not null",
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("type")
        return value


class Integer(fields.Field[int]):
    default_error_messages = {  # noqa: RUF012  # marshmallow's way
        "type": "must be a whole number",
        "required": "is missing",
        "null": "must be a whole number, not null",
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.make_error("type")
        return value


class Float(fields.Field[float]):
    """Whole numbers are taken too; they stay as they are."""

    default_error_messages = {  # noqa: RUF012  # marshmallow's way
        "type": "must be a number",
        "required": "is missing",
        "null": "must be a number, not null",
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            raise self.make_error("type")
        return value


class String(fields.Field[str]):
    default_error_messages = {  # noqa: RUF012  # marshmallow's way
        "type": "must be a string",
        "required": "is missing",
        "null": "must be a string, not null",
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise self.make_error("type")
        return value


class List(fields.List[Any]):
    default_error_messages = {  # noqa: RUF012  # marshmallow's way
        "invalid": "must be an array",
        "required": "is missing",
        "null": "must be an array, not null",
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if not isinstance(value, list):
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class Object(fields.Field[dict[str, Any]]):
    """A JSON object that is not looked into."""

    default_error_messages = {  # noqa: RUF012  # marshmallow's way
        "type": "must be an object",
        "required": "is missing",
        "null": "must be an object, not null",
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.make_error("type")
        return value

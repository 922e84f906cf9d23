"""The top level of a chat completion request, checked strictly; messages and tools are checked in translate/.

https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, NoReturn

from marshmallow import INCLUDE, Schema, ValidationError, fields

from app.errors import InvalidRequest, shown
from app.schemas.base import invalid_request
from app.translate.chat.extensions import flattened
from app.translate.chat.reasoning import LEVELS
from app.translate.chat.request import SERVICE_TIERS
from app.translate.exact_json import whole_number

MOST_CHOICES = 8
MOST_STOPS = 64
MOST_FIELDS = 1000


class _Field(fields.Field[Any]):
    """A field that may be null, as nearly all of OpenAI's may, and that refuses with OpenAI's codes."""

    def __init__(self, **kwargs: Any) -> None:
        messages: dict[str, Any] = {"required": "is missing", "null": "must not be null"}
        super().__init__(allow_none=not kwargs.get("required"), error_messages=messages, **kwargs)

    def refuse(self, name: str | None, what: str, code: str) -> NoReturn:
        raise InvalidRequest(f"{name} {what}.", param=name, code=code)


class Flag(_Field):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            self.refuse(attr, "must be true or false", "invalid_type")
        return value


class Text(_Field):
    def __init__(self, *, choices: Collection[str] = (), longest: int = 1_000_000, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.longest = longest
        self.choices = tuple(choices)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str):
            self.refuse(attr, "must be a string", "invalid_type")
        if self.required and not value:
            self.refuse(attr, "must not be empty", "invalid_value")
        if len(value) > self.longest:
            self.refuse(attr, f"must have at most {self.longest} characters", "string_above_max_length")
        if self.choices and value not in self.choices:
            self.refuse(attr, f"is {shown(value)}; accepted are {', '.join(self.choices)}", "invalid_value")
        return value


class Number(_Field):
    """A JSON number within bounds; a whole one where `whole`, as 1024 and 1024.0 are."""

    def __init__(self, least: float, most: float = math.inf, *, whole: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.least = least
        self.most = most
        self.whole = whole

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> float:
        kind = "integer" if self.whole else "decimal"
        if self.whole:
            value = whole_number(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.refuse(attr, "must be a whole number" if self.whole else "must be a number", "invalid_type")
        if value < self.least:
            self.refuse(attr, f"must be at least {self.least:g}", f"{kind}_below_min_value")
        if value > self.most:
            self.refuse(attr, f"must be at most {self.most:g}", f"{kind}_above_max_value")
        return value


class Stop(_Field):
    """A string or a list of them; null entries are dropped."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[str]:
        entries = value if isinstance(value, list) else [value]
        if not all(entry is None or isinstance(entry, str) for entry in entries):
            self.refuse(attr, "must be a string or an array of strings", "invalid_type")
        if len(entries) > MOST_STOPS:
            self.refuse(attr, f"must hold at most {MOST_STOPS} strings", "array_above_max_length")
        return [entry for entry in entries if entry is not None]


class StringMap(_Field):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, str]:
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            self.refuse(attr, "must be an object whose values are strings", "invalid_type")
        return value


class StreamOptions(_Field):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.refuse(attr, "must be an object", "invalid_type")
        for name in ("include_usage", "include_obfuscation"):
            if not isinstance(value.get(name), bool | None):
                self.refuse(f"{attr}.{name}", "must be true or false", "invalid_type")
        if data.get("stream") is not True:
            self.refuse(attr, "is only allowed when stream is true", "invalid_parameter")
        return value


class Array(_Field):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if not isinstance(value, list):
            self.refuse(attr, "must be an array", "invalid_type")
        return value


class ChatRequestSchema(Schema):
    class Meta:
        unknown = INCLUDE  # translate/fields.py says what becomes of them

    model = Text(required=True, longest=256)  # longer ones would only fill caches and logs
    messages = Array(required=True)
    max_completion_tokens = Number(1, whole=True)
    max_tokens = Number(1, whole=True)
    temperature = Number(0, 2)
    top_p = Number(0, 1)
    n = Number(1, MOST_CHOICES, whole=True)
    stop = Stop()
    stop_sequences = Stop()
    stream = Flag()
    stream_options = StreamOptions()
    tools = Array()
    parallel_tool_calls = Flag()
    reasoning_effort = Text(choices=LEVELS)
    verbosity = Text(choices=("low", "medium", "high"))
    service_tier = Text(choices=SERVICE_TIERS)
    user = Text()
    safety_identifier = Text()
    metadata = StringMap()
    store = Flag()
    seed = Number(-(2**63), 2**63 - 1, whole=True)
    presence_penalty = Number(-2, 2)
    frequency_penalty = Number(-2, 2)
    include_anthropic_content = Flag()
    logprobs = Flag()
    top_logprobs = Number(0, 20, whole=True)

    def handle_error(self, error: ValidationError, data: Any, *, many: bool, **kwargs: Any) -> None:
        refused = invalid_request(error.messages)
        refused.code = "missing_required_parameter" if refused.param not in data else "invalid_type"
        raise refused from None


class _AnswerSchema(Schema):
    """Describes what is sent as it is; it may hold more."""

    class Meta:
        unknown = INCLUDE


class MessageSchema(_AnswerSchema):
    role = fields.String()
    content = fields.String(allow_none=True)
    refusal = fields.String(allow_none=True)
    reasoning_content = fields.String(metadata={"description": "Claude's thinking; absent when there is none."})
    reasoning_details = fields.List(
        fields.Dict(),
        metadata={"description": "The same with its signatures: send it back on the assistant message as it is."},
    )
    tool_calls = fields.List(fields.Dict())
    annotations = fields.List(
        fields.Dict(),
        metadata={"description": "Citations: url_citation, and document_citation where the client asked for them."},
    )


class ChoiceSchema(_AnswerSchema):
    index = fields.Integer()
    message = fields.Nested(MessageSchema)
    finish_reason = fields.String()
    logprobs = fields.Dict(allow_none=True)
    native_finish_reason = fields.String(metadata={"description": "Claude's own stop_reason."})


class UsageSchema(_AnswerSchema):
    prompt_tokens = fields.Integer()
    completion_tokens = fields.Integer()
    total_tokens = fields.Integer()
    prompt_tokens_details = fields.Dict()
    completion_tokens_details = fields.Dict()


class ChatCompletionSchema(_AnswerSchema):
    """Describes an answer; what translate/response.py makes is sent as it is."""

    id = fields.String()
    object = fields.String()
    created = fields.Integer(metadata={"description": "Unix seconds"})
    model = fields.String()
    choices = fields.List(fields.Nested(ChoiceSchema))
    usage = fields.Nested(UsageSchema)
    service_tier = fields.String()
    gateway = fields.Dict(metadata={"description": "`warnings` that arose after the headers had gone out."})


class FlatChatCompletionSchema(ChatCompletionSchema):
    role = fields.String()
    content = fields.String(allow_none=True)


_REQUEST = ChatRequestSchema()


def chat_request(body: dict[str, Any]) -> dict[str, Any]:
    """The checked request. Raises InvalidRequest that names the field."""
    if len(body) > MOST_FIELDS:
        raise InvalidRequest(f"The request has more than {MOST_FIELDS} fields.", code="invalid_value")
    checked: dict[str, Any] = _REQUEST.load(flattened(body))
    return checked

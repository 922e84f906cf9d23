"""What can go wrong, as the client is told: each error carries OpenAI's envelope; blueprints/errors.py renders it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class ConfigError(Exception):
    """A process setting is missing or wrong; the message names it and the remedy. Raised at start-up only."""


def shown(value: object) -> str:
    """A client's value as it stands in an error message: not more of it than helps."""
    text = repr(value[:101] if isinstance(value, str) else value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def in_one_line(text: str) -> str:
    """For the log: what others said may hold line breaks, and be long."""
    return " ".join(text.split())[:300]


class GatewayError(Exception):
    """An answer in OpenAI's envelope: `{"error": {"message", "type", "param", "code"}}` with `status` and `headers`.

    https://platform.openai.com/docs/guides/error-codes
    """

    status = 500
    type = "server_error"
    code: str | None = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code
        self.headers: dict[str, str] = dict(headers or {})

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class InvalidRequest(GatewayError):
    """The request is at fault; `param` is the path of the field, as in `messages[3].content[0].type`."""

    status = 400
    type = "invalid_request_error"
    code: str | None = None


class UntranslatableRequest(InvalidRequest):
    """A chat completion request that has no counterpart in Anthropic's Messages API."""


class Unauthenticated(InvalidRequest):
    status = 401
    code = "invalid_api_key"


class Forbidden(InvalidRequest):
    status = 403
    code = "permission_denied"


class ServerToolsRefused(Forbidden):
    code = "server_tools_refused"

    def __init__(self, field: str) -> None:
        super().__init__(
            f"{field}: this gateway lets nothing run at Anthropic, or be kept there (SERVER_TOOLS). Leave the field "
            "out, or ask its administrator.",
            param=field,
        )


class NotFound(InvalidRequest):
    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"

    def __init__(self, asked: str, model: str | None = None) -> None:
        """`model` is what `asked` stands for."""
        named = f"`{asked[:100]}`"
        if model not in (None, asked):
            named = f"`{model[:100]}`, which `{asked[:100]}` stands for,"
        super().__init__(
            f"The model {named} does not exist or you do not have access to it. "
            "GET /v1/models lists what there is; an administrator can add other names for it (MODEL_ALIASES).",
            param="model",
        )
        self.asked = asked[:100]
        self.model = asked if model is None else model


class MethodNotAllowed(InvalidRequest):
    status = 405
    code = "method_not_allowed"


class RequestTimeout(InvalidRequest):
    status = 408
    code = "request_timeout"


class Conflict(InvalidRequest):
    status = 409
    code = "conflict"


class PreconditionFailed(InvalidRequest):
    """Somebody else changed what this request wanted to change."""

    status = 412
    code = "stale_generation"


class RequestTooLarge(InvalidRequest):
    status = 413
    code = "request_too_large"


class UnsupportedMediaType(InvalidRequest):
    status = 415
    code = "unsupported_media_type"


class TooManyRequests(InvalidRequest):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class ServiceUnavailable(GatewayError):
    status = 503
    code = "service_unavailable"


class IntegrationDisabled(ServiceUnavailable):
    code = "integration_disabled"

    def __init__(self) -> None:
        super().__init__(
            "The Anthropic integration is disabled. Enable it on the admin page (/admin), with POST /config/update "
            '{"ENABLE_ANTHROPIC_API": true}, or with the environment variable ENABLE_ANTHROPIC_API=true.',
            headers={"x-should-retry": "false"},
        )


class DatabaseUnavailable(ServiceUnavailable):
    code = "database_unavailable"


@dataclass(frozen=True)
class Forwarded:
    """An answer of Anthropic's that a client gets as it is. `headers` are those that may be passed on."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class UpstreamError(GatewayError):
    """What Anthropic answered, or that it did not; translate/errors.py decides status, type and code.

    `upstream_status` is None when there was no answer, `forwarded` where it may not be passed on as it is.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        type: str,
        code: str | None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        upstream: Mapping[str, Any] | None = None,
        upstream_status: int | None = None,
        forwarded: Forwarded | None = None,
    ) -> None:
        super().__init__(message, param=param, code=code, headers=headers)
        self.forwarded = forwarded
        self.status = status
        self.upstream_status = upstream_status
        self.type = type
        self.code = code
        self.upstream = dict(upstream) if upstream else None

    def body(self) -> dict[str, Any]:
        body = super().body()
        if self.upstream:
            body["error"]["upstream"] = self.upstream
        return body

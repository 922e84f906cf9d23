"""What the API answers instead of a message: https://docs.anthropic.com/en/api/errors."""

from typing import Any

TYPE_OF_STATUS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
RETRYABLE = frozenset({429, 500, 502, 503, 504, 529})


class Refusal(Exception):
    """A request that is answered with an error: its status, and the `error` object of the envelope."""

    def __init__(
        self,
        message: str,
        status: int = 400,
        error_code: str | None = None,
        headers: dict[str, str] | None = None,
        should_retry: bool | None = None,
        type: str | None = None,
        details: dict[str, Any] | None = None,
        bare: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.type = type or TYPE_OF_STATUS.get(status, "api_error")
        self.details = {**({"error_code": error_code} if error_code else {}), **(details or {})}
        self.is_bare = bare
        """Whether it comes without any header that says when to ask again."""
        retry = status in RETRYABLE if should_retry is None else should_retry
        self.headers = {"x-should-retry": "true" if retry else "false", **(headers or {})}

    def envelope(self, request_id: str) -> dict[str, Any]:
        error: dict[str, Any] = {"type": self.type, "message": self.message}
        if self.details:
            error["details"] = self.details
        return {"type": "error", "error": error, "request_id": request_id}

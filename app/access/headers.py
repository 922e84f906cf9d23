"""What every answer's head says: the request's id, what a browser may do with it, and which pages may call the API."""

from __future__ import annotations

from flask import Response, current_app, g, request
from werkzeug.wrappers import Response as AnyResponse

CORS_PATHS = ("/v1", "/models", "/chat")
NOT_STORED_PATHS = ("/admin", "/setup", "/config", "/verify")
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
EXPOSED_HEADERS = (
    *("x-gateway-", "x-request-id", "x-ratelimit-", "x-should-retry", "request-id", "retry-after"),
    "anthropic-ratelimit-",
)
PREFLIGHT_HEADERS = "authorization, content-type, x-api-key"


def preflight() -> AnyResponse | None:
    """A browser asks whether a page may call the API; without a CORS question Flask answers OPTIONS itself."""
    origin = _allowed_origin()
    if origin is None or "HTTP_ACCESS_CONTROL_REQUEST_METHOD" not in request.environ:
        return None
    return Response(
        status=204,
        headers={
            "access-control-allow-methods": "GET, POST, OPTIONS",
            "access-control-allow-headers": request.headers.get("access-control-request-headers", PREFLIGHT_HEADERS),
            "access-control-max-age": "600",
        },
    )


def _allowed_origin() -> str | None:
    origins: frozenset[str] = current_app.extensions["dragoman.cors"]
    if not origins:
        return None
    origin = request.environ.get("HTTP_ORIGIN")
    if origin is None or not request.path.startswith(CORS_PATHS):
        return None
    return "*" if "*" in origins else origin if origin in origins else None


def finish(response: Response) -> Response:
    headers = response.headers
    headers["x-gateway-request-id"] = g.get("request_id", "")
    headers.setdefault("x-content-type-options", "nosniff")
    path = request.path
    if current_app.extensions["dragoman.cors"] and path.startswith(CORS_PATHS):
        headers.add("vary", "origin")
        origin = _allowed_origin()
        if origin is not None:
            headers["access-control-allow-origin"] = origin
            exposed = [name for name, _ in headers.items() if name.lower().startswith(EXPOSED_HEADERS)]
            headers["access-control-expose-headers"] = ", ".join(exposed)
    if path.startswith(NOT_STORED_PATHS):
        headers["cache-control"] = "no-store"
    if response.mimetype == "text/html":
        headers.setdefault("content-security-policy", CONTENT_SECURITY_POLICY)
        headers.setdefault("x-frame-options", "DENY")
        headers.setdefault("referrer-policy", "same-origin")
    return response

"""The one place where an error becomes an answer: OpenAI's envelope on API routes, a page under /admin and /setup."""

from __future__ import annotations

import logging
from contextlib import suppress

import orjson
from flask import Flask, Response, g, render_template, request
from gunicorn.http.errors import NoMoreData, ParseException  # type: ignore[import-untyped]  # it comes without types
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from app import errors
from app.access import callers
from app.blueprints.dialect import is_anthropics
from app.errors import GatewayError, in_one_line, shown
from app.services import services, upstream
from app.translate.messages.errors import forwarded, to_anthropic_error

log = logging.getLogger(__name__)
PAGE_PREFIXES = ("/admin", "/setup")


def register_error_handlers(app: Flask) -> None:
    app.register_error_handler(GatewayError, render)
    app.register_error_handler(HTTPException, lambda error: render(from_http(error)))
    for malformed in (ParseException, NoMoreData):  # found while a chunked body is read
        app.register_error_handler(malformed, lambda error: render(_unreadable_body(error)))
    app.register_error_handler(Exception, lambda error: render(_unforeseen(error)))


def render(error: GatewayError) -> Response:
    if error.status >= 500 or (error.status == 429 and isinstance(error, errors.UpstreamError)):
        said = in_one_line(error.message)
        log.warning(
            "%s: %s %s: %s %s: %s", request_id(), request.method, request.path[:100], error.status, error.code, said
        )
    g.error = error
    if is_anthropics():
        return _as_anthropic(error)
    if error.code == "model_not_found":
        error.message += _meant_model(error)
    headers = {"x-request-id": _upstream_request_id(error) or request_id(), **error.headers}
    if request.path.startswith(PAGE_PREFIXES) and request.accept_mimetypes.accept_html and not request.is_json:
        page = render_template("error.html", error=error, request_id=request_id())
        return Response(page, error.status, headers, mimetype="text/html")
    return Response(orjson.dumps(error.body()), error.status, headers, mimetype="application/json")


def _as_anthropic(error: GatewayError) -> Response:
    as_it_is = forwarded(error)
    if as_it_is is not None:
        return Response(as_it_is.body, as_it_is.status, dict(as_it_is.headers))
    if isinstance(error, errors.ModelNotFound):
        error.message = f"model: {error.asked}.{_meant_model(error)}"
    status, headers, body = to_anthropic_error(error, request_id())
    return Response(orjson.dumps(body), status, headers, mimetype="application/json")


def request_id() -> str:
    return str(g.get("request_id", ""))


def _meant_model(error: GatewayError) -> str:
    """Of what this caller may use. Whether Anthropic or we do not know the model makes no difference to a client."""
    asked = error.model if isinstance(error, errors.ModelNotFound) else g.get("model")
    key = g.caller.key
    meant = None
    if asked:
        with suppress(errors.ServiceUnavailable):
            meant = upstream().catalogue.nearest(asked, services().config.snapshot, key.models if key else None)
    return f" Did you mean `{meant}`?" if meant else ""


def _upstream_request_id(error: GatewayError) -> str | None:
    upstream = error.upstream if isinstance(error, errors.UpstreamError) else None
    return upstream["request_id"] if upstream else None


def from_http(error: HTTPException) -> GatewayError:
    """Flask's and Werkzeug's own errors in our words."""
    # The request holds the error, and the frames of both the request: a circle for each 404.
    error.__traceback__ = error.__context__ = None
    status = error.code or 500
    url = f"{request.method} {request.path[:100]}"
    if request.url_rule is None:
        _note_caller()
    if status == 404:
        return errors.NotFound(f"Unknown request URL: {url}. {_what_is_meant()}", code="unknown_url")
    if status == 405:
        methods = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
        return errors.MethodNotAllowed(f"{url} is not possible; allowed: {methods}.", headers={"allow": methods})
    if isinstance(error, RequestEntityTooLarge):
        return body_too_large()
    made: GatewayError = errors.InvalidRequest(error.description or error.name)
    if status >= 500:
        made = errors.GatewayError(error.description or error.name)
    made.status = status
    made.headers.update({k: v for k, v in error.get_headers() if k.lower() not in ("content-type", "content-length")})
    return made


def _what_is_meant() -> str:
    """For whoever set a client up."""
    path = request.path
    base = request.host_url.rstrip("/")
    if path.startswith("/v1/v1/"):
        return f"The base URL of this client is {base}, without /v1: it adds that by itself."
    if path in ("/messages", "/messages/count_tokens"):
        return f"The base URL of this client is {base}/v1: it does not add the /v1 by itself."
    if is_anthropics():
        served = "/v1/messages, /v1/messages/count_tokens and /v1/models"
        return f"Of Anthropic's API this gateway serves {served}."
    return "See /docs for what there is."


def _note_caller() -> None:
    """For the log: nobody had to be let in, since there is no such route."""
    with suppress(errors.Unauthenticated, errors.DatabaseUnavailable):
        if (secret := callers.presented_key()) is not None:
            g.caller = callers.key_caller(secret)


def body_too_large() -> errors.RequestTooLarge:
    limit = request.max_content_length
    return errors.RequestTooLarge(f"The request body is larger than {limit} bytes, the most that is taken here.")


def _unreadable_body(error: Exception) -> GatewayError:
    reason = "it ended too early" if isinstance(error, NoMoreData) else shown(str(error).strip())
    return errors.InvalidRequest(f"The body of your request could not be read: {reason}.")


def _unforeseen(error: Exception) -> GatewayError:
    log.exception(
        "unforeseen error in %s %s, request id %s", request.method, request.path, request_id(), exc_info=error
    )
    return errors.GatewayError(f"The gateway failed on this request. Its id in the log is {request_id()}.")

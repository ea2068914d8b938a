"""Every error in one shape: `{"error": "<a sentence>"}`."""

from flask import Flask, Response, current_app, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, Unauthorized

from hasher.stores import DamagedMessage, Driver, StoreFull, TakenDown, Unusable
from hasher.telemetry.record import RequestRecord, current
from hasher.web.responses import ANY_ORIGIN, NO_STORE, json_response

TAKEN_DOWN = "This message was taken down."
# In place of werkzeug's own texts, which speak of browsers and spelling.
SENTENCES = {
    400: "The request could not be understood.",
    404: "There is nothing here: POST /messages stores a message, GET /messages/<digest> reads it.",
    500: "The service failed to answer; its log says why.",
}


def register(app: Flask, driver: Driver) -> None:
    """Register a handler for everything that can be raised in a request."""
    app.register_error_handler(HTTPException, http_error)
    app.register_error_handler(TakenDown, taken_down)
    app.register_error_handler(StoreFull, store_full)
    app.register_error_handler(Unusable, unusable)
    app.register_error_handler(DamagedMessage, damaged)
    app.register_error_handler(Exception, crashed)
    for error in driver.errors:
        app.register_error_handler(error, unreachable)


def error_response(status: int, sentence: str) -> Response:
    """Return an error. No cache keeps it, since it may be over in a second.

    Pages of any origin may read it if the request was to read a message.
    """
    fields = [*NO_STORE.items()]
    if status == 503:
        fields.append(("Retry-After", "1"))
    if is_message(request.path) and request.method in {"GET", "HEAD"}:
        fields += ANY_ORIGIN
    return json_response({"error": sentence}, status, fields)


def is_message(path: str) -> bool:
    """Return whether `path` is that of a message, whose digest may be malformed."""
    return path.startswith("/messages/")


def http_error(error: HTTPException) -> Response:
    """Return the response to an error that has a status: from `abort`, or from the routing."""
    status = error.code or 500
    response = error_response(status, sentence_for(error, status))
    if isinstance(error, MethodNotAllowed):
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = dict(error.get_headers())["WWW-Authenticate"]
    return response


def sentence_for(error: HTTPException, status: int) -> str:
    """Return the sentence that `abort` was given, or the one for the status."""
    if status == 404 and is_message(request.path):
        return "Message not found."
    if isinstance(error, MethodNotAllowed):
        return f"This address takes {', '.join(sorted(error.valid_methods or ()))}."
    if error.description and error.description != type(error).description:
        return error.description
    return SENTENCES.get(status, SENTENCES[400 if status < 500 else 500])


def taken_down(_: TakenDown) -> Response:
    """Return 410: an operator has taken the message down."""
    return error_response(410, TAKEN_DOWN)


def fault(kind: str) -> RequestRecord:
    """Note why the request fails, for the log and the metrics; return its record."""
    record = current()
    record.fault = kind
    return record


def store_full(_: StoreFull) -> Response:
    """Return 507: a store at its limit takes no new message, and still returns the old ones."""
    fault("full")
    return error_response(507, "The store is full: messages stored already can still be read.")


def unreachable(error: Exception) -> Response:
    """Return 503, and never 404: the message may be in the store that cannot be reached."""
    record = fault("unreachable")
    current_app.logger.error("Request %s: the store cannot be reached: %s", record.id, error)
    return error_response(503, "The store cannot be reached; try again in a moment.")


def unusable(error: Unusable) -> Response:
    """Return 503: the store answers, but could lose messages."""
    record = fault("unusable")
    current_app.logger.error("Request %s: the store must not be used: %s.", record.id, error)
    return error_response(503, f"The store must not be used: {error}.")


def damaged(error: DamagedMessage) -> Response:
    """Return 500 in place of a stored message that no longer matches its digest."""
    record = fault("damaged")
    current_app.logger.error(
        "Request %s: the message stored under %s is damaged: not served.", record.id, error.digest
    )
    return error_response(500, "The stored message is damaged, so it is not served.")


def crashed(error: Exception) -> Response:
    """Return 500 for an unforeseen exception, and log its traceback."""
    record = fault("crashed")
    what = f"{request.method} {request.url_rule}"
    current_app.logger.error("Request %s (%s) failed.", record.id, what, exc_info=error)
    return error_response(500, SENTENCES[500])

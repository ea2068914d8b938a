"""Bodies in: bytes to a validated message."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import IO, NoReturn

import msgspec
from flask import abort
from werkzeug.http import parse_options_header
from werkzeug.wsgi import get_input_stream

from hasher.telemetry.record import Environ, current

OFFERED = (
    "Send the message as application/json or text/plain, or many as application/x-ndjson, "
    "in UTF-8 and without a Content-Encoding."
)
PIECE = 1024 * 1024  # bytes of a body that are read at once

# A high surrogate that no low one follows: msgspec reports it as JSON that ends too early.
LONE_SURROGATE = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])")

KINDS = {
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "bool": "a boolean",
    "null": "null",
    "array": "an array",
    "object": "an object",
}


class Post(msgspec.Struct, gc=False):
    """The JSON body of `POST /messages`, or a line of it."""

    message: str


POST = msgspec.json.Decoder(Post)


def read_message(environ: Environ, limit: int) -> bytes:
    """Return the message in the body of the request, as UTF-8.

    Aborts with 415 if its media type is not offered, with 400 if it holds no message, and as
    `pieces` does.
    """
    decode = DECODERS.get(media_type(environ))
    if decode is None:
        abort(415, OFFERED)
    body = read_body(environ, limit)
    try:
        return decode(body)
    except ValueError as error:
        abort(400, str(error))


def media_type(environ: Environ) -> str:
    """Return the media type of the body, without its parameters."""
    return parsed_type(environ.get("CONTENT_TYPE", ""))[0]


@lru_cache(maxsize=64)
def parsed_type(content_type: str) -> tuple[str, str]:
    """Return the media type and the charset that `content_type` names: UTF-8 if it names none."""
    kind, parameters = parse_options_header(content_type)
    # A charset that werkzeug cannot parse is not in the parameters, and still is not UTF-8.
    default = "" if "charset" in content_type.lower() else "utf-8"
    return kind.lower(), parameters.get("charset", default).lower()


def is_plain_utf8(environ: Environ) -> bool:
    """Return whether the body is UTF-8 as it stands: nothing here inflates or converts."""
    _, charset = parsed_type(environ.get("CONTENT_TYPE", ""))
    coding = environ.get("HTTP_CONTENT_ENCODING", "identity").lower()
    return charset in {"utf-8", "utf8"} and coding == "identity"


def read_body(environ: Environ, limit: int) -> bytes:
    """Return the whole body. Aborts as `pieces` does."""
    return b"".join(pieces(environ, limit))


def discard_body(environ: Environ, limit: int) -> None:
    """Read the body and keep nothing of it. Aborts as `pieces` does."""
    for _ in pieces(environ, limit):
        pass


def pieces(environ: Environ, limit: int) -> Iterator[bytes]:
    """Yield the body in pieces of at most PIECE bytes, to its end.

    Aborts with 400 if it was cut or is malformed, 408 if it stalled, 411 if the server has left it
    in chunks, 413 if it is over `limit` bytes, 415 or 501 if it would have to be converted. A body
    whose announced length is over the limit is not read. A chunked body announces no length, so one
    byte more than the limit is read: if it comes, the body is over the limit.
    """
    announced = acceptable_length(environ, limit)
    left = limit + 1 if announced is None else announced
    stream = input_of(environ)
    while left and (piece := read(stream, min(left, PIECE))):
        left -= len(piece)
        yield piece
    if announced is None and not left:
        refuse_as_too_large(limit)
    if announced is not None and left:
        abort(400, "The body ended before its Content-Length.")
    record = current()
    record.received = limit + 1 - left if announced is None else announced
    record.body_read = True


def acceptable_length(environ: Environ, limit: int) -> int | None:
    """Return the announced length of the body, or None if it is chunked.

    Aborts as `pieces` does.
    """
    if not is_plain_utf8(environ):
        abort(415, OFFERED)
    coding = environ.get("HTTP_TRANSFER_ENCODING")
    if coding is not None:
        require_decoded(coding, environ)
    announced = announced_length(environ) if coding is None else None
    if announced is not None and announced > limit:
        refuse_as_too_large(limit)
    return announced


def require_decoded(coding: str, environ: Environ) -> None:
    """Abort with 501 if `coding` is not chunked, and with 411 if the server leaves it undecoded.

    Such a server passes on the chunks as they are, or an empty body.
    """
    if coding.lower() != "chunked":
        abort(501, "Transfer-Encoding can only be chunked.")
    if not environ.get("wsgi.input_terminated"):
        abort(411, "Send the body with a Content-Length: this server does not decode chunks.")


def announced_length(environ: Environ) -> int | None:
    """Return the Content-Length, or None."""
    try:
        return max(0, int(environ["CONTENT_LENGTH"]))
    except (KeyError, ValueError):
        return None


def refuse_as_too_large(limit: int) -> NoReturn:
    """Abort with 413."""
    abort(413, f"The body is over the limit of {limit} bytes.")


def input_of(environ: Environ) -> IO[bytes]:
    """Return the stream of the body, which ends with the body."""
    if environ.get("wsgi.input_terminated"):  # as gunicorn's does: werkzeug has nothing to add
        stream: IO[bytes] = environ["wsgi.input"]
        return stream
    return get_input_stream(environ)


def read(stream: IO[bytes], size: int) -> bytes:
    """Return the next `size` bytes, or what is left. 400 or 408 if the server cannot read them."""
    try:
        return stream.read(size)
    except (BlockingIOError, TimeoutError):
        abort(408, "The body did not arrive in time; send it again.")
    except Exception:  # noqa: BLE001 - each WSGI server has its own for a malformed or cut chunk
        abort(400, "The body is malformed or was cut: its chunks could not be read.")


def from_json(body: bytes, subject: str = "The body") -> bytes:
    """Return the `message` of a JSON object. ValueError says what is wrong with `subject`."""
    text = utf8(body, subject)
    try:
        return POST.decode(text).message.encode()
    except RecursionError:
        raise ValueError(f"{subject} is not acceptable JSON: it is nested too deep.") from None
    except msgspec.DecodeError as error:
        raise ValueError(complaint(text, str(error), subject)) from None


def from_text(body: bytes) -> bytes:
    """Return the body itself. ValueError if it is not UTF-8."""
    utf8(body)
    return body


DECODERS = {"application/json": from_json, "text/plain": from_text}


def utf8(body: bytes, subject: str = "The body") -> str:
    """Return the body decoded. ValueError if it is not UTF-8."""
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{subject} is not valid UTF-8 (at byte {error.start}).") from None


def complaint(text: str, error: str, subject: str) -> str:
    """Return the `error` of msgspec about `text` as a sentence for the sender."""
    expected = re.fullmatch(r"Expected `\w+`, got `(\w+)`( - at `\$\.message`)?", error)
    if expected:
        kind, in_message = KINDS[expected[1]], expected[2]
        start = "message must be a string" if in_message else f"{subject} must be a JSON object"
        return f"{start}, got {kind}."
    if error.startswith("Number out of range"):
        return "message must be a string, got a number."
    if error.startswith("Object missing"):
        return f'{subject} must have a "message".'
    if not text.strip():
        return f"{subject} is empty."
    if LONE_SURROGATE.search(text):
        return f"{subject} has a lone surrogate escape, which has no UTF-8 form."
    malformed = re.fullmatch(r"JSON is malformed: (.*)", error)
    reason = malformed[1] if malformed else "it is truncated"
    return f"{subject} is not valid JSON: {reason}."

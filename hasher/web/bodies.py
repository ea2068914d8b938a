"""Bodies in: bytes to validated messages."""

import re
from collections.abc import Iterator
from functools import lru_cache

import msgspec
from flask import abort
from werkzeug.http import parse_options_header
from werkzeug.wsgi import get_content_length, get_input_stream

from hasher.telemetry.record import Environ, current

NEWLINE = b"\n"
OFFERED = (
    "Send the message as application/json or text/plain, or many as application/x-ndjson, "
    "in UTF-8 and without a Content-Encoding."
)
PIECE = 256 * 1024  # bytes of lines decoded at once: other threads wait meanwhile

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
    """The message in the body of the request in `environ`, as UTF-8.

    Aborts with 400 where there is none, 413 where the body is over `limit` bytes, 415 where its
    media type, charset or content coding is not offered, and 408 where the client stalls.
    """
    decode = DECODERS.get(media_type(environ))
    if decode is None:
        abort(415, OFFERED)
    body = read_body(environ, limit)
    try:
        return decode(body)
    except ValueError as error:
        abort(400, str(error))


def read_messages(environ: Environ, limit: int, each: int) -> list[bytes]:
    """The messages in the lines of the body of the request, as UTF-8, in their order.

    Aborts as `read_message` does, and with 413 where a message is over `each` bytes; the sentence
    begins with the line's number.
    """
    messages: list[bytes] = []
    line = 1
    for piece in pieces(read_body(environ, limit)):
        messages += from_lines(piece, line, each)
        line += piece.count(NEWLINE)
    if not messages:
        abort(400, "The body is empty.")
    return messages


def pieces(body: bytes) -> Iterator[bytes]:
    """`body` in parts of whole lines, none of which is much larger than PIECE or its one line."""
    start = 0
    while start < len(body):
        end = body.find(NEWLINE, start + PIECE) + 1 or len(body)
        yield body[start:end]
        start = end


def from_lines(lines: bytes, first: int, each: int) -> list[bytes]:
    """The messages in `lines`, the number of whose first is `first`, or 400 or 413."""
    try:
        utf8(lines)
        messages = [post.message.encode() for post in POST.decode_lines(lines)]
    except (ValueError, msgspec.DecodeError, RecursionError):
        messages = []
    # msgspec does not tell which line is wrong, and takes objects wherever they end.
    ends = lines.count(NEWLINE) + (not lines.endswith(NEWLINE))
    begins = lines.count(NEWLINE + b"{") + lines.startswith(b"{")
    if len(messages) == ends == begins and all(len(message) <= each for message in messages):
        return messages
    return one_by_one(lines, first, each)


def one_by_one(lines: bytes, first: int, each: int) -> list[bytes]:
    """As `from_lines`, slower, and naming the line that is wrong. Empty lines are passed over."""
    messages = []
    for number, line in enumerate(lines.split(NEWLINE), first):
        if not line.strip():
            continue
        try:
            messages.append(from_json(line))
        except ValueError as error:
            abort(400, f"line {number}: {str(error).replace('The body', 'it')}")
        if len(messages[-1]) > each:
            abort(413, f"line {number}: the message is over the limit of {each} bytes.")
    return messages


def media_type(environ: Environ) -> str:
    """The media type of the body, without its parameters."""
    return parsed_type(environ.get("CONTENT_TYPE", ""))[0]


@lru_cache(maxsize=64)
def parsed_type(content_type: str) -> tuple[str, str]:
    """The media type and the charset that `content_type` names: UTF-8 where it names none."""
    kind, parameters = parse_options_header(content_type)
    # A charset that werkzeug cannot parse is not in the parameters, and still is no UTF-8.
    default = "" if "charset" in content_type.lower() else "utf-8"
    return kind.lower(), parameters.get("charset", default).lower()


def is_plain_utf8(environ: Environ) -> bool:
    """Whether the body says that it is UTF-8 as it stands: nothing here inflates or converts."""
    _, charset = parsed_type(environ.get("CONTENT_TYPE", ""))
    coding = environ.get("HTTP_CONTENT_ENCODING", "identity").lower()
    return charset in {"utf-8", "utf8"} and coding == "identity"


def read_body(environ: Environ, limit: int) -> bytes:
    """The whole body, which is UTF-8 by what its headers say.

    Aborts with 400 where it was cut or malformed, 408 where it stalled, 413 where it is over
    `limit` bytes, 415 or 501 where it would have to be converted. A length that is announced is
    refused unread. A chunked body announces none, so one byte more than the limit is asked for:
    its arrival tells a body over the limit from one that fills it.
    """
    if not is_plain_utf8(environ):
        abort(415, OFFERED)
    if environ.get("HTTP_TRANSFER_ENCODING", "chunked").lower() != "chunked":
        abort(501, "Transfer-Encoding can only be chunked.")
    announced = get_content_length(environ)
    if announced is not None and announced > limit:
        abort(413, f"The body is over the limit of {limit} bytes.")
    body = read_stream(environ, limit + 1)
    if len(body) > limit:
        abort(413, f"The body is over the limit of {limit} bytes.")
    if announced is not None and len(body) < announced:
        abort(400, "The body ended before its Content-Length.")
    record = current()
    record.received, record.body_read = len(body), True
    return body


def read_stream(environ: Environ, size: int) -> bytes:
    """At most `size` bytes of the body; 400 or 408 where the server could not read them."""
    try:
        return get_input_stream(environ).read(size)
    except (BlockingIOError, TimeoutError):
        abort(408, "The body did not arrive in time; send it again.")
    except Exception:  # noqa: BLE001 - each WSGI server has its own for a malformed or cut chunk
        abort(400, "The body is malformed or was cut: its chunks could not be read.")


def from_json(body: bytes) -> bytes:
    """The `message` of a JSON object, or ValueError with what is wrong with it, in a sentence."""
    text = utf8(body)
    try:
        return POST.decode(text).message.encode()
    except RecursionError:
        raise ValueError("The body is not acceptable JSON: it is nested too deep.") from None
    except msgspec.DecodeError as error:
        raise ValueError(complaint(text, str(error))) from None


def from_text(body: bytes) -> bytes:
    """The body itself, or ValueError where it is not UTF-8."""
    utf8(body)
    return body


DECODERS = {"application/json": from_json, "text/plain": from_text}


def utf8(body: bytes) -> str:
    """The body decoded, or ValueError."""
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"The body is not valid UTF-8 (at byte {error.start}).") from None


def complaint(text: str, error: str) -> str:
    """What msgspec says in `error` about `text` as a sentence for the person who sent it."""
    expected = re.fullmatch(r"Expected `\w+`, got `(\w+)`( - at `\$\.message`)?", error)
    if expected:
        kind, in_message = KINDS[expected[1]], expected[2]
        start = "message must be a string" if in_message else "The body must be a JSON object"
        return f"{start}, got {kind}."
    if error.startswith("Number out of range"):
        return "message must be a string, got a number."
    if error.startswith("Object missing"):
        return 'The body must have a "message".'
    if not text.strip():
        return "The body is empty."
    if LONE_SURROGATE.search(text):
        return "The body has a lone surrogate escape, which has no UTF-8 form."
    reason = error.removeprefix("JSON is malformed: ").replace("Input data was", "it is")
    return f"The body is not valid JSON: {reason}."

"""The two routes: store a message, read it back."""

from base64 import b64encode

from flask import Blueprint, Response, abort

from hasher.stores.messages import Messages
from hasher.telemetry.record import Environ
from hasher.web import bodies, permission, responses
from hasher.web.bulk import BulkReader
from hasher.web.short_way import current_application, current_environ

messages = Blueprint("messages", __name__)


@messages.post("/messages")
def post_message() -> Response:
    """Store the message in the body: 201 when it is new, 200 when it was stored already."""
    environ = current_environ()
    config = current_application().config
    permission.require(environ, config["WRITE_TOKENS"])
    if bodies.media_type(environ) == responses.NDJSON:
        return post_messages(environ)
    message = bodies.read_message(environ, config["MAX_MESSAGE_BYTES"])
    digest, new = store().put(message)
    status = 201 if new else 200
    return responses.json_response({"digest": digest}, status, {"Location": f"/messages/{digest}"})


def post_messages(environ: Environ) -> Response:
    """Store the messages in the lines of the body: 200 with the digest of each."""
    with bulk_reader().messages(environ) as found:
        digests = store().put_allowed(found)
    return responses.digests_response(digests)


@messages.get("/messages/<digest:digest>")
def get_message(digest: str) -> Response:
    """Answer the message as JSON."""
    body = responses.as_json({"message": read(digest).decode()})
    return responses.cacheable(body, responses.JSON, digest)


@messages.get("/messages/<digest:digest>.txt")
def get_text(digest: str) -> Response:
    """Answer the message itself, with its digest in a header (RFC 9530)."""
    digest_in_base64 = b64encode(bytes.fromhex(digest)).decode()
    proof = [("Repr-Digest", f"sha-256=:{digest_in_base64}:")]
    return responses.cacheable(read(digest), responses.TEXT, f"{digest}.txt", proof)


def read(digest: str) -> bytes:
    """Return the stored message; 404 if there is none, 410 if it was taken down."""
    message = store().get(digest)
    if message is None:
        abort(404)
    return message


def store() -> Messages:
    """Return the store that the application was made with."""
    opened: Messages = current_application().extensions["messages"]
    return opened


def bulk_reader() -> BulkReader:
    """Return the reader of the application's bulk requests."""
    reader: BulkReader = current_application().extensions["bulk"]
    return reader

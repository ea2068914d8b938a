"""The two routes: store a message, read it back."""

from base64 import b64encode

from flask import Blueprint, Response, abort, current_app, request

from hasher import media, permission
from hasher.digest import digest, verified
from hasher.lean import Environ
from hasher.stores import Store

messages = Blueprint("messages", __name__)


@messages.post("/messages")
def post_message() -> Response:
    """Store the message in the body: 201 when it is new, 200 when it was stored already."""
    environ = request.environ
    config = current_app.config
    permission.require(environ, config["WRITE_TOKENS"])
    if media.media_type(environ) == media.NDJSON:
        return post_messages(environ)
    message = media.read_message(environ, config["MAX_MESSAGE_BYTES"])
    name = digest(message)
    status = 201 if store().put(name, message) else 200
    return media.json_response({"digest": name}, status, {"Location": f"/messages/{name}"})


def post_messages(environ: Environ) -> Response:
    """Store the messages in the lines of the body: 200 with the digest of each."""
    limits = current_app.config["MAX_BULK_BYTES"], current_app.config["MAX_MESSAGE_BYTES"]
    found = media.read_messages(environ, *limits)
    names = [digest(message) for message in found]
    store().put_many(list(dict(zip(names, found, strict=True)).items()))
    return media.digests_response(names)


@messages.get("/messages/<digest:name>")
def get_message(name: str) -> Response:
    """The message as JSON."""
    body = media.as_json({"message": read(name).decode()})
    return media.cacheable(body, media.JSON, etag=name)


@messages.get("/messages/<digest:name>.txt")
def get_text(name: str) -> Response:
    """The message itself, with a digest header that equals the one in the address (RFC 9530)."""
    digest_in_base64 = b64encode(bytes.fromhex(name)).decode()
    proof = {"Repr-Digest": f"sha-256=:{digest_in_base64}:"}
    return media.cacheable(read(name), media.TEXT, etag=f"{name}.txt", **proof)


def read(name: str) -> bytes:
    """The message stored under `name`, hashed again before anybody sees it; 404 without one."""
    message = store().get(name)
    if message is None:
        abort(404)
    return verified(message, name)


def store() -> Store:
    """The store that the application was made with."""
    opened: Store = current_app.extensions["store"]
    return opened

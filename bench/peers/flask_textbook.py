"""With Flask, as tutorials teach it."""

import hashlib
from threading import Lock

from flask import Flask, Response, abort, jsonify, request

app = Flask(__name__)
messages: dict[str, str] = {}
lock = Lock()


@app.post("/messages")
def post_message() -> tuple[Response, int]:
    """Store the message; 201 when it is new, 200 when it was stored already."""
    body = request.get_json()
    if not isinstance(body, dict) or not isinstance(body.get("message"), str):
        abort(400)
    message = body["message"]
    digest = hashlib.sha256(message.encode()).hexdigest()
    with lock:
        new = digest not in messages
        messages[digest] = message
    return jsonify(digest=digest), 201 if new else 200


@app.get("/messages/<digest>")
def get_message(digest: str) -> tuple[Response, int]:
    """The message, or 404."""
    with lock:
        message = messages.get(digest)
    if message is None:
        return jsonify(error="Message not found."), 404
    return jsonify(message=message), 200

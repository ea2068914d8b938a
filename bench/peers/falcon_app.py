"""With Falcon."""

import json
from functools import partial
from hashlib import sha256
from threading import Lock
from typing import Any

import falcon

messages: dict[str, str] = {}
lock = Lock()
compact = partial(json.dumps, separators=(",", ":"), ensure_ascii=False)


class Messages:
    """`/messages`."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Store the message; 201 when it is new, 200 when it was stored already."""
        body = req.get_media()
        if not isinstance(body, dict) or not isinstance(body.get("message"), str):
            raise falcon.HTTPBadRequest(title="A message is needed.")
        message = body["message"]
        digest = sha256(message.encode()).hexdigest()
        with lock:
            new = digest not in messages
            messages[digest] = message
        resp.status = falcon.HTTP_201 if new else falcon.HTTP_200
        resp.media = {"digest": digest}


class Message:
    """`/messages/<digest>`."""

    def on_get(self, _req: falcon.Request, resp: falcon.Response, digest: str) -> None:
        """The message, or 404."""
        with lock:
            message = messages.get(digest)
        if message is None:
            resp.status = falcon.HTTP_404
            resp.media = {"error": "Message not found."}
        else:
            resp.media = {"message": message}


def line(body: Any) -> str:
    """JSON in a line, which Falcon writes with spaces and without an end by default."""
    return compact(body) + "\n"


app = falcon.App()
app.resp_options.media_handlers[falcon.MEDIA_JSON] = falcon.media.JSONHandler(dumps=line)
app.add_route("/messages", Messages())
app.add_route("/messages/{digest}", Message())

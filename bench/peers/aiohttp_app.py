"""With aiohttp and its own server. All runs in one thread: the dict needs no lock."""

import json
import sys
from hashlib import sha256
from typing import Any

import uvloop
from aiohttp import web

messages: dict[str, str] = {}


async def post_message(request: web.Request) -> web.Response:
    """Store the message; 201 when it is new, 200 when it was stored already."""
    try:
        message = (await request.json())["message"]
        digest = sha256(message.encode()).hexdigest()
    except (ValueError, LookupError, TypeError, AttributeError):
        raise web.HTTPBadRequest from None
    new = digest not in messages
    messages[digest] = message
    return line({"digest": digest}, 201 if new else 200)


async def get_message(request: web.Request) -> web.Response:
    """The message, or 404."""
    message = messages.get(request.match_info["digest"])
    if message is None:
        return line({"error": "Message not found."}, 404)
    return line({"message": message})


def line(body: Any, status: int = 200) -> web.Response:
    """JSON in a line."""
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False) + "\n"
    return web.Response(text=text, status=status, content_type="application/json")


if __name__ == "__main__":
    app = web.Application()
    app.router.add_post("/messages", post_message)
    app.router.add_get("/messages/{digest}", get_message)
    loop = uvloop.new_event_loop()
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, loop=loop)

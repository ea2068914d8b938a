"""With FastAPI, for uvicorn. All runs in one thread: the dict needs no lock."""

from hashlib import sha256
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel

app = FastAPI()
messages: dict[str, str] = {}


class Body(BaseModel):
    """What a POST brings."""

    message: str


class Line(JSONResponse):
    """JSON that ends with a newline."""

    def render(self, content: Any) -> bytes:
        """The body."""
        body: bytes = super().render(content)
        return body + b"\n"


@app.post("/messages")
async def post_message(body: Body) -> Line:
    """Store the message; 201 when it is new, 200 when it was stored already."""
    digest = sha256(body.message.encode()).hexdigest()
    new = digest not in messages
    messages[digest] = body.message
    return Line({"digest": digest}, 201 if new else 200)


@app.get("/messages/{digest}")
async def get_message(digest: str) -> Line:
    """The message, or 404."""
    message = messages.get(digest)
    if message is None:
        return Line({"error": "Message not found."}, 404)
    return Line({"message": message})

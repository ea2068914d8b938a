"""Random streams of bytes that are requests, or nearly so, for sockets.py."""

import random

from tests.leader_worker.differential import mutated, request

END = "\r\n"
PATHS = ["/echo"] * 8 + [
    "/closes",
    "/environment",
    "/hello",
    "/no-content",
    "/no-length",
    "/stream",
    "/swallow",
    "/unread",
    "/written",
]
METHODS = ["POST"] * 6 + ["GET", "GET", "PUT", "HEAD", "OPTIONS"]
BODIES = [b"", b"a", b"hello", b"\r\n", b"0\r\n\r\n", b"x" * 300, b"x" * 9000]
LENGTHS = [
    "{}",
    "{}",
    "0{}",
    "0000000000000000000000{}",
    " {} ",
    "\t{}",
    "+{}",
    "-{}",
    "{}, {}",
    "{}.0",
    "0x{}",
    "{}_0",
    "{}e0",
    "",
    "99999999999999999999",
    "9223372036854775807",
    "9" * 4400,
    "\u00b2",
]
SIZES = ["{:x}"] * 12 + [
    "{:X}",
    "0{:x}",
    "0000000000000000000000{:x}",
    "{:x} ",
    " {:x}",
    "{:x}\t",
    "+{:x}",
    "-{:x}",
    "0x{:x}",
    "{:x}_",
    "",
    "7fffffffffffffff",
    "ffffffffffffffff",
    "f" * 40,
    "{:x}g",
]
EXTENSIONS = [""] * 12 + [
    ";",
    ";a",
    "; a",
    " ;a=b",
    ";a=b;c",
    ';a="b c"',
    ';a="b;\\"c"',
    ';a="b',
    ";a=\u00e9",
    ";a\rb",
    ";" + "a" * 300,
    ";" + "a" * 8000,
    ";" + "a" * 100_000,
]
TRAILERS = [""] * 8 + [
    "X-1: a\r\n",
    "X-1: a\r\nX-2: b\r\n",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Host: b\r\n",
    "X-1 : a\r\n",
    "X-1: a\n",
    " folded\r\n",
    "X: " + "a" * 9000 + "\r\n",
    "X_1: a\r\n",
]
ENDS = [END] * 20 + ["\n", "\r", "", "\r\r\n"]
CONNECTIONS = [
    "close",
    "Close",
    "keep-alive",
    "keep-alive, close",
    "close, keep-alive",
    "close,",
    "TE, close",
    "closed",
    "upgrade",
    "",
]
CODINGS = ["chunked"] * 12 + [
    "Chunked",
    " chunked ",
    "chunked, chunked",
    "gzip, chunked",
    "identity",
    "identity, chunked",
    "gzip",
    "x",
    "",
]
EXPECTATIONS = ["100-continue", "100-Continue", "100-continue, a", "200-ok", ""]
VERSIONS = ["HTTP/1.1"] * 6 + ["HTTP/1.0"]


def stream(chance: random.Random) -> bytes:
    """Return one to four requests, one behind the other; some are changed or cut."""
    sent = b"".join(one(chance) for _ in range(chance.choice([1, 1, 1, 2, 2, 3, 4])))
    if chance.random() < 0.3:
        sent = mutated(sent, chance)
    if chance.random() < 0.1:
        sent = sent[: chance.randrange(len(sent) + 1)]
    return sent or b"\r\n"


def one(chance: random.Random) -> bytes:
    """Return a request of any kind."""
    kind = chance.choice([plain, odd_length, chunked, chunked, chunked, other])
    return kind(chance)


def other(chance: random.Random) -> bytes:
    """Return one as the fast lane is tested with, to a path that exists if it is the usual one."""
    return request(chance).replace(b"/messages ", b"/echo ")


def head(chance: random.Random, *framing: str) -> bytes:
    """Return a head with these fields, and some others."""
    fields = list(framing)
    if chance.random() < 0.97:
        fields.append("Host: a")
    if chance.random() < 0.2:
        fields.append(f"Connection: {chance.choice(CONNECTIONS)}")
    if chance.random() < 0.06:
        fields.append(f"Connection: {chance.choice(CONNECTIONS)}")
    if chance.random() < 0.1:
        fields.append(f"Expect: {chance.choice(EXPECTATIONS)}")
    if chance.random() < 0.2:
        fields.append("X-1: a")
    chance.shuffle(fields)
    first = f"{chance.choice(METHODS)} {chance.choice(PATHS)} {chance.choice(VERSIONS)}"
    return END.join([first, *fields, "", ""]).encode("latin-1")


def body(chance: random.Random) -> bytes:
    """Return a body, now and then one that takes several packets."""
    return b"y" * 70_000 if chance.random() < 0.01 else chance.choice(BODIES)


def plain(chance: random.Random) -> bytes:
    """Return a request whose body has its length."""
    content = body(chance)
    framing = [f"Content-Length: {len(content)}"] if content or chance.random() < 0.3 else []
    return head(chance, *framing) + content


def odd_length(chance: random.Random) -> bytes:
    """Return one with an odd length, or two."""
    content = body(chance)
    count = 2 if chance.random() < 0.1 else 1
    forms = [chance.choice(LENGTHS).format(len(content), len(content)) for _ in range(count)]
    return head(chance, *[f"Content-Length:{form}" for form in forms]) + content


def chunked(chance: random.Random) -> bytes:
    """Return one whose body comes in chunks; some are no chunks."""
    framing = [f"Transfer-Encoding: {chance.choice(CODINGS)}"]
    if chance.random() < 0.03:
        framing.append(chance.choice(["Content-Length: 5", "Transfer-Encoding: chunked"]))
    odd = chance.random() < 0.4
    chunks = [chunk(chance, odd=odd) for _ in range(chance.choice([0, 1, 1, 2, 3, 30]))]
    last = chunk(chance, b"", odd=odd)[:-2] if odd else b"0\r\n"
    trailers = chance.choice(TRAILERS) if odd else ""
    if odd and chance.random() < 0.05:
        trailers = "X-1: a\r\n" * chance.randrange(90, 110)
    content = b"".join(chunks) + last + (trailers + END).encode("latin-1")
    if odd and chance.random() < 0.3:
        content = mutated(content, chance)
    return head(chance, *framing) + content


def chunk(chance: random.Random, data: bytes | None = None, *, odd: bool) -> bytes:
    """Return a chunk, in one of the odd forms if `odd` says so."""
    data = chance.choice(BODIES[1:]) if data is None else data
    form, extension, ends = "{:x}", "", (END, END)
    if odd and chance.random() < 0.4:
        form, extension = chance.choice(SIZES), chance.choice(EXTENSIONS)
        ends = chance.choice(ENDS), chance.choice(ENDS)
    size = (form.format(len(data)) + extension + ends[0]).encode("latin-1")
    return size + data + ends[1].encode()


def packets(sent: bytes, chance: random.Random) -> list[bytes]:
    """Return the stream in pieces."""
    count = min(chance.choice([0, 0, 1, 2, 5, 20]), len(sent) - 1)
    cuts = sorted(chance.sample(range(1, len(sent)), count)) if count > 0 else []
    return [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]

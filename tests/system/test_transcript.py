"""The three steps of the original service, over a real socket."""

from tests.support.service import Service

FOO = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"


def test_the_original_transcript(service: Service) -> None:
    unknown = service.get(FOO)
    assert (unknown.status, unknown.body) == (404, b'{"error":"Message not found."}\n')
    assert unknown.headers["Content-Length"] == "31"

    stored = service.request(
        "POST", "/messages", b'{"message": "foo"}', {"Content-Type": "application/json"}
    )
    assert (stored.status, stored.json) == (201, {"digest": FOO})

    known = service.get(FOO)
    assert (known.status, known.body) == (200, b'{"message":"foo"}\n')

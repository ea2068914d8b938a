"""What is counted, in one process; tests/system/test_metrics.py has several."""

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from hasher import create_app
from hasher.settings import Settings
from hasher.stores import Driver, Stored
from hasher.stores.memory import MemoryDriver
from hasher.stores.tombstone import MARK
from tests.unit.test_errors import Broken

FOO = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(client: FlaskClient) -> Samples:
    """Every sample by its name and labels."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


class Difference:
    """How much the samples grow from one look to the next."""

    def __init__(self, client: FlaskClient) -> None:
        self.client, self.before = client, samples(client)

    def of(self, name: str, **labels: str) -> float:
        """The growth of one sample since the start."""
        key = (name, tuple(sorted(labels.items())))
        return samples(self.client).get(key, 0) - self.before.get(key, 0)


def test_requests_are_counted_by_route_method_and_status(client: FlaskClient) -> None:
    grown = Difference(client)
    client.post("/messages", json={"message": "foo"})
    client.post("/messages", json={"message": "foo"})
    client.get(f"/messages/{FOO}")
    client.get(f"/messages/{FOO}.txt")
    client.get(f"/messages/{'0' * 64}")
    client.open("/messages", method="BREW")
    client.get("/any/thing")
    name, one, message = "hasher_requests_total", "/messages", "/messages/<digest>"
    assert grown.of(name, method="POST", route=one, status="201") == 1
    assert grown.of(name, method="POST", route=one, status="200") == 1
    assert grown.of(name, method="GET", route=message, status="200") == 1
    assert grown.of(name, method="GET", route=f"{message}.txt", status="200") == 1
    assert grown.of(name, method="GET", route=message, status="404") == 1
    assert grown.of(name, method="other", route="other", status="405") == 1
    assert grown.of(name, method="GET", route="other", status="404") == 1
    assert grown.of("hasher_request_duration_seconds_count", method="POST", route=one) == 2


def test_what_was_taken_down_is_counted_when_it_is_read_or_sent(
    client: FlaskClient, store: Driver
) -> None:
    store.remove(FOO, MARK)
    grown = Difference(client)
    client.get(f"/messages/{FOO}")
    client.post("/messages", json={"message": "foo"})
    name = "hasher_requests_total"
    assert grown.of(name, method="GET", route="/messages/<digest>", status="410") == 1
    assert grown.of(name, method="POST", route="/messages", status="410") == 1
    assert sum(grown.of("hasher_messages_total", outcome=one) for one in Stored._fields) == 0


def test_messages_and_bytes_are_counted(client: FlaskClient) -> None:
    grown = Difference(client)
    for text in ("foo", "foo", "bar"):
        client.post("/messages", data=text, content_type="text/plain")
    assert grown.of("hasher_messages_total", outcome="new") == 2
    assert grown.of("hasher_messages_total", outcome="repeated") == 1
    assert grown.of("hasher_received_bytes_total") == 9
    assert grown.of("hasher_store_operation_duration_seconds_count", operation="put") == 3


@pytest.mark.parametrize(
    ("failure", "kind"), [(ConnectionError(), "unreachable"), (ValueError(), "other")]
)
def test_errors_of_the_store_are_counted(failure: Exception, kind: str) -> None:
    client = create_app(Settings(), store=Broken(failure)).test_client()
    grown = Difference(client)
    client.get(f"/messages/{FOO}")
    assert grown.of("hasher_store_errors_total", operation="get", error=kind) == 1


def test_a_full_store_is_counted() -> None:
    client = create_app(Settings(), store=MemoryDriver(limit=0)).test_client()
    grown = Difference(client)
    client.post("/messages", json={"message": "foo"})
    assert grown.of("hasher_store_errors_total", operation="put", error="full") == 1
    assert grown.of("hasher_messages_total", outcome="new") == 0


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"message":"foo"}'),
        ("application/x-ndjson", b'{"message":"bar"}\n{"message":"foo"}\n{"message":"foo"}\n'),
    ],
)
def test_a_damaged_message_that_is_sent_again_is_mended_and_counted(
    client: FlaskClient, store: Driver, content_type: str, body: bytes
) -> None:
    store.put(FOO, b"fop")
    assert client.get(f"/messages/{FOO}").status_code == 500
    grown = Difference(client)
    assert client.post("/messages", data=body, content_type=content_type).status_code == 200
    assert grown.of("hasher_messages_total", outcome="mended") == 1
    assert client.get(f"/messages/{FOO}").json == {"message": "foo"}


def test_a_damaged_message_is_counted() -> None:
    store = MemoryDriver(limit=1000)
    store.put(FOO, b"not foo")
    client = create_app(Settings(), store=store).test_client()
    grown = Difference(client)
    client.get(f"/messages/{FOO}")
    assert grown.of("hasher_damaged_messages_total") == 1


def test_nothing_is_in_flight_but_the_question_itself(client: FlaskClient) -> None:
    client.get("/nowhere")
    assert samples(client)["hasher_requests_in_flight", ()] == 1


def test_what_runs_is_told(client: FlaskClient) -> None:
    (labels,) = [labels for name, labels in samples(client) if name == "hasher_build_info"]
    assert dict(labels)["store"] == "memory"


def test_the_answer_is_not_for_caches(client: FlaskClient) -> None:
    answer = client.get("/metrics")
    assert answer.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"


def test_metrics_can_be_switched_off() -> None:
    client = create_app(Settings(metrics="off"), store=MemoryDriver(limit=0)).test_client()
    assert client.get("/metrics").status_code == 404

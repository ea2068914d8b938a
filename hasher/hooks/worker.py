"""gunicorn's worker, with refusals in the shape of hasher.web.errors."""

import msgspec

from hasher.telemetry.record import request_id
from leader_worker import Worker as LeaderWorker


class Worker(LeaderWorker):
    """The worker class, whose refusals look like the application's errors."""

    def refusal(self, sentence: str, request_id: str) -> tuple[list[tuple[str, str]], bytes]:
        """Return the header fields and the body of a refusal."""
        fields = [
            ("Content-Type", "application/json"),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Request-ID", request_id),
        ]
        return fields, msgspec.json.encode({"error": sentence}) + b"\n"

    def request_id(self) -> str:
        """Return an id for the request, as the application does."""
        return request_id()

"""gunicorn's worker, with refusals in the shape of hasher.web.errors."""

import msgspec

from hasher.telemetry.record import request_id
from leader_worker import Worker as LeaderWorker


class Worker(LeaderWorker):
    """The worker class. What it answers to what is not HTTP looks as the application's errors."""

    def refusal(self, sentence: str, request_id: str) -> tuple[list[tuple[str, str]], bytes]:
        """Return the header fields and the body of such an answer."""
        fields = [
            ("Content-Type", "application/json"),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Request-ID", request_id),
        ]
        return fields, msgspec.json.encode({"error": sentence}) + b"\n"

    def request_id(self) -> str:
        """Return a name for the request, as the application gives."""
        return request_id()

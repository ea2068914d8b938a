"""How far long work has come: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from types import TracebackType
from typing import Any, Self

import click

EVERY = 5.0  # seconds between plain lines


class Progress:
    """Counts what is done, with the rate and the time left, on standard error.

    `total` is None where nobody knows how much there is to do.
    """

    def __init__(self, done: str, total: int | None = None) -> None:
        self._label, self._total = done, total
        self._count = 0
        self._started = self._said = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Self:
        if self._total and sys.stderr.isatty():
            self._bar = click.progressbar(
                length=self._total,
                label=self._label,
                file=sys.stderr,
                show_pos=True,
                item_show_func=lambda _: self._rate(),
                update_min_steps=max(1, self._total // 1000),
            ).__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.__exit__(kind, error, trace)
        click.echo(self._line(), err=True)

    def advance(self, count: int) -> None:
        """Count some more as done."""
        self._count += count
        if self._bar:
            self._bar.update(count, current_item=self._count)
        elif time.monotonic() - self._said >= EVERY:
            self._said = time.monotonic()
            click.echo(self._line(), err=True)

    def _rate(self) -> str:
        elapsed = time.monotonic() - self._started
        return f"{self._count / max(elapsed, 0.001):,.0f}/s"

    def _line(self) -> str:
        if self._total is None:
            return f"{self._label} {self._count:,}: {self._rate()}"
        left = max(self._total - self._count, 0)
        seconds = left * (time.monotonic() - self._started) / max(self._count, 1)
        end = f", {seconds:.0f} s left" if left else ""
        return f"{self._label} {self._count:,} of {self._total:,}: {self._rate()}{end}"

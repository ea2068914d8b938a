"""`flask store ...`: what an operator does to a store, whether a service is using it or not."""

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import chain
from typing import BinaryIO

import click
import msgspec
from flask.cli import AppGroup

from hasher.messages import store as store_of_app
from hasher.progress import Progress
from hasher.stores import DamagedMessage, StoreFull, Unusable, locate
from hasher.stores.messages import Messages, digest_of
from hasher.web.application import DigestConverter
from hasher.web.bodies import Post, from_json
from hasher.web.bulk import NEWLINE

BATCH_MESSAGES, BATCH_BYTES = 5000, 4 * 1024 * 1024  # put in one step; whichever comes first

Pair = tuple[str, bytes]
store_cli = AppGroup("store", help="Look after the messages of a store (HASHER_STORE).")


def configured() -> Messages:
    """The store of HASHER_STORE, which must be one that this command shares with a service."""
    store = store_of_app()
    if not store.driver.shared:
        raise click.ClickException("memory:// lives in one process: set HASHER_STORE.")
    return store


@store_cli.command()
def stats() -> None:
    """Say how many messages there are, and how large."""
    count = total = largest = 0
    with reported(configured()), Progress("counted", configured().count()) as progress:
        for _, message in configured().items():  # noqa: PERF102 - a store has no values()
            size = len(message or b"")
            count, total, largest = count + 1, total + size, max(largest, size)
            progress.advance(1)
        remark = configured().check()
    click.echo(f"messages: {count}\nbytes: {total}\nlargest: {largest}")
    if remark:
        click.echo(f"note: {remark}")


@store_cli.command()
def verify() -> None:
    """Hash every message again and list the damaged ones; exit status 1 if there are any."""
    with reported(configured()), Progress("verified", configured().count()) as progress:
        damage = Damage()
        for name, message in damage.left_out_of(configured().items()):
            if configured().driver.get(name) != message:
                damage.found(name)
            progress.advance(1)
    damage.fail()


@store_cli.command()
@click.argument("source")
@click.argument("target")
def copy(source: str, target: str) -> None:
    """Copy every message from one store to another, each verified on its way.

    SOURCE and TARGET are URLs, as in HASHER_STORE. What the target has already is left as it is,
    so a copy that was interrupted is finished by the same command.
    """
    with opened(source) as old, opened(target) as new, reported(old, new):
        damage = Damage()
        new.check()
        with Progress("copied", old.count()) as progress:
            added = put_all(damage.left_out_of(old.items()), new, progress)
    click.echo(f"{added} messages were new to the target.")
    damage.fail()


@store_cli.command("export")
def export_messages() -> None:
    """Write every message to standard output, verified, one JSON object a line."""
    out = sys.stdout.buffer
    with reported(configured()), Progress("exported", configured().count()) as progress:
        damage = Damage(err=True)
        for _, message in damage.left_out_of(configured().items()):
            out.write(msgspec.json.encode(Post(message.decode())) + NEWLINE)
            progress.advance(1)
        out.flush()
    damage.fail()


@store_cli.command("import")
def import_messages() -> None:
    """Store the messages of an export from standard input.

    A bad line ends it with its number; the lines before it are stored. Importing again is safe.
    """
    lines = sys.stdin.buffer
    with reported(configured()), Progress("imported") as progress:
        configured().check()
        added = put_all(parsed(lines), configured(), progress)
    click.echo(f"{added} messages were new.")


@store_cli.command()
@click.argument("name", metavar="DIGEST")
def get(name: str) -> None:
    """Write one message to standard output, as it is."""
    if not re.fullmatch(DigestConverter.regex, name):
        raise click.ClickException("A digest is 64 lowercase hexadecimal characters.")
    try:
        with reported(configured()):
            message = configured().get(name)
    except DamagedMessage:
        raise click.ClickException(f"The message stored under {name} is damaged.") from None
    if message is None:
        raise click.ClickException("Message not found.")
    sys.stdout.buffer.write(message)


@store_cli.command()
def put() -> None:
    """Store standard input as one message, as it is, and say its digest."""
    message = sys.stdin.buffer.read()
    try:
        message.decode()
    except UnicodeDecodeError as error:
        raise click.ClickException(f"It is not UTF-8 (at byte {error.start}).") from None
    with reported(configured()):
        configured().check()
        digest, _ = configured().put(message)
    click.echo(digest)


class Damage:
    """The damaged messages that were come across."""

    def __init__(self, *, err: bool = False) -> None:
        self.count = 0
        self._err = err  # where standard output is for something else

    def left_out_of(self, pairs: Iterable[tuple[str, bytes | None]]) -> Iterator[Pair]:
        """The pairs whose message is what its digest says; the others are listed."""
        for name, message in pairs:
            if message is not None and digest_of(message) == name:
                yield name, message
            else:
                self.found(name)

    def found(self, name: str) -> None:
        """Count and list one."""
        self.count += 1
        click.echo(f"damaged: {name}", err=self._err)

    def fail(self) -> None:
        """End with exit status 1 if there were any."""
        if self.count:
            raise click.ClickException(f"{self.count} damaged messages were found.")


def put_all(pairs: Iterable[Pair], target: Messages, progress: Progress) -> int:
    """Put pairs in batches, so that memory stays flat and each trip pays; how many were new.

    Whatever ends the pairs, those that came before it are put.
    """
    added = size = 0
    batch: dict[str, bytes] = {}  # each message once
    try:
        for name, message in pairs:
            batch[name] = message
            size += len(message)
            if len(batch) >= BATCH_MESSAGES or size >= BATCH_BYTES:
                added += put_batch(batch, target, progress)
                size = 0
    finally:
        added += put_batch(batch, target, progress)
    return added


def put_batch(batch: dict[str, bytes], target: Messages, progress: Progress) -> int:
    """Put a batch and empty it; how many of it were new."""
    messages = list(batch.values())
    batch.clear()
    _, added = target.put_many(messages)
    progress.advance(len(messages))
    return added


def parsed(lines: BinaryIO) -> Iterator[Pair]:
    """The messages of an export; ClickException names a line that has none."""
    for number, line in enumerate(lines, 1):
        try:
            message = from_json(line)
        except ValueError as error:
            raise click.ClickException(f"line {number}: {error}") from None
        yield digest_of(message), message


@contextmanager
def opened(url: str) -> Iterator[Messages]:
    """The store at `url`, for one command."""
    try:
        driver = locate(url).open()
    except (ValueError, Unusable) as error:
        raise click.ClickException(f"The store's URL {error}.") from None
    with closing(Messages(driver)) as store:
        if not driver.shared:
            raise click.ClickException("memory:// lives in one process: name another store.")
        yield store


@contextmanager
def reported(*stores: Messages) -> Iterator[None]:
    """What goes wrong with `stores`, in a sentence in place of a traceback."""
    errors: tuple[type[Exception], ...] = (
        Unusable,
        *chain.from_iterable(store.driver.errors for store in stores),
    )
    try:
        yield
    except BrokenPipeError:
        raise  # the reader of standard output has seen enough
    except StoreFull:
        raise click.ClickException("The store is full. Make room, and run it again.") from None
    except errors as error:
        fault = f"The store cannot be used now ({error}). Run it again: nothing is lost."
        raise click.ClickException(fault) from None

"""`flask store ...`: commands for a store, which may be in use."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from itertools import repeat
from time import monotonic, time
from typing import Annotated, BinaryIO, TextIO

import click
import msgspec
from flask import current_app
from flask.cli import AppGroup, FlaskGroup

from hasher.stores import (
    DamagedMessage,
    Location,
    Outcome,
    StoreFull,
    TakenDown,
    Unusable,
    contract,
    locate,
)
from hasher.stores.messages import Messages, batches, digest_of
from hasher.stores.tombstone import LONGEST_REASON, Time, Tombstone, from_bytes, is_tombstone
from hasher.web.application import DigestConverter
from hasher.web.bodies import Post, from_json
from hasher.web.bulk import NEWLINE

# Put in one step: of digests that are sorted, a page of SQLite's index then takes several at once.
BATCH_MESSAGES, BATCH_BYTES = 100_000, 16 * 1024 * 1024

Advance = Callable[[int], None]
store_cli = AppGroup("store", help="Look after the messages of a store (HASHER_STORE).")


def is_loaded_for_commands() -> bool:
    """Return whether a command loads the application, and not to serve it.

    A command opens the stores that it needs itself: a misspelt URL must not create one.
    """
    context = click.get_current_context(silent=True)
    if context is None:
        return False
    return isinstance(context.command, FlaskGroup) or context.command in store_cli.commands.values()


@store_cli.command()
def stats() -> None:
    """Print how many messages there are, how large they are, and how many were taken down."""
    count = size = largest = removed = 0
    with configured() as store, progress("counted", total(store)) as advance:
        for _, message in store.items():  # noqa: PERF102 - a store has no values()
            advance(1)
            if is_tombstone(message):
                removed += 1
                continue
            length = len(message or b"")
            count, size, largest = count + 1, size + length, max(largest, length)
        remark = store.check()
    say(f"messages: {count}\nbytes: {size}\nlargest: {largest}")
    if removed:
        say(f"taken down: {removed}")
    if remark:
        say(f"note: {remark}")


@store_cli.command()
def verify() -> None:
    """Hash every message again and list the damaged ones; exit status 1 if there are any."""
    damage = Damage()
    with (
        damage.counted(),
        configured() as store,
        progress("verified", total(store)) as advance,
    ):
        for digest, message in store.items():
            if not is_sound(digest, message, store):
                damage.found(digest)
            advance(1)


@store_cli.command()
@click.argument("source")
@click.argument("target")
def copy(source: str, target: str) -> None:
    """Copy every message from one store to another, each verified on its way.

    SOURCE and TARGET are URLs, as in HASHER_STORE. Messages that the target has already stay, and
    damaged ones are mended, so the same command finishes a copy that was interrupted. What either
    store has taken down is taken down in the target.
    """
    damage = Damage()
    places = located(source), located(target)
    with damage.counted(), opened(places[0]) as old, opened(places[1], create=True) as new:
        new.check()
        with progress("copied", total(old)) as advance:
            intake = Intake(new, advance)
            added = intake.put_all(damage.left_out_of(old, intake.take_down))
        say(f"{added} messages were new to the target.")


@store_cli.command("export")
def export_messages() -> None:
    """Write every message to standard output, verified, one JSON object a line.

    A message that was taken down has a line too, which an import follows.
    """
    damage = Damage(err=True)
    with damage.counted(), configured() as store, progress("exported", total(store)) as advance:

        def export(tombstone: Tombstone) -> None:
            write(msgspec.json.encode(Removed(*tombstone)) + NEWLINE)
            advance(1)

        for batch in batches(damage.left_out_of(store, export)):
            write(*[msgspec.json.encode(Post(message.decode())) + NEWLINE for message in batch])
            advance(len(batch))


@store_cli.command("import")
def import_messages() -> None:
    """Store the messages of an export from standard input.

    A bad line ends it with its number; the lines before it are stored. Importing again is safe.
    What the export or the store has taken down is taken down.
    """
    with configured(create=True) as store, progress("imported") as advance:
        store.check()
        intake = Intake(store, advance)
        added = intake.put_all(parsed(lines_of_input(), intake.take_down))
    say(f"{added} messages were new.")


@store_cli.command()
@click.argument("digest")
def get(digest: str) -> None:
    """Write one message to standard output, as it is."""
    require_well_formed(digest)
    try:
        with configured() as store:
            message = store.get(digest)
    except DamagedMessage:
        raise click.ClickException(f"The message stored under {digest} is damaged.") from None
    if message is None:
        raise click.ClickException("Message not found.")
    write(message)


@store_cli.command()
def put() -> None:
    """Store standard input as one message, as it is, and print its digest."""
    message = b"".join(lines_of_input())
    try:
        message.decode()
    except UnicodeDecodeError as error:
        raise click.ClickException(f"It is not UTF-8 (at byte {error.start}).") from None
    with configured(create=True) as store:
        store.check()
        digest, _ = store.put(message)
    say(digest)


@store_cli.command()
@click.argument("digests", nargs=-1, required=True, metavar="DIGEST...")
@click.option("--reason", default="", help="Why, in a line that `removed` shows.")
def remove(digests: Sequence[str], reason: str) -> None:
    """Take messages down: their bytes go, and nobody can store them again.

    A digest need not be stored. Caches may keep a message for longer (docs/takedown.md).
    """
    words = {
        Outcome.NEW: "taken down, and was not stored",
        Outcome.REPEATED: "was taken down before",
        Outcome.MENDED: "taken down",
    }
    require_well_formed(*digests)
    if len(reason) > LONGEST_REASON:
        raise click.ClickException(f"A reason has at most {LONGEST_REASON} characters.")
    with configured() as store:
        for digest in digests:
            say(f"{words[store.remove(Tombstone(digest, int(time()), reason))]}: {digest}")
    mention("Caches may still have it: docs/takedown.md says how to remove it from them.")


@store_cli.command()
@click.argument("digests", nargs=-1, required=True, metavar="DIGEST...")
def restore(digests: Sequence[str]) -> None:
    """Let messages that were taken down be stored again. It does not bring their bytes back."""
    require_well_formed(*digests)
    with configured() as store:
        for digest in digests:
            restored = store.restore(digest)
            say(f"{'can be stored again' if restored else 'was not taken down'}: {digest}")


@store_cli.command()
def removed() -> None:
    """List what was taken down: digest, time and reason, with a tab between them."""
    with configured() as store:
        for digest, seconds, reason in store.removed():
            say(f"{digest}\t{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}\t{reason}")


@store_cli.command()
def schema() -> None:
    """Make the table or the file of the store if it is missing, as a role that may do so."""
    with configured(create=True) as store:
        remark = store.check()
    say("The store is ready.")
    if remark:
        say(f"note: {remark}")


@store_cli.command()
@click.argument("url")
def selftest(url: str) -> None:
    """Check that a store does what hasher promises, in an empty place beside its messages.

    URL is as in HASHER_STORE. Exit status 1 if a promise does not hold. For servers and disks that
    are not tested with hasher.
    """
    location, faults = located(url), 0
    require_usable(location)
    for promise, fault in contract.examine(location):
        say(f"FAILED: {promise}: {fault}" if fault else f"ok: {promise}")
        faults += fault is not None
    if faults:
        raise click.ClickException(f"The store breaks {faults} of {len(contract.CHECKS)} promises.")


def require_usable(location: Location) -> None:
    """Raise ClickException if a store cannot be used, so that it has no promise to break."""
    with reported(()), contract.scratch(location) as (driver, _), reported(driver.errors):
        driver.check()


class Damage:
    """The messages that were found to be damaged, or could not be read."""

    def __init__(self, *, err: bool = False) -> None:
        self._count = 0
        self._err = err  # if standard output is for something else

    def left_out_of(
        self, store: Messages, take_down: Callable[[Tombstone], None]
    ) -> Iterator[bytes]:
        """Yield the messages of `store` that their digest proves; list the others.

        `take_down` is called with each tombstone.
        """
        for digest, message in store.items():
            if is_tombstone(message):
                take_down(from_bytes(digest, message))
            elif message is not None and is_proven(message, digest):
                yield message
            else:
                self.found(digest)

    def found(self, digest: str) -> None:
        """Count a damaged message, and list its digest."""
        self._count += 1
        tell = mention if self._err else say
        tell(f"damaged: {digest}")

    @contextmanager
    def counted(self) -> Iterator[None]:
        """End the command with exit status 1 if any are found."""
        yield
        if self._count:
            raise click.ClickException(f"{self._count} damaged messages were found.")


def total(store: Messages) -> int | None:
    """Return how many messages there are, or None if the store cannot count them."""
    try:
        return store.count()
    except store.driver.errors:
        return None


def is_proven(message: bytes, digest: str) -> bool:
    """Return whether `message` has this digest, and is text, as every message that was sent."""
    try:
        message.decode()
    except UnicodeDecodeError:
        return False
    return digest_of(message) == digest


def is_sound(digest: str, message: bytes | None, store: Messages) -> bool:
    """Return whether `message` has this digest, and the store finds it there; or is a tombstone."""
    if is_tombstone(message):
        return True
    if message is None or not is_proven(message, digest):
        return False
    try:
        return store.get(digest) == message
    except TakenDown:
        return True  # a moment ago
    except DamagedMessage:
        return False
    except store.driver.errors:
        store.check()  # which raises if the store is the cause, and not this message
        return False


class Intake:
    """Puts what another store or an export has into `target`, and brings nothing back there.

    An empty target is not asked what it has taken down: that takes a third of the time.
    """

    def __init__(self, target: Messages, advance: Advance) -> None:
        self._target, self._advance = target, advance
        self._looks = target.count() > 0

    def take_down(self, tombstone: Tombstone) -> None:
        """Take down what a tombstone names."""
        self._looks = True
        self._target.remove(tombstone)
        self._advance(1)

    def put_all(self, messages: Iterable[bytes]) -> int:
        """Put `messages`, those before an exception included; return how many were new.

        Those that were taken down are left out.
        """
        added = left_out = 0
        for batch in batches(messages, BATCH_MESSAGES, BATCH_BYTES):
            allowed = self._without_removed(batch) if self._looks else batch
            _, new = self._target.put_many(allowed)
            added += new
            left_out += len(batch) - len(allowed)
            self._advance(len(batch))
        if left_out:
            mention(f"{left_out} messages were left out: they were taken down.")
        return added

    def _without_removed(self, messages: list[bytes]) -> list[bytes]:
        digests = [digest_of(message) for message in messages]
        removed = {*self._target.removed_of(digests)}
        pairs = zip(digests, messages, strict=True)
        return [message for digest, message in pairs if digest not in removed]


class Removed(msgspec.Struct):
    """The line of an export for a message that was taken down."""

    removed: Annotated[str, msgspec.Meta(pattern=f"^{DigestConverter.regex}\\Z")]
    time: Time = 0
    reason: str = ""


def parsed(lines: Iterable[bytes], take_down: Callable[[Tombstone], None]) -> Iterator[bytes]:
    """Yield the messages of an export. ClickException names a line that has none.

    `take_down` is called with each tombstone.
    """
    for number, line in enumerate(lines, 1):
        try:
            if b'"removed"' in line and (tombstone := tombstone_in(line)):
                take_down(tombstone)
            elif line.strip():
                yield from_json(line, subject="it")
        except ValueError as error:
            raise click.ClickException(f"line {number}: {error}") from None


def tombstone_in(line: bytes) -> Tombstone | None:
    """Return the tombstone in a line of an export; None if it may be a message."""
    try:
        found = msgspec.json.decode(line, type=Removed)
    except msgspec.DecodeError:
        return None
    return Tombstone(found.removed, found.time, found.reason)


def require_well_formed(*digests: str) -> None:
    """Raise ClickException if any of `digests` is none."""
    for digest in digests:
        if not re.fullmatch(DigestConverter.regex, digest):
            raise click.ClickException("A digest is 64 lowercase hexadecimal characters.")


def lines_of_input() -> Iterator[bytes]:
    """Yield the lines of standard input. ClickException if it cannot be read."""
    source = bytes_of(sys.stdin, "Standard input")
    try:
        yield from source
    except OSError as error:
        raise click.ClickException(f"Standard input failed: {error.strerror}.") from None


def say(line: str) -> None:
    """Write a line to standard output."""
    write(line.encode() + NEWLINE)


def mention(line: str) -> None:
    """Write a line to standard error if that can be done: the result is elsewhere."""
    with suppress(OSError):
        click.echo(line, err=True)


def write(*parts: bytes) -> None:
    """Write to standard output at once. End the command with exit status 1 if that fails."""
    output = bytes_of(sys.stdout, "Standard output")
    try:
        output.writelines(parts)
        output.flush()
    except OSError as error:
        drop_output()
        if isinstance(error, BrokenPipeError):  # the reader has seen enough
            raise SystemExit(1) from None
        raise click.ClickException(f"Standard output failed: {error.strerror}.") from None


def bytes_of(stream: TextIO | None, name: str) -> BinaryIO:
    """Return the binary form of a standard stream. ClickException if it is closed."""
    if stream is None:
        raise click.ClickException(f"{name} is closed.")
    return stream.buffer


def drop_output() -> None:
    """Discard what is left for standard output: Python would try to write it at the end."""
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - it is no file
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


@contextmanager
def progress(done: str, total: int | None = None) -> Iterator[Advance]:
    """Show progress on standard error: a bar on a terminal, and a line at the end.

    `total` is None if it is not known how much there is to do.
    """
    count, started = 0, monotonic()
    with click.progressbar(
        repeat(None),
        length=total,
        label=done,
        file=sys.stderr,
        show_pos=True,
        hidden=not (sys.stderr and sys.stderr.isatty()),
        update_min_steps=max(1, (total or 0) // 1000),
    ) as bar:

        def advance(more: int) -> None:
            nonlocal count
            count += more
            bar.update(more)

        try:
            yield advance
        finally:
            of = "" if total is None else f" of {total:,}"
            rate = count / max(monotonic() - started, 0.001)
            mention(f"{done} {count:,}{of}: {rate:,.0f}/s")


def configured(*, create: bool = False) -> AbstractContextManager[Messages]:
    """Open the store of HASHER_STORE, for one command."""
    return opened(current_app.config["STORE"], create=create)


def located(url: str) -> Location:
    """Return the location that `url` names. ClickException says what is allowed instead."""
    try:
        return locate(url)
    except ValueError as error:
        raise click.ClickException(f"The store's URL {error}.") from None


@contextmanager
def opened(location: Location, *, create: bool = False) -> Iterator[Messages]:
    """Open a store for one command. ClickException says in a sentence what is wrong with it.

    `create` says whether the store may be made if it is missing.
    """
    if not location.shared:
        raise click.ClickException(
            "memory:// lives in one process: set HASHER_STORE, or name another store."
        )
    try:
        driver = location.open(create=create)
    except Unusable as error:
        raise click.ClickException(f"The store cannot be used: {error}.") from None
    with Messages(driver) as store, reported(driver.errors):
        yield store


@contextmanager
def reported(errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """Turn a store's exceptions, `errors` included, into a ClickException with a sentence."""
    try:
        yield
    except TakenDown as error:
        raise click.ClickException(f"The message {error.digest} was taken down.") from None
    except StoreFull:
        raise click.ClickException("The store is full. Make room, and run it again.") from None
    except Unusable as error:
        raise click.ClickException(f"The store cannot be used: {error}.") from None
    except errors as error:
        fault = f"The store cannot be used now ({error}). Run it again later."
        raise click.ClickException(fault) from None

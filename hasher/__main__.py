"""`hasher`, the command: what `pip install` puts on the PATH."""

import os
import sys
from pathlib import Path

import click
from flask.cli import ScriptInfo

from hasher import __version__, create_app
from hasher.cli import store_cli
from hasher.cpus import available_cpus
from hasher.settings import Settings

CONFIGURATION = Path(__file__).with_name("gunicorn_conf.py")


@click.group(context_settings={"obj": ScriptInfo(create_app=create_app)})
@click.version_option(__version__, prog_name="hasher")
def main() -> None:
    """A content-addressed message store over HTTP; its settings are environment variables."""


@main.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def serve(options: tuple[str, ...]) -> None:
    """Serve with gunicorn, which takes OPTIONS as its own command does."""
    Settings.from_environ(os.environ)  # gunicorn ends with a traceback if WEB_CONCURRENCY is bad
    from gunicorn.app.wsgiapp import WSGIApplication  # noqa: PLC0415 - which reads it at its import

    class Server(WSGIApplication):
        """gunicorn with hasher's configuration."""

        def load_config(self) -> None:
            """Read the options, at the start and at every reload."""
            given = sys.argv
            sys.argv = ["hasher serve", "--config", f"file:{CONFIGURATION}", *options]
            try:
                super().load_config()
            finally:
                sys.argv = given  # SIGUSR2 starts a second master with it

    Server("%(prog)s [OPTIONS]", prog="hasher serve").run()


@main.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def tune(options: tuple[str, ...]) -> None:
    """Find the workers and threads that serve the most on this machine."""
    from hasher_tune import command  # noqa: PLC0415 - which the service does without

    command.run(options, available_cpus())


main.add_command(store_cli)

if __name__ == "__main__":
    main()

"""hasher, a content-addressed message store over HTTP."""

import os

from flask import Flask

from hasher import telemetry
from hasher.allocator import give_back_large_blocks
from hasher.cli import is_loaded_for_commands, store_cli
from hasher.messages import messages
from hasher.page import page
from hasher.settings import InvalidSetting, Settings
from hasher.stores import Driver, Unusable
from hasher.stores.memory import MemoryLocation
from hasher.stores.messages import Messages
from hasher.telemetry.record import current
from hasher.web import errors
from hasher.web.application import Application
from hasher.web.bulk import BulkReader
from hasher.web.health import Readiness, health
from hasher.web.middleware import Middleware
from hasher.web.responses import caching

__version__ = "0.2.0"


def create_app(settings: Settings | None = None, *, store: Driver | None = None) -> Flask:
    """Return the WSGI application.

    Without `settings`, those of the environment are used. Without `store`, the driver that the
    settings name is opened.
    """
    settings = settings or Settings.from_environ(os.environ)
    driver = store or opened(settings)
    give_back_large_blocks()

    app = Application(__name__)
    app.config["STORE"] = settings.store
    app.config["MAX_MESSAGE_BYTES"] = settings.max_message_bytes
    app.config["MAX_BULK_BYTES"] = settings.max_bulk_bytes
    app.config["MAX_BULK_MESSAGES"] = settings.max_bulk_messages
    app.config["WRITE_TOKENS"] = settings.tokens
    app.config["CACHING"] = caching(settings.max_age)

    app.extensions["messages"] = Messages(driver, current)
    app.extensions["bulk"] = BulkReader(settings)
    app.extensions["readiness"] = Readiness(app.extensions["messages"].check)
    for blueprint in (messages, page, health, *telemetry.blueprints(settings)):
        app.register_blueprint(blueprint)
    app.cli.add_command(store_cli)
    errors.register(app, driver)
    app.complete()
    observers = telemetry.observers(settings, driver, __version__)
    app.wsgi_app = Middleware(app.wsgi_app, observers)  # type: ignore[method-assign]
    return app


def opened(settings: Settings) -> Driver:
    """Return the driver that `settings` name. InvalidSetting if it cannot work."""
    location = MemoryLocation() if is_loaded_for_commands() else settings.store
    try:
        return location.open(settings.resources)
    except Unusable as error:
        raise InvalidSetting(f"HASHER_STORE cannot be used: {error}.") from None

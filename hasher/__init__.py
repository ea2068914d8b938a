"""hasher, a content-addressed message store over HTTP."""

import os

from flask import Flask

from hasher import errors, health, media, observe
from hasher.access_log import AccessLog
from hasher.cli import store_cli
from hasher.digest import DigestConverter
from hasher.lean import Lean
from hasher.messages import messages
from hasher.page import page
from hasher.settings import InvalidSetting, Settings
from hasher.stores import Store, Unusable, open_store

__version__ = "0.1.0"


def create_app(settings: Settings | None = None, *, store: Store | None = None) -> Flask:
    """The WSGI application.

    Without `settings` the environment's are used, and without `store` the one that the settings
    name is opened.
    """
    if settings is None:
        settings = Settings.from_environ(os.environ)
    if store is None:
        try:
            store = open_store(settings.store, settings.means)
        except Unusable as error:
            raise InvalidSetting(f"HASHER_STORE cannot be used: {error}.") from None

    app = Lean(__name__, static_folder=None)
    app.config["MAX_MESSAGE_BYTES"] = settings.max_message_bytes
    app.config["MAX_BULK_BYTES"] = settings.max_bulk_bytes
    app.config["WRITE_TOKENS"] = settings.tokens
    app.url_map.converters["digest"] = DigestConverter
    app.url_map.merge_slashes = False  # "/messages//x" is a 404: a redirect is an HTML page
    app.cli.add_command(store_cli)

    observers = observers_of(app, settings, store)
    store = observe.observed_store(store, observers)
    app.extensions["store"] = store
    app.register_blueprint(messages)
    app.register_blueprint(page)
    health.register(app, store)
    errors.register(app, store)

    sealed = media.sealed(app.wsgi_app)
    app.wsgi_app = observe.observed(sealed, observers)  # type: ignore[assignment,method-assign]
    return app


def observers_of(app: Flask, settings: Settings, store: Store) -> list[observe.Observer]:
    """Whoever is to be told what `app` does."""
    observers: list[observe.Observer] = []
    if settings.metrics == "on":
        from hasher import metrics  # noqa: PLC0415 - its package is an extra

        observers.append(metrics.register(app, __version__, settings.scheme, store))
    if settings.access_log != "off":
        observers.append(AccessLog(settings.access_log))
    return observers

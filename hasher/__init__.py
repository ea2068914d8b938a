"""hasher, a content-addressed message store over HTTP."""

import os

from flask import Flask

from hasher import errors, media
from hasher.cli import store_cli
from hasher.digest import DigestConverter
from hasher.health import health
from hasher.messages import messages
from hasher.settings import InvalidSetting, Settings
from hasher.stores import Store, Unusable, open_store


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

    app = Flask(__name__, static_folder=None)
    app.config["MAX_MESSAGE_BYTES"] = settings.max_message_bytes
    app.extensions["store"] = store
    app.url_map.converters["digest"] = DigestConverter
    app.url_map.merge_slashes = False  # "/messages//x" is a 404: a redirect is an HTML page
    app.register_blueprint(messages)
    app.register_blueprint(health)
    app.after_request(media.seal)
    app.cli.add_command(store_cli)
    errors.register(app, store)
    return app

"""The secrets in files, read by the master for all its workers.

A worker that starts after a file has changed must not use another store than the others. At a
reload (SIGHUP) the write tokens are read again; a store stays until a restart, since workers of
before and after the reload serve side by side.
"""

import logging
from collections.abc import Mapping

from hasher.settings import InvalidSetting, Settings, secrets_in

log = logging.getLogger("gunicorn.error")

STORE = "HASHER_STORE"
kept: dict[str, str] = {}  # by the master, from one reading of gunicorn.conf.py to the next


def read(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of all secrets.

    InvalidSetting if one cannot be used at the start. At a reload a line in the log says so, and
    the secrets of before stay: a service that runs must not end by it.
    """
    try:
        found = secrets_in(environ)
        Settings.from_environ({**environ, **found})
    except InvalidSetting as error:
        if not kept:
            raise
        log.error("The reload keeps the secrets of before: %s", error)  # noqa: TRY400 - one line
        return kept
    if kept.get(STORE, found[STORE]) != found[STORE]:
        log.warning("The reload keeps the store of before: restart the service to change it.")
        found[STORE] = kept[STORE]
    kept.update(found)
    return found

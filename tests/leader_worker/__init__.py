"""The worker alone: gunicorn with a bare WSGI application, and hasher not on the path."""

"""The worker by itself: gunicorn with a bare WSGI application, and hasher not on the path."""

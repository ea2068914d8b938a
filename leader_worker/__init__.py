"""A gunicorn worker class, with a leader, followers and a fast lane, for any WSGI application."""

from leader_worker.worker import Worker

__all__ = ["Worker"]

"""What gunicorn and `flask run` serve."""

from hasher import create_app

app = create_app()

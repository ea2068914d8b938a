"""The whole service, from outside: real sockets, real gunicorn, nothing imported from hasher."""

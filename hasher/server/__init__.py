"""How gunicorn serves hasher: the worker class and the hooks that gunicorn.conf.py names."""

"""What gunicorn_conf.py calls: checks before the start, draining, metric files, one worker."""

"""hasher measured against what one could use instead, and its knobs' sweet spot found.

`python -m bench` compares, `python -m bench sweep` searches. Nothing here imports hasher: every
contender is a server that is started, asked over HTTP, and stopped.
"""

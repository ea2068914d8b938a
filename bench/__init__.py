"""hasher measured against what one could use instead.

`python -m bench compare` compares. Nothing here imports hasher: every
contender is a server that is started, asked over HTTP, and stopped.
"""

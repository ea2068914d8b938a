"""hasher measured against what one could use instead.

`python -m bench compare` compares, and `scaling` holds the capacity model of docs/scaling.md
against this machine. Nothing here imports hasher: every contender is a server that is started,
asked over HTTP, and stopped.
"""

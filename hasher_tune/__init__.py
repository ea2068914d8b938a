"""The search for the settings that serve the most on one machine: `hasher tune`.

Nothing here imports hasher: each candidate is a service that is started, asked over HTTP, and
stopped.
"""

"""The same two routes, as one would write them with something else: small, fair, correct."""

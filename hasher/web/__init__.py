"""What HTTP means here: bodies in, responses out, and what may go wrong in between."""

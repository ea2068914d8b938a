"""What HTTP means here: bodies in, responses out, and errors."""

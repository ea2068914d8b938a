"""What tests start, send and compare."""

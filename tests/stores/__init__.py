"""Tests that hold the drivers to their contract."""

"""Tests that call one module."""

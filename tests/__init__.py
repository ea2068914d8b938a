"""The tests of single modules; system/ holds those of the whole service."""

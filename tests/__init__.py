"""The tests of each module by itself; system/ holds those of the whole."""

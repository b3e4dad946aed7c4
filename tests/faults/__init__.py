"""Faults: what the program promises, broken on purpose."""

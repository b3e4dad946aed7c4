"""Whole runs: the real command against a real git repository, a real bucket and real programs."""

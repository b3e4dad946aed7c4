"""Tests, with the real parts that they run against in `tests.parts`."""

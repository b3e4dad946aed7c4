"""The story of a run, and what goes on beside it."""

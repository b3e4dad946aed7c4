"""Mayfly's agent: wakes with the machine, runs the batch, hands the files over and lets the machine go."""

__version__ = "0.2.0"

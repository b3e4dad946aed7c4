"""Releases: looked for in git, verified, installed, tried, kept, and given up."""

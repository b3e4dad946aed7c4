"""Shards on a real Selenium Grid."""

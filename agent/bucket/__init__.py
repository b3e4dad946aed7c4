"""Addresses of buckets, reads and puts."""

"""Mayfly on AWS: stand-ins at the protocols' edges."""

"""A job: when it starts, what its program sees, how it is judged; isolation and containers."""

"""Mayfly at home: reads what runs left in the bucket. It knows the bucket and nothing of the machine."""

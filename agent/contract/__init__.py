"""What other machines and programs read: names, keys and documents of the bucket. Decisions only."""

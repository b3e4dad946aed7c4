"""Jobs in containers and stacks, in a real engine."""

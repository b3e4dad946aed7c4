"""What people write: agent.toml, jobs.toml, environment and flags; what is wrong with them, and where things are."""

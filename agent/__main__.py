"""`python -m agent` is `mayfly`."""

from agent.cli import main

main()

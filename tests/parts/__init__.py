"""Real parts for tests: servers, engines and faults that run on this machine.

Nothing of the product is imported here. A part that is missing raises `MissingPartError`, whose message names the
remedy; it never makes a test skip. A program that must succeed and does not raises `CommandError`.
"""

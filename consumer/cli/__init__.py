"""`mayfly status`, `verify`, `pull` and `serve`: what home does with the bucket.

Exit codes are those of `agent.notify.outcome`: 0 fine, 2 usage, 3 `verify` found problems or `pull` could not take
everything, 4 configuration, 6 the bucket cannot be read, 7 a pull was stopped. What takes long to import is imported
by the command that needs it. Only here at home are `os.environ` read and `sys.exit` called.
"""

"""The commands at home: `mayfly status`, `show`, `logs`, `cost`, `pull`, `diff`, `verify`, `serve`.

Exit codes (`agent.base.errors`): 0 done, 2 usage, 3 `verify` or `status --check` found problems, or `pull` could not
take everything, 4 configuration, 6 the bucket cannot be read, 7 a pull was stopped. `serve` imports the service after
it has checked for the extra `home`. At home only this package reads `os.environ` and calls `sys.exit`.
"""

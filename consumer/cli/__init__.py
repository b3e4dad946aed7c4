"""The commands at home: `mayfly status`, `show`, `logs`, `cost`, `pull`, `diff`, `verify`, `serve`.

Exit codes are those of `agent.base.errors.ExitCode`. `mayfly` imports a command when it is called, and `serve` its
service after it has checked for the extra `home`. At home only this package reads `os.environ` and calls `sys.exit`.
"""

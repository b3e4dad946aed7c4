"""`mayfly serve`: metrics, health, the status page and files of runs, and beside them the watching pull.

`service` is the story; `web` answers requests, `listen` is the server under it; `metrics` turns facts into series,
`files` reads what a verified manifest names, `state` is what the parts tell each other, `ship` pushes logs to Loki.
"""

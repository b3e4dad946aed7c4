"""What `mayfly serve` answers: metrics, health, the pages, and objects of runs.

`app` has the routes, `guard` what holds for all of them, `server` the socket and its limits; `objects` reads what is
committed, `metrics` turns what is known into series.
"""

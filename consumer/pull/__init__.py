"""`mayfly pull`: from the bucket into a folder at home.

`session` is the story; `plan`, `state` and `report` decide and describe without effects; `place` is the only module
that touches the folder, `fetch` the only one that downloads, `hooks` the only one that starts a program.
"""

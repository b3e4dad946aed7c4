"""`mayfly pull`: from the bucket into a folder at home.

`session` is the story; `plan` and `report` decide and describe without effects; `folder` touches the folder, `state`
remembers, `fetch` downloads, `hooks` starts programs, `watch` polls.
"""

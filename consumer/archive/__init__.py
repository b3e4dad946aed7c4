"""The history of a bucket in an embedded database, so that ten years of runs cost nothing to ask for.

The bucket is the truth: a database that is broken, or of another version, is moved aside and a new one filled. `intake`
decides without effects what is kept of what a stranger wrote; `schema` makes the database; `writer` and `reader` are
the only ones that speak SQL; `follow` keeps it up with the bucket.
"""

"""The effects of a run, one module or package for each edge: processes, git, browser, jobs, bucket, spool, network."""

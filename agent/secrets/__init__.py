"""Where credentials and the jobs' secrets come from."""

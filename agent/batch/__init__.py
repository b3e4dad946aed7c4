"""A batch may be tried more than once and must be done once; its log is the one mechanism for claims and commits."""

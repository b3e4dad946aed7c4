"""The jobs of a run: who starts when, each attempt in its own workspace, under an isolation backend."""

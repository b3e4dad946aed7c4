"""Jobs in containers: one image, or an existing compose stack, started and ended like any other program."""

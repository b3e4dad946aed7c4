"""What every package uses: errors, programs, threads, durable files, logs, redaction, units, stop, engine."""

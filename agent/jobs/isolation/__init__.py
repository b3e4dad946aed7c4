"""How a job's program is kept apart: as a process, or as a unit of systemd."""

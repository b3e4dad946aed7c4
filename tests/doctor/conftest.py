"""An installation for the doctor, and what it logs."""

from tests.doctor.installations import installation
from tests.notify.conftest import events, run_logger

__all__ = ["events", "installation", "run_logger"]

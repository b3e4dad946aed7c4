"""What is left to do when EC2 takes a spot machine back, and the time for each part. Decisions only."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from agent.machine.instance import SpotNotice

NOTICE = timedelta(seconds=120)
"""Between EC2's notice and the end of the machine (EC2 User Guide, "Spot Instance interruption notices")."""
SHORTEST = timedelta(seconds=30)
"""The least that a running machine has left: an earlier time means a wrong clock."""
SAFETY = timedelta(seconds=15)
"""Between the commit and EC2's time."""
SEALING = timedelta(seconds=15)
"""For the log, the listing, the manifest and the commit."""
LINK = 2_500_000.0
"""Bytes a second of a link, until it is measured: 20 Mbit/s."""
MARGIN = 1.1
LEAST_GRACE = 2.0
"""Seconds that a job gets from SIGTERM to SIGKILL, however much is waiting."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """When what must be over, on a machine that is taken back.

    Attributes:
        jobs_end: Until then a job may go on after SIGTERM.
        begin_by: When the hand-off must begin for everything that waits to be sent in time.
        send_by: What is not in the bucket then is not sent any more.
        commit_by: When the commit is put at the latest.
    """

    jobs_end: datetime
    begin_by: datetime
    send_by: datetime
    commit_by: datetime


def termination_time(notice: SpotNotice, seen: datetime) -> datetime:
    """Return when the machine is gone: EC2's time, within what is possible at the time the notice was seen."""
    return max(min(notice.time, seen + NOTICE), seen + SHORTEST)


def deadlines(gone: datetime, now: datetime, *, pending: int, grace: float) -> Deadlines:
    """Divide the time that is left.

    Args:
        gone: When the machine is gone.
        now: The time.
        pending: Bytes that are not in the bucket yet.
        grace: Seconds that a job has to end when time is not short.
    """
    commit_by = gone - SAFETY
    send_by = commit_by - SEALING
    begin_by = max(now, send_by - timedelta(seconds=pending / LINK))
    least = now + timedelta(seconds=min(grace, LEAST_GRACE))
    jobs_end = max(least, min(begin_by, now + timedelta(seconds=grace)))
    return Deadlines(jobs_end, begin_by, send_by, commit_by)


def ends_in_time(past: Sequence[float], ran: float, left: float) -> bool:
    """Tell whether a job will end by itself while there is time: as slow as it ever was, and a tenth more.

    Args:
        past: Seconds that its last successes took; without any, nobody knows.
        ran: Seconds that it has run.
        left: Seconds until its files must begin to leave.
    """
    return bool(past) and max(past) * MARGIN - ran <= left


def reason(notice: SpotNotice) -> str:
    """Return the interruption's reason for the manifest; it begins with `spot`."""
    return f"spot: EC2 will {notice.action} the machine at {notice.time:%Y-%m-%dT%H:%M:%SZ}"

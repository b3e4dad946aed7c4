"""What still runs of runs whose agent is dead."""

from collections.abc import Mapping, Sequence

from agent.base import processes
from agent.base.logs import Log
from agent.browser import remove_leftovers
from agent.jobs.containers.leftovers import remove_stacks
from agent.jobs.isolation.unit import end_units


async def end_leftovers(runs: Sequence[str], environ: Mapping[str, str], log: Log) -> None:
    """End containers, units, stacks and processes of these runs: they would write into what is delivered."""
    await remove_leftovers(runs, environ=environ, log=log)
    await end_units(runs, environ, log)
    stacks = await remove_stacks(runs, environ, log)
    if stacks:
        log.warning("recovery.removed_stacks", stacks=stacks)
    for run in runs:
        killed = await processes.kill_marked(f"MAYFLY_RUN_ID={run}")
        if killed:
            log.warning("recovery.killed_leftovers", of=run, processes=killed)

"""The end of a run: the rest is delivered, and the run is closed in its batch's log."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from time import monotonic

from agent.base.disk import state_disk
from agent.base.errors import MayflyError, StoreError
from agent.base.stop import first
from agent.contract.entries import Ended
from agent.contract.layout import ManifestKey
from agent.delivery.delivery import Delivery
from agent.delivery.sealing import lost, tally, with_end, without_package
from agent.machine.spot import deadlines
from agent.notify.outcome import Outcome
from agent.run.background import Background
from agent.run.context import RunContext
from agent.run.draft import Draft
from agent.run.work import JobsOfRun

CLOSE_SECONDS = 30.0
"""Of the hand-off, for a last commit and the run's end when not everything could be sent."""
OUT_OF_TIME = "not everything could be sent in time"
FLUSH_SECONDS = 86400.0
"""Longer than any run: the run's own limit ends the wait."""


class Ending:
    """The end of one run."""

    def __init__(
        self,
        context: RunContext,
        background: Background,
        delivery: Delivery,
        draft: Draft,
        work: JobsOfRun,
    ) -> None:
        self._context = context
        self._background = background
        self._delivery = delivery
        self._draft = draft
        self._work = work
        self._results: tuple[Ended, ...] | None = None
        self._manifest = ""

    async def hand_over(self) -> Outcome:
        """Deliver the rest and close the run; what cannot be delivered stays in the spool for the next one."""
        settings, reason = self._context.settings, ""
        left = max(self._context.seconds_left(), 0.0)  # by the jobs
        seconds = min(settings.limits.handoff, settings.handoff_seconds + left)
        try:
            with state_disk(self._context.call.places.state):
                async with asyncio.timeout(seconds):
                    reason = await self._deliver(seconds)
        except TimeoutError:
            reason = f"the hand-off took longer than {seconds:.0f} s{self._why()}"
        except MayflyError as error:
            reason = error.with_remedy
        if self._manifest and (not reason or not self._context.call.keeps_disk):
            await self.discard()
        return self.outcome(reason)

    async def _deliver(self, seconds: float) -> str:
        """Commit what is left and close the run; return what could not be sent, and why."""
        context, draft, start = self._context, self._draft, monotonic()
        bucket = await asyncio.shield(self._background.bucket)
        session = await asyncio.shield(self._background.session)
        await self._wait_for_earlier(start + seconds / 3 - monotonic())
        left = start + seconds - monotonic()
        pending = await self._flush(max(left - CLOSE_SECONDS, left / 3))
        self._results = await self._ended_jobs(pending)
        draft.warn(*context.spool.warnings)
        began = await asyncio.to_thread(lambda: context.run.began)
        draft.note(
            schedule=session.batch.schedule,
            batch=session.batch.name,
            slot=began and began.slot,
            finished=datetime.now(UTC),
        )
        self.conclude(self._results)
        keeps_disk = context.call.keeps_disk
        closed = await self._delivery.close(draft.record, pending, keeps_disk=keeps_disk)
        self._manifest = f"{bucket.name}/{ManifestKey(context.run.run).text}"
        context.log.info("run.closed", status=closed.status.value, bucket=bucket.name)
        if not pending:
            return ""
        return f"{len(pending)} jobs could not be sent, such as {pending[0]}{self._why()}"

    def conclude(self, results: Sequence[Ended] | None = None) -> None:
        """Note how the run ended, as far as that is known; at first, before the delivery, which may fail."""
        known = results or tuple(map(without_package, self._work.results))
        # What cut jobs off may be a notice that came after them, or that the time was too short.
        stop = self._context.stop
        reason = stop.reason if stop.requested else OUT_OF_TIME
        record = with_end(self._draft.record, known, reason)
        self._draft.note(status=record.status, interruption=record.interruption)
        if results is not None:
            status = self._draft.record.status.value
            self._context.log.info("run.concluded", status=status, ended=tally(known))

    def _why(self) -> str:
        """Return what kept the run from the bucket, as the end of a sentence."""
        unopened = self._background.unopened
        reason = f"no credentials: {unopened}" if unopened else self._delivery.trouble
        return f": {reason}" if reason else ""

    async def _wait_for_earlier(self, seconds: float) -> None:
        """Wait for the delivery of earlier runs, and end it then, or when the run is to stop: the link is for this run.

        What is left of them waits for the next run.
        """
        earlier, stop = self._background.earlier, self._context.stop
        await first(asyncio.wait([earlier]), stop.wait(), seconds=seconds)
        if not earlier.done():
            self._context.log.warning("recovery.cut", reason="this run's own delivery has to begin")
            earlier.cancel()

    async def _flush(self, seconds: float) -> list[str]:
        """Commit what ended; on a machine that is taken back, as much as the time allows, the smallest first."""
        stop, keeps_disk = self._context.stop, self._context.call.keeps_disk
        whole = asyncio.create_task(self._delivery.flush(seconds, keeps_disk=keeps_disk))
        try:
            await first(asyncio.wait([whole]), stop.taken(), seconds=FLUSH_SECONDS)
            if whole.done():
                return whole.result()
        finally:
            whole.cancel()
            await asyncio.gather(whole, return_exceptions=True)
        if stop.gone is None:
            raise StoreError("the hand-off took longer than any run may")
        now = datetime.now(UTC)
        send_by = deadlines(stop.gone, now, pending=0, grace=0.0).send_by
        left = max(1.0, (send_by - now).total_seconds())
        return await self._delivery.flush(left, hurried=True, keeps_disk=keeps_disk)

    async def _ended_jobs(self, pending: Sequence[str]) -> tuple[Ended, ...]:
        """Return what became of the jobs, in the order of the plan; what goes with the disk counts as interrupted."""
        ended = {job.name: job for job in await self._delivery.results()}
        if not self._context.call.keeps_disk:
            ended |= {name: lost(ended[name]) for name in pending}
        order = {job.name: number for number, job in enumerate(self._work.jobs)}
        return tuple(sorted(ended.values(), key=lambda job: order.get(job.name, len(order))))

    async def discard(self) -> None:
        """Take the run out of the spool; where the disk refuses, the next run finds it closed."""
        context = self._context
        await self._delivery.end()
        # A machine that goes off now is not kept on to delete files.
        remove = not context.settings.power.goes_off(machine=context.call.machine)
        try:
            await asyncio.to_thread(lambda: context.run.discard(context.log, remove=remove))
        except OSError as error:
            context.log.warning("spool.not_removed", reason=str(error))

    def outcome(self, reason: str) -> Outcome:
        """Return how the run ended; a reason says why not everything is in the bucket."""
        context, record = self._context, self._draft.record
        reason = context.redactor.text(reason)
        if reason:
            event = "handoff.postponed" if context.call.keeps_disk else "handoff.lost"
            context.log.error(event, reason=reason, spool=str(context.run.root))
        known = tuple(map(without_package, self._work.results))
        return Outcome(
            status=record.status,
            jobs=known if self._results is None else self._results,
            released=record.release is not None or record.interruption is not None,
            configured=not context.call.refused,
            delivered=not reason,
            undelivered=reason,
            kept=context.call.keeps_disk,
            run_id=record.run,
            interruption=record.interruption or "",
            warnings=record.warnings,
            manifest=self._manifest,
            rolled_back=record.release.rolled_back_from if record.release else None,
        )

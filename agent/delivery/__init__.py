"""How a job's files get from its folder to a committed entry in the bucket, job by job.

spool = Spool(state / "spool")                      # one agent at a time has it
earlier = spool.pending(log)                        # on a disk that was kept: runs that are not closed
run = spool.begin(run_id)                           # from here on a later run can finish this one
background: deliver_pending(spool, earlier, ...)    # after what still ran of them was ended
async with Delivery(run, bucket, ...) as delivery:
    session = BatchSession(..., begin=delivery.begin)   # `session.begin()` puts `began` through the one log writer
    await delivery.plan(planned)                    # rides with the first results
    async with delivery.watch(job, output):         # files leave while the attempt runs
        ...
    await delivery.ended(Finished(job=record))      # durable now, committed seconds later; hold=True on trial
    pending = await delivery.flush(seconds)         # the run's end, or a notice: hurried=True
    run.save(record) ... with_end(record, await delivery.results(), ...)
    await delivery.close(record, pending, keeps_disk=...)
    await delivery.end()                            # lets go of the database
run.discard(log)                                    # only after `close` has returned, and nothing is pending
"""

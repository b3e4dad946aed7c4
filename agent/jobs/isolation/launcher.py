"""The first program of a unit, or of a process with a limit: it learns from the agent what to run, and becomes it.

What to run, and with which environment, comes over the socket that is its standard input: a unit's properties, its
command line among them, can be read by everybody on the machine, and a file would have to be removed again.

It runs from its text (`python -I -S -c`), as the job's user, inside the unit's confinement: it imports nothing of the
agent, and nothing that takes long.
"""

import errno
import os
import resource
import signal
import sys


def main() -> None:
    """Send our user, read the command, and become it; on an error send its number, and end."""
    channel = os.dup(0)  # which the program does not inherit
    os.write(channel, b"%d\n" % os.getuid())
    parts = []
    while part := os.read(channel, 65536):
        parts.append(part)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    memory, count, *fields = b"".join(parts).split(b"\0")
    program = fields[: int(count)]
    environ = dict(field.split(b"=", 1) for field in fields[int(count) :])
    # Python ignores these two, and a program would inherit that.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        if limit := int(memory):
            # Private writable memory, each process for itself; address space would punish mere reservations. Last, as
            # it holds here as well.
            most = resource.getrlimit(resource.RLIMIT_DATA)[1]
            limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        os.execve(program[0], program, environ)  # noqa: S606 -- the release says what runs
    except (OSError, MemoryError) as error:
        code = error.errno if isinstance(error, OSError) else errno.ENOMEM
        os.write(channel, b"%d" % (code or 0))
        sys.exit(1)


if __name__ == "__main__":
    main()

"""Starts one program and writes down what it took: `python -S -E launcher.py REPORT PROGRAM...`.

It is a process of its own because Linux counts a parent's memory towards the peak of what it starts. This one is
smaller than anything that is measured, and imports nothing before the clock runs.
"""

import os
import sys
import time


def main(report: str, command: list[str]) -> int:
    """Run the program; the report has its wall-clock seconds, CPU seconds with its children's, and peak KiB."""
    began = time.monotonic()
    child = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    wall = time.monotonic() - began
    with open(report, "w") as file:  # noqa: PTH123 -- importing pathlib would make this process larger
        file.write(f"{wall} {usage.ru_utime + usage.ru_stime} {usage.ru_maxrss}")
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))

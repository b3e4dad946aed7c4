"""The run's log as a file: every event is in it, whatever characters it has and whatever the machine's locale is."""

import json
import os
import sys
from pathlib import Path

from agent.base.logs import RunLogger
from tests.parts.command import completed


def test_a_name_that_is_not_utf_8_costs_no_event(tmp_path: Path) -> None:
    """A log without the line about such a file would not have the one that matters."""
    logger, path = RunLogger(), tmp_path / "run.log"
    with logger.writing(path):
        logger.log.warning("file", name=os.fsdecode(b"caf\xe9"))
    assert json.loads(path.read_bytes())["name"] == os.fsdecode(b"caf\xe9")


def test_the_log_is_utf_8_under_any_locale(tmp_path: Path) -> None:
    """Whoever reads it elsewhere does not know where it was written."""
    path = tmp_path / "run.log"
    program = f"""
from pathlib import Path
from agent.base.logs import RunLogger
logger = RunLogger()
with logger.writing(Path({str(path)!r})):
    logger.log.info("page", title="\\u65e5\\u672c")
"""
    plain = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    done = completed([sys.executable, "-c", program], environ={**os.environ, **plain})
    assert done.returncode == 0, done.stderr
    assert json.loads(path.read_bytes())["title"] == "日本"

"""One job of a batch with packages: it says when it began, imports what the release has, and does its work."""

import importlib
import os
import runpy
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent

Path(os.environ["STAMPS"], sys.argv[1]).write_text(repr(time.time()))
for name in (HERE / "packages.txt").read_text().split():
    importlib.import_module(name)
runpy.run_path(str(HERE / "work.py"), run_name="__main__")

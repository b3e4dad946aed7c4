"""Where big things that outlive a test session are kept."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder for images, archives and the container engine's data; created when it is not there."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "mayfly-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder

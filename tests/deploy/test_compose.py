"""Home without a cluster: the compose file, as docker compose reads it."""

import os
from pathlib import Path
from typing import Any

import yaml

from agent import __version__
from tests.deploy.tools import REPOSITORY
from tests.parts.command import completed
from tests.parts.compose import with_plugin

HOME = REPOSITORY / "deploy" / "home"


def test_home_has_no_rights_and_every_image_a_version(tmp_path: Path) -> None:
    """As docker compose reads the file, with the example's environment beside it as the documentation says."""
    for name in ("home", "monitoring"):
        (tmp_path / name).symlink_to(REPOSITORY / "deploy" / name)
    folder = tmp_path / "deploy"
    folder.mkdir()
    (folder / "home.env").write_bytes((HOME / "home.env.example").read_bytes())
    (folder / "compose.yml").write_bytes((HOME / "compose.yml").read_bytes())
    file = str(folder / "compose.yml")
    command = ["docker", "compose", "--file", file, "--profile", "monitoring", "config"]
    done = completed(command, environ=with_plugin(os.environ))
    assert done.returncode == 0, done.stderr
    services: dict[str, Any] = yaml.safe_load(done.stdout)["services"]
    images = {name: service["image"] for name, service in services.items()}
    assert set(images) == {"mayfly", "prometheus", "alertmanager", "apprise", "grafana"}
    assert images["mayfly"] == f"mayfly-home:{__version__}"
    for image in images.values():
        assert image.rpartition(":")[2] not in {"", "latest"}
    # The same as in a cluster: read-only root, no capabilities, bounded memory, the loopback address only.
    home = services["mayfly"]
    assert home["read_only"] is True
    assert home["cap_drop"] == ["ALL"]
    assert home["security_opt"] == ["no-new-privileges:true"]
    assert home["mem_limit"]
    for service in services.values():
        for port in service.get("ports", ()):
            assert port["host_ip"] == "127.0.0.1"


def test_what_is_mounted_from_the_repository_is_there() -> None:
    """Each file that a service gets exists, but for the secrets, which a person makes and git ignores."""
    document = yaml.safe_load((HOME / "compose.yml").read_text("utf-8"))
    mounted = [
        volume.split(":")[0]
        for service in document["services"].values()
        for volume in service["volumes"]
    ]
    files = [path for path in mounted if path.startswith(".")]
    assert len(files) > 5
    for path in files:
        assert (HOME / path).exists() or path.startswith("./secrets/")
    ignored = (HOME / ".gitignore").read_text("utf-8").splitlines()
    assert {"home.env", "secrets/"} <= set(ignored)

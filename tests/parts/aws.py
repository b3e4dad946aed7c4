"""A stand-in for AWS, which cannot be had: moto's server, at the protocol's edge.

A program under test gets what a machine of EC2 gives it and no more: no keys and no region in its environment. Both
come from the metadata service.
"""

import os
from pathlib import Path
from typing import Any, Self

import boto3

from tests.parts.metadata import Metadata
from tests.parts.missing import program
from tests.parts.ports import LOOPBACK, free_port
from tests.parts.program import Program, answers

REGION = "ap-northeast-3"
ACCOUNT = "123456789012"
KEYS = ("testing", "testing-too")
PERSON = {
    "AWS_ACCESS_KEY_ID": KEYS[0],
    "AWS_SECRET_ACCESS_KEY": KEYS[1],
    "AWS_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What a person's environment has at home, where no metadata service is."""
READY_SECONDS = 60


class Aws:
    """An AWS on this machine, as a context manager.

    Attributes:
        url: Its endpoint, for every service.
        machine: The metadata service of a machine in it.
        environ: That of a program on this machine: it has neither keys nor a region.
    """

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"http://{LOOPBACK}:{port}"
        self.machine = Metadata(credentials=KEYS, zone=f"{REGION}a")
        self.environ = {
            "PATH": os.environ["PATH"],
            "AWS_ENDPOINT_URL": self.url,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.machine.url,
            # A bench or a developer may have switched it off.
            "AWS_EC2_METADATA_DISABLED": "false",
        }
        self._server = Program(
            [program("moto_server"), "-H", LOOPBACK, "-p", str(port)], log=folder / "moto.log"
        )

    def __enter__(self) -> Self:
        self.machine.__enter__()
        self._server.start(lambda: answers(f"{self.url}/moto-api/data.json"), seconds=READY_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()
        self.machine.__exit__(None, None, None)

    def client(self, service: str, url: str | None = None, region: str = REGION) -> Any:
        """Return a client of a service, or of what stands before it at a URL."""
        return boto3.client(
            service,  # type: ignore[call-overload]  # the stubs list services by literal name
            endpoint_url=url or self.url,
            region_name=region,
            aws_access_key_id=KEYS[0],
            aws_secret_access_key=KEYS[1],
        )

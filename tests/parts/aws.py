"""A stand-in for AWS, which cannot be had: moto's server, at the protocol's edge."""

import os
from pathlib import Path
from typing import Any, Self

import boto3
import requests

from tests.parts.missing import program
from tests.parts.ports import LOOPBACK, free_port
from tests.parts.program import Program

REGION = "ap-northeast-3"
READY_SECONDS = 60


class Aws:
    """An AWS on this machine, as a context manager.

    Attributes:
        url: Its endpoint, for every service.
        environ: What makes a client use it, with the keys of an account.
    """

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"http://{LOOPBACK}:{port}"
        self.environ = {
            "PATH": os.environ["PATH"],
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing-too",
        }
        self._server = Program(
            [program("moto_server"), "-H", LOOPBACK, "-p", str(port)], log=folder / "moto.log"
        )

    def __enter__(self) -> Self:
        self._server.start(self._ready, seconds=READY_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def client(self, service: str) -> Any:
        """Return a client of a service."""
        return boto3.client(
            service,  # type: ignore[call-overload]  # the stubs list services by literal name
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id="testing",
            aws_secret_access_key="testing-too",
        )

    def _ready(self) -> bool:
        try:
            return bool(requests.get(f"{self.url}/moto-api/data.json", timeout=5).ok)
        except requests.RequestException:
            return False

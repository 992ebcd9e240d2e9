"""What the server has stored of results, and a database that fails where a test wants it to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sqlalchemy import text

from sync_server.db import Database
from sync_server.ingest.partitions import RECORD_TABLES


def rows(database: Database, statement: str, **values: object) -> list[dict[str, object]]:
    with database.session() as session:
        return [dict(row) for row in session.execute(text(statement), values).mappings()]


def stored(database: Database) -> dict[tuple[str, int], bytes]:
    """Every stored record of all tables: (stream, sequence) to digest; fails when one is there twice."""
    union = " UNION ALL ".join(f"SELECT stream_id, sequence, digest FROM {table}" for table in RECORD_TABLES)
    found = rows(
        database, f"SELECT s.stream, r.sequence, r.digest FROM ({union}) r JOIN streams s ON s.id = r.stream_id"
    )
    result = {(str(row["stream"]), int(row["sequence"])): bytes(row["digest"]) for row in found}
    assert len(result) == len(found), "a record is stored twice"
    return result


@contextlib.contextmanager
def failing(owner_database: Database, table: str, sqlstate: str, *, times: int = 1_000) -> Iterator[None]:
    """Let rows that are added to a table, or changed there, fail with an error of Postgres, the first ``times`` times."""
    body = (
        f"IF nextval('failures') <= {times} THEN RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}'; END IF; RETURN NEW;"
    )
    statements = (
        "CREATE SEQUENCE failures",
        f"CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$",
        "GRANT EXECUTE ON FUNCTION fail() TO stella_app",
        f"CREATE TRIGGER fail BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION fail()",
    )
    with owner_database.session() as session:
        for statement in statements:
            session.execute(text(statement))
    try:
        yield
    finally:
        with owner_database.session() as session:
            session.execute(text("DROP FUNCTION fail() CASCADE"))
            session.execute(text("DROP SEQUENCE failures"))

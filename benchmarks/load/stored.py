"""What the server stored of a fleet, read from its database and held against what it acknowledged."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.bench_server import libpq_url
from edge_runtime.contract.result import RECORD_KINDS


@dataclass(frozen=True, slots=True)
class Stored:
    """The comparison.

    Attributes:
        acknowledged: Records that answers said are held.
        unsettled: Records that were sent or waited when the run ended; the server may hold them, or not.
        stored: Rows in the tables of records.
        numbers: Sequence numbers that the streams' rows hold.
        twice: Rows whose stream and number another row has.
    """

    acknowledged: int
    unsettled: int
    stored: int
    numbers: int
    twice: int

    @property
    def lost(self) -> int:
        """Records that were acknowledged and are not there."""
        return max(0, self.acknowledged - self.stored + self.twice)

    @property
    def surplus(self) -> int:
        """Rows that nobody sent, or streams that hold other numbers than there are rows."""
        return max(0, self.stored - self.acknowledged - self.unsettled) + abs(self.stored - self.numbers)

    @property
    def is_right(self) -> bool:
        """Whether nothing is lost and nothing there twice."""
        return self.lost == self.twice == self.surplus == 0

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {**asdict(self), "lost": self.lost, "surplus": self.surplus, "is_right": self.is_right}


def compare(database_url: str, enrolment_id: int, *, acknowledged: int, unsettled: int) -> Stored:
    """Count what the server holds of the devices of an enrolment.

    Args:
        database_url: The app role's address.
        enrolment_id: The fleet's enrolment.
        acknowledged: Records that answers said are held.
        unsettled: Records that no answer settled.

    Raises:
        psycopg.Error: The database cannot be read.
    """
    import psycopg

    ours = "device_id IN (SELECT id FROM devices WHERE enrolment_id = %(enrolment)s)"
    rows = " UNION ALL ".join(f"SELECT stream_id, sequence FROM {kind.table} WHERE {ours}" for kind in RECORD_KINDS)
    with psycopg.connect(libpq_url(database_url)) as connection:
        given = {"enrolment": enrolment_id}
        counted = connection.execute(
            f"SELECT count(*), count(*) - count(DISTINCT (stream_id, sequence)) FROM ({rows}) AS held", given
        ).fetchone()
        numbers = connection.execute(
            f"SELECT coalesce(sum(upper(run) - lower(run)), 0) FROM streams, unnest(held) AS run WHERE {ours}", given
        ).fetchone()
    assert counted is not None
    assert numbers is not None
    return Stored(acknowledged, unsettled, int(counted[0]), int(numbers[0]), int(counted[1]))

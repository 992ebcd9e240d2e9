"""What operators ask of a server with a past: every filter alone and in pairs, with common, rare and absent values."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlencode

from benchmarks.seeding import COHORTS, DAY_MS, RARE_SIGNAL, RETIRED_SIGNAL, SIGNALS, Fleet
from edge_runtime.contract import routes
from sync_server.anomalies.filters import Filters
from sync_server.paging import encode_cursor

HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        endpoint: What the result calls it.
        filters: Its class: names of the filters with how common their values are.
        path: What is asked for.
    """

    endpoint: str
    filters: str
    path: str


def device_id(number: int) -> str:
    """Return the id of a seeded device; the lower its number, the more incidents it has."""
    return hashlib.md5(f"device {number}".encode(), usedforsecurity=False).hexdigest()


def choices(fleet: Fleet, to_ms: int, rng: random.Random) -> dict[str, dict[str, dict[str, object]]]:
    """Return values by filter and by how common they are, drawn anew at each call."""
    age = rng.randrange(2, max(3, fleet.days - 2))
    then = to_ms - age * DAY_MS
    return {
        "device": {
            "busy": {"device": device_id(rng.randint(1, 20))},
            "quiet": {"device": device_id(rng.randint(fleet.devices - 500, fleet.devices))},
            "absent": {"device": f"{rng.getrandbits(128):032x}"},
        },
        "cohort": {
            "common": {"cohort": rng.choice(COHORTS[:2])},
            "rare": {"cohort": COHORTS[-1]},
            "absent": {"cohort": f"nowhere {rng.random()}"},
        },
        "status": {"common": {"status": "resolved"}, "some": {"status": "open"}, "rare": {"status": "acknowledged"}},
        "signal": {
            "common": {"signal": rng.choice(SIGNALS[:3])},
            "some": {"signal": rng.choice(SIGNALS[12:])},
            "rare": {"signal": RARE_SIGNAL},
            "long ago": {"signal": RETIRED_SIGNAL},
            "absent": {"signal": f"nothing {rng.random()}"},
        },
        "minimum_score": {
            "common": {"minimum_score": 0.99},
            "some": {"minimum_score": 0.9995},
            "rare": {"minimum_score": 0.99999},
            "absent": {"minimum_score": 1},
        },
        "time": {
            "an hour": {"from_ms": then, "to_ms": then + HOUR_MS},
            "a week": {"from_ms": then - 7 * DAY_MS, "to_ms": then},
            "until long ago": {"to_ms": to_ms - (fleet.days - 1) * DAY_MS},
            "to come": {"from_ms": to_ms + DAY_MS},
        },
    }


def lists(fleet: Fleet, to_ms: int, rng: random.Random) -> Iterator[Request]:
    """Yield one request for each filter, each pair of filters and each pair of how common they are, in both views.

    Each at the first page and at two deep ones, where a cursor of the same filters leads to.
    """
    for view in ("incidents", "windows"):
        values = choices(fleet, to_ms, rng)
        kinds = [kind for kind in values if view == "incidents" or kind != "status"]
        picks = [[(kind, how)] for kind in kinds for how in values[kind]]
        for one, two in itertools.combinations(kinds, 2):
            picks += [[(one, a), (two, b)] for a in values[one] for b in values[two]]
        for pick in [[], *picks]:
            query: dict[str, object] = {"view": view}
            for kind, how in pick:
                query |= values[kind][how]
            title = " and ".join(f"{kind} {how}" for kind, how in pick) or "none"
            for depth in (0.0, rng.random(), rng.random()):
                yield _page(view, title, query, depth, fleet, to_ms)


def _page(view: str, title: str, query: dict[str, object], depth: float, fleet: Fleet, to_ms: int) -> Request:
    given = dict(query)
    if depth:
        filters = Filters.from_query({name: str(value) for name, value in query.items()})
        given["cursor"] = encode_cursor(filters, (to_ms - int(depth * fleet.days * DAY_MS), 2**40))
    return Request(f"{routes.ANOMALIES} {view}", title, f"{routes.ANOMALIES}?{urlencode(given)}")


def others(fleet: Fleet, rng: random.Random, count: int) -> Iterator[Request]:
    """Yield as many requests for devices, figures of the fleet, trends and the list of devices."""
    for _ in range(count):
        busy = rng.randint(1, 50)
        quiet = rng.randint(1, fleet.devices)
        yield Request(f"{routes.DEVICES}/<id>", "busy", f"{routes.DEVICES}/{device_id(busy)}")
        yield Request(f"{routes.DEVICES}/<id>", "any", f"{routes.DEVICES}/{device_id(quiet)}")
        yield Request(routes.STATS, "all", routes.STATS)
        yield Request(routes.TRENDS, "30 days", f"{routes.TRENDS}?hours=720")
        cohort = urlencode({"hours": 720, "cohort": rng.choice(COHORTS)})
        yield Request(routes.TRENDS, "30 days, a cohort", f"{routes.TRENDS}?{cohort}")

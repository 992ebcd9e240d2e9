"""How many windows one device may have scored in a minute, by each worker: a device that loops must not cost the rest.

Counted in memory: a limit that is as many times larger as there are workers still bounds, and costs no query.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sync_server.errors import RequestError

_MINUTE = 60


class DeviceQuota:
    """What each device has spent of this minute. Safe to use from threads.

    Args:
        most: Windows a minute and device.
        clock: Seconds since 1970.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.time) -> None:
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._minute = -1
        self._spent: dict[str, int] = {}

    def spend(self, device_id: str, windows: int) -> None:
        """Count windows that a device asks for, readings converted by :func:`~sync_server.scoring.service.cost_of`.

        Raises:
            RequestError: 429 when it asked for more than it may in this minute; what is refused is not counted.
        """
        now = self._clock()
        minute, second = divmod(int(now), _MINUTE)
        with self._lock:
            if minute != self._minute:  # so that the memory of devices ends with their minute
                self._minute, self._spent = minute, {}
            spent = self._spent.get(device_id, 0) + windows
            if spent <= self._most:
                self._spent[device_id] = spent
                return
        raise RequestError(
            429, "quota_exceeded", f"Device {device_id} had as many windows scored as one device may in a minute.",
            advice="Send the request again later, or fewer windows or readings.", retry_after_seconds=_MINUTE - second,
        )  # fmt: skip

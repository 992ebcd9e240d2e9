"""gunicorn's errors in the server's own log and format."""

from __future__ import annotations

import logging
from typing import Any

from gunicorn.glogging import Logger


class GunicornLogger(Logger):  # type: ignore[misc]
    """Hands gunicorn's warnings and errors to the root logger; its other lines are nobody's need."""

    def setup(self, cfg: Any) -> None:
        """Take over gunicorn's settings without its handlers."""
        self.cfg = cfg
        self.loglevel = logging.WARNING
        self.error_log.setLevel(self.loglevel)
        self.error_log.propagate = True

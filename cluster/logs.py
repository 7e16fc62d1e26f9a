"""Log lines as JSON, one object a line on stderr, for whoever collects them."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

import orjson

# What every record carries; the rest was given as `extra` and belongs to the line.
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Time, level, message, and what the caller gave as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _USUAL}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def configure(*, verbose: bool = False, stream: TextIO | None = None) -> None:
    """Send everything of this process there; libraries only when they warn, ours all if verbose."""
    handler = logging.StreamHandler(stream or sys.stderr)
    level = logging.DEBUG if verbose else logging.INFO
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for ours in ("autoscaler", "cluster", "preheat", "scheduler_extender"):
        logging.getLogger(ours).setLevel(level)

"""Log records on stderr, as text for people or as one JSON object a line."""

import json
import logging
import sys
import time

from worker.settings import LogFormat, LogLevel


class _Utc(logging.Formatter):
    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"


class _Json(_Utc):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure(level: LogLevel, style: LogFormat) -> None:
    """Send every record of this process to stderr. Calling it again replaces the first call."""
    handler = logging.StreamHandler(sys.stderr)
    match style:
        case LogFormat.JSON:
            handler.setFormatter(_Json())
        case LogFormat.TEXT:
            handler.setFormatter(_Utc("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)

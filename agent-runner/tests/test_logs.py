import json
import logging
import re

import pytest

from worker import logs
from worker.settings import LogFormat, LogLevel


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogLevel.INFO, LogFormat.TEXT)
    logging.getLogger("a").info("b %s", "c")
    logging.getLogger("a").debug("not this")
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    a: b c\n", err)


def test_json_is_one_line_also_with_an_exception(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogLevel.DEBUG, LogFormat.JSON)
    try:
        raise ValueError("é\n2")
    except ValueError:
        logging.getLogger("a").exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["message"]) == ("error", "a", "failed")
    assert entry["exception"].endswith("ValueError: é\n2")

import contextvars
import json
import logging
import re

import pytest

from worker import logs
from worker.redaction import CURRENT_REDACTOR, Redactor
from worker.settings import LogFormat, LogLevel


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogLevel.INFO, LogFormat.TEXT)
    logging.getLogger("a").info("b %s", "c")
    logging.getLogger("a").debug("not this")
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    a: b c\n", err)


def test_json_with_an_exception_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogLevel.DEBUG, LogFormat.JSON)
    try:
        raise ValueError("é\n2")
    except ValueError:
        logging.getLogger("a").exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["message"]) == ("error", "a", "failed")
    assert entry["exception"].endswith("ValueError: é\n2")


FIELDS = {"fields": {"mode": "local", "where": "a b", "count": 3}}


def test_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogLevel.INFO, LogFormat.TEXT)
    logging.getLogger("a").info("starting", extra=FIELDS)
    assert capsys.readouterr().err.endswith('a: starting mode=local where="a b" count=3\n')
    logs.configure(LogLevel.INFO, LogFormat.JSON)
    logging.getLogger("a").info("starting", extra=FIELDS)
    entry = json.loads(capsys.readouterr().err)
    assert (entry["message"], entry["mode"], entry["count"]) == ("starting", "local", 3)


@pytest.mark.parametrize("style", LogFormat)
def test_no_record_holds_a_secret(capsys: pytest.CaptureFixture[str], style: LogFormat) -> None:
    logs.configure(LogLevel.DEBUG, style, Redactor([("A", "key-1"), ("B", "key-1-and-more")]))
    try:
        raise ValueError("key-1-and-more")
    except ValueError:
        logging.getLogger("a").exception(
            "failed with %s", "key-1", extra={"fields": {"k": "key-1"}}
        )
    err = capsys.readouterr().err
    assert "key-1" not in err
    assert (err.count("[secret A]"), err.count("[secret B]")) == (2, 2)


@pytest.mark.parametrize("style", LogFormat)
def test_no_record_of_an_execution_holds_its_secrets(
    capsys: pytest.CaptureFixture[str], style: LogFormat
) -> None:
    def fail() -> None:
        CURRENT_REDACTOR.set(Redactor([("P", "hunter2\nand more")]))
        try:
            raise ValueError(b"Bearer hunter2\nand more")
        except ValueError:
            logging.getLogger("a").exception("failed with %r", "hunter2\nand more")

    logs.configure(LogLevel.DEBUG, style)
    contextvars.copy_context().run(fail)
    err = capsys.readouterr().err
    assert "hunter2" not in err
    assert err.count("[secret P]") == 3
    logging.getLogger("a").info("hunter2\nand more")  # of another execution
    assert "hunter2" in capsys.readouterr().err


def test_debug_records_of_libraries_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogLevel.DEBUG, LogFormat.TEXT)
    for library in ("hpack.hpack", "h2.config", "httpcore.http11", "httpx", "temporalio.worker"):
        logging.getLogger(library).debug("Bearer key")
    logging.getLogger("worker").debug("said")
    assert [line.split()[-1] for line in capsys.readouterr().err.splitlines()] == ["said"]
    logs.configure(LogLevel.ERROR, LogFormat.TEXT)
    logging.getLogger("httpx").warning("not this")
    assert capsys.readouterr().err == ""

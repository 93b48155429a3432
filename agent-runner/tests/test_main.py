"""The whole program, as a process."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from worker import probe

MAIN = Path(__file__).parent.parent / "main.py"
NOBODY = "127.0.0.1:1"  # a port on which nothing listens

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started = []

    def run(**environment: str) -> subprocess.Popen[str]:
        base = {"PATH": os.environ["PATH"], "TEMPORAL_SERVICE_ADDRESS": NOBODY}
        base["SANDBOX_ROOT_DIR"] = str(tmp_path / "workspace")
        base["AGENT_RUNNER_HEALTH_FILE"] = os.environ["AGENT_RUNNER_HEALTH_FILE"]
        process = subprocess.Popen(
            [sys.executable, str(MAIN)],
            env=base | environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def until_healthy() -> None:
    deadline = time.monotonic() + 20
    while not probe.check(probe.health_file())[0]:
        assert time.monotonic() < deadline, "not healthy in 20 s"
        time.sleep(0.05)


def until_said(process: subprocess.Popen[str], words: str) -> str:
    """Read what the process writes until a line has these words in it; return the line."""
    assert process.stderr
    too_long = threading.Timer(20, process.kill)
    too_long.start()
    try:
        line = next((line for line in process.stderr if words in line), "")
    finally:
        too_long.cancel()
    assert line, f"`{words}` not said in 20 s"
    return line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_is_healthy_without_temporal_and_ends_at_once(
    start: Start, number: signal.Signals
) -> None:
    process = start()
    until_healthy()
    waiting = until_said(process, "waiting for Temporal").rstrip()
    assert waiting.endswith(f"at {NOBODY}, namespace `default`: Connection refused")
    asked = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert time.monotonic() - asked < 2
    assert process.returncode == 0
    assert out == ""
    assert "waiting for Temporal" not in err
    assert not Path(probe.health_file()).exists()


def test_failing_again_is_not_told_again(start: Start) -> None:
    process = start(LOG_FORMAT="json")
    assert json.loads(until_said(process, "waiting for Temporal"))["level"] == "warning"
    time.sleep(1.5)  # two more attempts
    process.terminate()
    entries = [json.loads(line) for line in process.communicate(timeout=10)[1].splitlines()]
    assert [entry["message"] for entry in entries] == ["SIGTERM: stopping", "stopped"]


def test_a_wrong_configuration(start: Start) -> None:
    process = start(MODE="cloud", OPENAI_API_KEY="hunter2", TEMPORAL_MAX_CONCURRENCY="many")
    out, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert (out, err.splitlines()) == (
        "",
        [
            "The agent-runner cannot start:",
            "  TEMPORAL_MAX_CONCURRENCY input should be a valid integer, "
            "unable to parse string as an integer",
            "  STIGMER_API_KEY is needed in MODE=cloud",
            "hint: agent-runner/.env.example describes every variable",
        ],
    )


def test_no_secret_is_logged(start: Start) -> None:
    names = ("STIGMER_API_KEY", "STIGMER_LLM_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY")
    process = start(LOG_LEVEL="debug", **dict.fromkeys(names, "hunter2"))
    until_healthy()
    written = Path(probe.health_file()).read_text()
    process.terminate()
    out, err = process.communicate(timeout=10)
    assert "hunter2" not in out + err + written


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_before_the_worker_serves_is_a_clean_one(number: signal.Signals) -> None:
    script = (
        "import os, main\n"
        "from worker.settings import Settings\n"
        f"Settings.load = lambda: os.kill(os.getpid(), {int(number)})\n"
        "main.exit_process(main.main())\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=MAIN.parent, check=False)
    assert ended.returncode == 0


def test_it_ends_without_taking_the_interpreter_down() -> None:
    """Else Temporal's threads abort a clean stop, now and then: see `main.exit_process`."""
    script = (
        "import atexit, main\n"
        "atexit.register(print, 'taken down')\n"
        "print('last words', end='')\n"
        "main.exit_process(3)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=MAIN.parent, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "last words", "")

"""Tests the whole program as a process."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from worker import probe

MAIN = Path(__file__).parent.parent / "main.py"
UNUSED_ADDRESS = "127.0.0.1:1"  # nothing listens on this port

WORKER = (sys.executable, str(MAIN))

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started = []

    def run(
        *, command: Sequence[str] = WORKER, files: int | None = None, **environment: str
    ) -> subprocess.Popen[str]:
        def limit_files() -> None:
            if files is not None:
                hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))

        base = {"PATH": os.environ["PATH"], "TEMPORAL_SERVICE_ADDRESS": UNUSED_ADDRESS}
        base["SANDBOX_ROOT_DIR"] = str(tmp_path / "workspace")
        base["AGENT_RUNNER_HEALTH_FILE"] = os.environ["AGENT_RUNNER_HEALTH_FILE"]
        process = subprocess.Popen(
            command,
            env=base | environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=limit_files,  # noqa: PLW1509 (a limit of the worker only)
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


def until_logged(process: subprocess.Popen[str], words: str) -> str:
    """Read the process's log until a line contains these words. Returns the line."""
    assert process.stderr
    timer = threading.Timer(20, process.kill)
    timer.start()
    try:
        line = next((line for line in process.stderr if words in line), "")
    finally:
        timer.cancel()
    assert line, f"`{words}` not logged in 20 s"
    return line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_is_healthy_without_temporal_and_stops_at_once(
    start: Start, number: signal.Signals
) -> None:
    process = start()
    until_healthy()
    waiting = until_logged(process, "waiting for Temporal").rstrip()
    assert waiting.endswith(f"at {UNUSED_ADDRESS}, namespace `default`: Connection refused")
    asked = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - asked < 20
    assert process.returncode == 0
    assert out == ""
    assert "waiting for Temporal" not in err
    assert not Path(probe.health_file()).exists()


def test_run_sh_finds_a_python_with_the_dependencies(start: Start, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "dirname", "du", "true"):  # and no `poetry`
        (programs / name).symlink_to(shutil.which(name) or name)
    python = programs / "python3.11"  # no link: it would not find the virtual environment
    python.write_text(f'#!/bin/sh\necho started >> "{tmp_path}/log"\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    process = start(command=[str(MAIN.with_name("run.sh"))], PATH=str(programs))
    until_healthy()
    if not (MAIN.parent / ".venv").exists():
        assert (tmp_path / "log").read_text() == "started\n" * 2  # to look, and to run
    process.terminate()
    assert process.wait(10) == 0


def test_it_may_open_many_files(start: Start) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    process = start(files=256)
    until_healthy()
    lines = Path(f"/proc/{process.pid}/limits").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("Max open files"))
    expected = 65536 if hard == resource.RLIM_INFINITY else min(65536, hard)
    assert int(line.split()[3]) == expected


def test_a_repeated_failure_is_logged_once(start: Start) -> None:
    process = start(LOG_FORMAT="json")
    assert json.loads(until_logged(process, "waiting for Temporal"))["level"] == "warning"
    time.sleep(1.5)  # two more attempts
    process.terminate()
    entries = [json.loads(line) for line in process.communicate(timeout=10)[1].splitlines()]
    assert [entry["message"] for entry in entries] == ["SIGTERM: stopping", "stopped"]


def test_the_start_says_which_model_is_used_and_why(start: Start) -> None:
    process = start(
        LOG_FORMAT="json",
        OPENAI_API_KEY="sk-hunter2",
        ANTHROPIC_API_KEY="sk-hunter3",
        STIGMER_LLM_BASE_URL="https://me:hunter4@gateway:1/v1?key=hunter5",
    )
    entry = json.loads(until_logged(process, "starting"))
    shown = {name: entry[name] for name in entry if name.startswith(("provider", "model"))}
    assert shown == {
        "provider": "openai",
        "provider_from": "OPENAI_API_KEY",
        "model": "gpt-5.4",
        "model_from": "default",
        "model_url": "https://gateway:1/v1",
        "model_url_from": "STIGMER_LLM_BASE_URL",
        "model_key_from": "OPENAI_API_KEY",
    }
    assert "STIGMER_LLM_PROVIDER is not: using openai" in until_logged(process, "ANTHROPIC_API_KEY")


def test_the_start_names_variables_without_effect(start: Start) -> None:
    process = start(TASK_QUEUE="hunter2", REDIS_HOST="hunter2")
    line = until_logged(process, "these variables have no effect")
    assert "TASK_QUEUE (the task queue is `agent_execution_runner`)" in line
    assert "hunter2" not in line


def test_the_start_warns_of_a_model_that_is_probably_elsewhere(start: Start) -> None:
    process = start(STIGMER_BACKEND_ENDPOINT="stigmer-server:7234")
    line = until_logged(process, "stigmer-server is at stigmer-server:7234")
    assert "executions use ollama at http://localhost:11434, which is this machine" in line


def test_an_unexpected_error_is_logged_without_secrets(tmp_path: Path) -> None:
    script = (
        "import main\nfrom worker import service\n"
        "def run(settings, *_): raise ValueError(settings.stigmer_api_key.get_secret_value())\n"
        "service.run = run\nmain.exit_process(main.main())\n"
    )
    environment = {"STIGMER_API_KEY": "hunter2hunter2\n", "SANDBOX_ROOT_DIR": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=MAIN.parent,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "ValueError: [secret STIGMER_API_KEY]" in ended.stderr
    assert "hunter2" not in ended.stderr


def test_an_invalid_configuration(start: Start) -> None:
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
def test_a_stop_during_the_start_exits_with_0(number: signal.Signals) -> None:
    script = (
        "import os, main\n"
        "from worker.settings import Settings\n"
        f"Settings.load = lambda: os.kill(os.getpid(), {int(number)})\n"
        "main.exit_process(main.main())\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=MAIN.parent, check=False)
    assert ended.returncode == 0


def test_it_exits_without_finalizing_the_interpreter() -> None:
    """Otherwise Temporal's threads sometimes abort a clean stop. See `main.exit_process`."""
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

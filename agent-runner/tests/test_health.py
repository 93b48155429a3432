import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from worker import health, probe
from worker.settings import Settings, SettingsError

PROBE = [sys.executable, "-I", "-S", probe.__file__]


@pytest.fixture
def published() -> health.HealthFile:
    return health.HealthFile.publish(Settings.load(), {"pydantic": "2"})


def path() -> Path:
    return Path(probe.health_file())


def test_a_running_worker_is_healthy(published: health.HealthFile) -> None:
    published.set_phase(health.Phase.POLLING)
    done = subprocess.run(PROBE, capture_output=True, text=True, check=False)
    line = f"healthy: worker pid {os.getpid()}, polling, heartbeat 0 s ago\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, line, "")


def test_the_content_of_the_health_file(published: health.HealthFile) -> None:
    state = json.loads(path().read_text())
    assert state == {
        "pid": os.getpid(),
        "start": probe.process_start(os.getpid()),
        "phase": "waiting for Temporal",
        "problem": "",
        "python": ".".join(map(str, sys.version_info[:3])),
        "packages": {"pydantic": "2"},
        "config": Settings.load().digest,
    }
    assert [entry.name for entry in path().parent.iterdir()] == ["health.json"]


def test_a_problem_is_unhealthy(published: health.HealthFile) -> None:
    published.set_problem("the workspace is full")
    done = subprocess.run(PROBE, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "unhealthy: the workspace is full\n")
    published.set_problem("")
    assert probe.check(str(path()))[0]


def test_a_missing_health_file(published: health.HealthFile) -> None:
    published.remove()
    done = subprocess.run(PROBE, capture_output=True, text=True, check=False)
    line = f"unhealthy: `{path()}` does not exist: the worker has not started, or has stopped\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)


def test_a_stuck_event_loop(published: health.HealthFile) -> None:
    long_ago = time.time() - 60
    os.utime(path(), (long_ago, long_ago))
    assert probe.check(str(path())) == (
        False,
        f"the worker (pid {os.getpid()}, waiting for Temporal) is stuck: last heartbeat 60 s ago",
    )
    published.record_heartbeat()
    assert probe.check(str(path()))[0]


def test_another_process_with_the_same_pid(published: health.HealthFile) -> None:
    state = json.loads(path().read_text())
    path().write_text(json.dumps(state | {"start": state["start"] - 1}))
    assert probe.check(str(path())) == (False, f"the worker (pid {os.getpid()}) has ended")


def test_a_zombie_counts_as_ended() -> None:
    child = subprocess.Popen(["sleep", "60"])
    assert probe.process_start(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert probe.process_start(child.pid) is None
    child.wait()
    assert probe.process_start(child.pid) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"pid": "x", "start": 1, "phase": "p"}'])
def test_a_broken_health_file(published: health.HealthFile, text: str) -> None:
    path().write_text(text)
    healthy, line = probe.check(str(path()))
    assert not healthy
    assert line.startswith(f"`{path()}` cannot be read: ")


def test_a_deleted_health_file_is_written_again(published: health.HealthFile) -> None:
    path().unlink()
    published.record_heartbeat()
    assert probe.check(str(path()))[0]


def test_the_path_of_the_health_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENT_RUNNER_HEALTH_FILE")
    monkeypatch.setenv("TMPDIR", "/elsewhere")
    assert probe.health_file() == f"/elsewhere/agent-runner-{os.getuid()}/health.json"
    monkeypatch.delenv("TMPDIR")
    assert probe.health_file() == f"/tmp/agent-runner-{os.getuid()}/health.json"


def test_a_health_file_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_RUNNER_HEALTH_FILE", "/proc/health.json")
    with pytest.raises(SettingsError, match=r"`/proc/health[.]json` cannot be written"):
        health.HealthFile.publish(Settings.load(), {})


def test_every_dependency_is_imported() -> None:
    assert sorted(health.check_imports(execution=True)) == [
        "grpclib",
        "httpx",
        "protobuf",
        "pydantic",
        "pydantic-settings",
        "temporalio",
    ]


def test_a_missing_dependency_is_unhealthy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(health.DEPENDENCIES, "no_such_module", None)
    monkeypatch.setattr(sys, "argv", ["health", "--full"])
    assert health.main() == 1
    error = "unhealthy: ModuleNotFoundError: No module named 'no_such_module'\n"
    assert capsys.readouterr() == ("", error)


def test_a_start_detects_a_missing_dependency_of_executions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(health.EXECUTION_DEPENDENCIES, "not_there", "not-there")
    with pytest.raises(ImportError, match="no module named not_there"):
        health.check_imports()

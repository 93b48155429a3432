"""Tests the metrics over HTTP, as Prometheus reads them."""

import re
import urllib.request
from pathlib import Path

import pytest

from stigmer_stubs import agentexecution_pb2 as pb
from tests.ports import free_port
from tests.runners import Runner, until
from tests.stack import answer, needs_temporal, start_stack


def read(address: str) -> dict[str, float]:
    """The metrics, by name and labels. Labels that Temporal adds are left out."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    values = {}
    for line in lines:
        if match := re.fullmatch(r"(\w+)(?:{(.*)})? (\S+)", line):
            labels = re.findall(r'(?:result|direction|tool)="\w+"', match[2] or "")
            values[match[1] + "".join(f" {label}" for label in sorted(labels))] = float(match[3])
    return values


@needs_temporal
async def test_the_metrics_count_what_executions_do(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    async with start_stack(tmp_path / "workspace") as stack:
        runner = await stack.runner(METRICS_ADDRESS=address)
        assert "x" in answer(await stack.run("run: echo x", "a"))
        answer(await stack.run('!tool read_file {"path": "none"}\n!tool nonsense {}\n!say x', "a"))
        assert (await stack.run("!fail 400\n!say x", "b")).phase == pb.EXECUTION_FAILED
        answer(await stack.run("!fail 503 1\n!say x", "b"))
        # An execution is counted after its final status was sent.
        completed = 'agent_runner_executions_total result="completed"'
        await until(lambda: read(address).get(completed) == 3)
        found = read(address)
        assert {name: found[name] for name in found if "agent_runner" in name and "_b" not in name
                and "seconds" not in name} == {
            completed: 3,
            'agent_runner_executions_total result="failed"': 1,
            "agent_runner_model_rounds_total": 6,
            "agent_runner_model_retries_total": 1,
            'agent_runner_tokens_total direction="input"': 60,
            'agent_runner_tokens_total direction="output"': 30,
            'agent_runner_tool_calls_total result="completed" tool="run_command"': 1,
            'agent_runner_tool_calls_total result="failed" tool="read_file"': 1,
            'agent_runner_tool_calls_total result="failed" tool="unknown"': 1,
        }  # fmt: skip
        assert found['agent_runner_execution_seconds_count result="completed"'] == 3
        assert "temporal_activity_execution_latency_count" in " ".join(found)
        assert await runner.end() == 0


@needs_temporal
async def test_an_address_in_use_is_reported(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    async with start_stack(tmp_path / "workspace") as stack:
        first = await stack.runner(METRICS_ADDRESS=address)
        second = Runner(stack.root, first.environment)
        with pytest.raises(AssertionError, match=f"METRICS_ADDRESS `{address}`: "):
            await second.start()
        assert second.process.returncode == 2
        assert await first.end() == 0

"""Counters of the worker, beside those of Temporal's SDK."""

from collections.abc import Mapping

from temporalio.common import MetricMeter

from graphton.agent import Observer
from graphton.chat import ModelError, Reply, ToolUse
from graphton.subagents import SubAgentObserver
from stigmer_stubs import agentexecution_pb2 as pb


class Metrics:
    """The counters. They have no effect if METRICS_ADDRESS is not set.

    Args:
        meter: The meter of Temporal's runtime.
    """

    def __init__(self, meter: MetricMeter = MetricMeter.noop) -> None:
        self._executions = meter.create_counter(
            "agent_runner_executions_total", "Executions that have ended, by result"
        )
        self._seconds = meter.create_histogram_float(
            "agent_runner_execution_seconds", "The duration of executions", "s"
        )
        self._waiting_seconds = meter.create_histogram_float(
            "agent_runner_session_wait_seconds", "The time in the queue of a session", "s"
        )
        self._rounds = meter.create_counter("agent_runner_model_rounds_total", "Replies of models")
        self._retries = meter.create_counter(
            "agent_runner_model_retries_total", "Requests to models that were sent again"
        )
        self._tokens = meter.create_counter("agent_runner_tokens_total", "Tokens, by direction")
        self._tool_calls = meter.create_counter(
            "agent_runner_tool_calls_total", "Tool calls that have ended, by tool and result"
        )

    def execution_ended(self, phase: pb.ExecutionPhase, seconds: float, waited: float) -> None:
        """Count an execution with this final phase, its duration and its time in the queue."""
        result = pb.ExecutionPhase.Name(phase).removeprefix("EXECUTION_").lower()
        self._executions.add(1, {"result": result})
        self._seconds.record(seconds, {"result": result})
        self._waiting_seconds.record(waited)

    def reply_received(self, reply: Reply) -> None:
        """Count a reply and its tokens."""
        self._rounds.add(1)
        self._tokens.add(reply.usage.input_tokens, {"direction": "input"})
        self._tokens.add(reply.usage.output_tokens, {"direction": "output"})

    def request_repeated(self) -> None:
        """Count a request to a model that is sent again."""
        self._retries.add(1)

    def tool_finished(self, name: str, failed: bool) -> None:
        """Count a tool call."""
        self._tool_calls.add(1, {"tool": name, "result": "failed" if failed else "completed"})


class CountingObserver(Observer):
    """Counts what it observes, and passes it on.

    Args:
        observer: The observer to pass it on to.
        metrics: The counters.
        labels: What to call each tool that exists. A model can ask for others.
    """

    def __init__(self, observer: Observer, metrics: Metrics, labels: Mapping[str, str]) -> None:
        self._observer = observer
        self._metrics = metrics
        self._labels = labels

    def text_received(self, text: str) -> None:
        """See Observer."""
        self._observer.text_received(text)

    def reply_received(self, reply: Reply) -> None:
        """See Observer."""
        self._metrics.reply_received(reply)
        self._observer.reply_received(reply)

    def retrying(self, error: ModelError, pause: float) -> None:
        """See Observer."""
        self._metrics.request_repeated()
        self._observer.retrying(error, pause)

    def tool_started(self, use: ToolUse) -> None:
        """See Observer."""
        self._observer.tool_started(use)

    def tool_finished(self, use: ToolUse, result: str, failed: bool) -> None:
        """See Observer."""
        self._metrics.tool_finished(self._labels.get(use.name, "unknown"), failed)
        self._observer.tool_finished(use, result, failed)


class CountingSubAgentObserver(CountingObserver, SubAgentObserver):
    """The same for a sub-agent.

    Args:
        observer: The observer to pass it on to.
        metrics: The counters.
        labels: What to call each tool that exists.
    """

    def __init__(
        self, observer: SubAgentObserver, metrics: Metrics, labels: Mapping[str, str]
    ) -> None:
        super().__init__(observer, metrics, labels)
        self._sub_agent = observer

    def ended(self, output: str, error: str) -> None:
        """See SubAgentObserver."""
        self._sub_agent.ended(output, error)

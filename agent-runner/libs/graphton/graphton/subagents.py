"""The tool with which a model gives a task to a sub-agent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Protocol

from pydantic import Field, create_model

from graphton.agent import Agent, Consumption, LimitError, Observer, RunLimits
from graphton.chat import ChatModel, Message, ModelError, Reply, ToolUse
from graphton.tools import Tool, ToolArguments, ToolError

SUB_AGENT_TOOL: Final = "task"
"""The name of the tool."""

SHARE: Final = 2
"""A sub-agent may use one part in this many of what is left of the run's rounds and tokens.

So the agent that asked for it can still go on after a sub-agent that reached its limit."""


class Task(ToolArguments):
    """Arguments of task. The model is told which names `agent` may have."""

    agent: str
    prompt: Annotated[str, Field(description="the whole task", min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubAgent:
    """An agent that works on a part of the task, in the same sandbox.

    Attributes:
        name: The name, different from those of the other sub-agents.
        description: What it is for, for the model that chooses it.
        system: Its instructions.
        tools: Tools that it may use in addition to those of all sub-agents.
    """

    name: str
    description: str
    system: str
    tools: Sequence[Tool] = ()


class SubAgentObserver(Observer, Protocol):
    """Follows the run of a sub-agent. The methods must neither block nor raise."""

    def ended(self, output: str, error: str) -> None:
        """The run has ended, with this answer, or with an error and no answer.

        This is not called for a run that is cancelled.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class SubAgentTool:
    """Makes the tool. A sub-agent does not get it, and so has no sub-agents.

    Attributes:
        model: The language model of the sub-agents.
        agents: The sub-agents, at least one.
        tools: The tools that all sub-agents may use.
        limits: The limits of the run that the sub-agents belong to.
        consumed: What this run has consumed. What sub-agents consume is added to it.
        observe: Returns the observer of a sub-agent that is about to run. It gets its name and its
            task.
        redact: Removes secrets from a text before it is stored or shown.
    """

    model: ChatModel
    agents: Sequence[SubAgent]
    tools: Sequence[Tool]
    limits: RunLimits
    consumed: Consumption
    observe: Callable[[str, str], SubAgentObserver]
    redact: Callable[[str], str] = str

    @property
    def tool(self) -> Tool:
        """The tool."""
        listed = "\n".join(
            f"- `{agent.name}`: {agent.description or 'no description'}" for agent in self.agents
        )
        # Not a Literal: with one name it becomes `const`, which not every service reads.
        names: Any = Annotated[
            str, Field(json_schema_extra={"enum": [agent.name for agent in self.agents]})
        ]
        return Tool(
            name=SUB_AGENT_TOOL,
            description="Give a task to a sub-agent. It works in the same folder, and answers when "
            "it has finished. It does not know this conversation: the prompt has to say everything "
            f"it needs. The sub-agents are:\n{listed}",
            arguments=create_model("TaskOfThese", __base__=Task, agent=(names, ...)),
            run=self._run,
        )

    async def _run(self, arguments: Task) -> str:
        agent = next((agent for agent in self.agents if agent.name == arguments.agent), None)
        if agent is None:
            known = ", ".join(agent.name for agent in self.agents)
            raise ToolError(f"there is no sub-agent `{arguments.agent}`; there are: {known}")
        limits = self._limits()
        observer = self.observe(agent.name, arguments.prompt)
        worker = Agent(
            self.model,
            system=agent.system,
            tools=[*self.tools, *agent.tools],
            limits=limits,
            redact=self.redact,
        )
        try:
            outcome = await worker.run(
                [], arguments.prompt, _Consuming(observer, self.consumed), _forget
            )
        except (LimitError, ModelError) as error:
            observer.ended("", str(error))
            raise ToolError(f"the sub-agent `{agent.name}` failed: {error}") from None
        except Exception as error:
            observer.ended("", f"the sub-agent failed: {type(error).__name__}")
            raise
        observer.ended(outcome.text, "")
        return outcome.text

    def _limits(self) -> RunLimits:
        rounds = (self.limits.rounds - self.consumed.rounds) // SHARE
        tokens = (self.limits.tokens - self.consumed.usage.charged) // SHARE
        if rounds < 1 or tokens < 1:
            raise ToolError(
                "too little is left of the limits of this execution for a sub-agent: "
                "finish the task without one"
            )
        return RunLimits(rounds=rounds, tokens=tokens)


def _forget(_: Sequence[Message]) -> None:
    """Store nothing: a sub-agent begins anew each time."""


class _Consuming(Observer):
    """Adds each reply to what the run has consumed, and passes everything on."""

    def __init__(self, observer: Observer, consumed: Consumption) -> None:
        self._observer = observer
        self._consumed = consumed

    def text_received(self, text: str) -> None:
        self._observer.text_received(text)

    def reply_received(self, reply: Reply) -> None:
        self._consumed.add(reply)
        self._observer.reply_received(reply)

    def retrying(self, error: ModelError, pause: float) -> None:
        self._observer.retrying(error, pause)

    def tool_started(self, use: ToolUse) -> None:
        self._observer.tool_started(use)

    def tool_finished(self, use: ToolUse, result: str, failed: bool) -> None:
        self._observer.tool_finished(use, result, failed)

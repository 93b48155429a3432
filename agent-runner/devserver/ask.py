"""A client that creates an execution, shows its progress, and prints the answer."""

import re
import sys
import uuid
from typing import Any, Final

import grpc.aio

from devserver.methods import CREATE_SESSION
from stigmer_stubs import agent_pb2, session_pb2
from stigmer_stubs import agentexecution_pb2 as pb
from stigmer_stubs import backend as contract
from stigmer_stubs.backend import Method

EXECUTION_FAILED: Final = 3
"""The exit code if the execution did not complete. Container engines use 1 and 125 to 127."""

REQUEST_FAILED: Final = 4
"""The exit code if the server did not answer or refused the request."""


API_VERSION: Final = "agentic.stigmer.ai/v1"

DEFAULT_ORGANIZATION: Final = "local"
"""The organization for an agent that has none. Only the devserver has such agents."""


def _call(channel: grpc.aio.Channel, method: Method[Any, Any]) -> Any:
    make = channel.unary_stream if method.streams else channel.unary_unary
    return make(
        method.path,
        request_serializer=method.request.SerializeToString,
        response_deserializer=method.reply.FromString,
    )


async def find_session(
    channel: grpc.aio.Channel, metadata: list[tuple[str, str]], name: str, agent: agent_pb2.Agent
) -> str:
    """Find a session by its id, or create one of this name for the agent. Return its id.

    The server makes no session for an execution, and chooses the id of a session itself.
    """
    try:
        wanted = session_pb2.SessionId(value=name)
        await _call(channel, contract.GET_SESSION)(wanted, metadata=metadata)
        return name
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.NOT_FOUND:
            raise
    session = session_pb2.Session(api_version=API_VERSION, kind="Session")
    session.metadata.name, session.metadata.org = name, organization_of(agent)
    session.spec.agent_instance_id = agent.status.default_instance_id
    created = await _call(channel, CREATE_SESSION)(session, metadata=metadata)
    return str(created.metadata.id)


async def find_agent(
    channel: grpc.aio.Channel, metadata: list[tuple[str, str]], agent_id: str
) -> agent_pb2.Agent:
    """Find an agent by its id.

    Raises:
        grpc.aio.AioRpcError: if the server refuses. If it has no such agent, standard error says
            how to name another one.
    """
    wanted = agent_pb2.AgentId(value=agent_id)
    try:
        agent: agent_pb2.Agent = await _call(channel, contract.GET_AGENT)(wanted, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        if error.code() == grpc.StatusCode.NOT_FOUND:
            print(
                f"the server has no agent `{agent_id}`: name one of its agents with `--agent ID`",
                file=sys.stderr,
            )
        raise
    return agent


def organization_of(agent: agent_pb2.Agent) -> str:
    """The organization of an agent. Its executions and sessions belong to the same one."""
    return agent.metadata.org or DEFAULT_ORGANIZATION


async def ask(
    server: str,
    message: str,
    *,
    session: str,
    agent: str,
    model: str,
    workspace: str,
    api_key: str,
) -> int:
    """Ask an agent. Prints the answer to standard output and the progress to standard error.

    Returns:
        The exit code: 0 for a completed execution, else EXECUTION_FAILED or REQUEST_FAILED.
    """
    execution = pb.AgentExecution(api_version=API_VERSION, kind="AgentExecution")
    execution.metadata.name = f"ask-{uuid.uuid4().hex[:12]}"
    execution.spec.agent_id = agent
    execution.spec.message = message
    execution.spec.execution_config.model_name = model
    metadata = [("authorization", f"Bearer {api_key}")] if api_key else []
    async with grpc.aio.insecure_channel(server) as channel:
        try:
            found = await find_agent(channel, metadata, agent)
            execution.metadata.org = organization_of(found)
            if session:
                session = await find_session(channel, metadata, session, found)
                execution.spec.session_id = session
            created = await _call(channel, contract.CREATE_EXECUTION)(execution, metadata=metadata)
            suffix = f" of session {session}" if session else ""
            print(f"execution {created.metadata.id}{suffix}", file=sys.stderr)
            last, shown = created, set[tuple[str, str]]()
            changes = _call(channel, contract.SUBSCRIBE_EXECUTION)(
                pb.AgentExecutionId(value=created.metadata.id), metadata=metadata
            )
            async for last in changes:
                for call in last.status.tool_calls:
                    line = (call.id, pb.ToolCallStatus.Name(call.status).removeprefix("TOOL_CALL_"))
                    if line not in shown:
                        shown.add(line)
                        print(f"  {call.name}: {line[1].lower()}", file=sys.stderr)
        except grpc.aio.AioRpcError as error:
            print(f"{server}: {error.code().name}: {error.details()}", file=sys.stderr)
            return REQUEST_FAILED
    return report(last.status, folder_of(session, workspace))


def folder_of(session: str, workspace: str) -> str:
    """The folder of a session's files, with a slash at its end; empty if it is not known.

    `worker.sandbox.sandbox_id` makes this name. It uses a hash if the session's name is not valid
    in a path; then the result is empty here.
    """
    valid = re.fullmatch(r"[A-Za-z0-9._-]{1,100}", session)
    return f"{workspace.rstrip('/')}/thread-{session}/" if valid and workspace else ""


def report(status: pb.AgentExecutionStatus, folder: str = "") -> int:
    """Print the result of an execution, and return the exit code."""
    answers = [m.content for m in status.messages if m.type == pb.MESSAGE_AI and m.content]
    if answers:
        print(answers[-1])
    written = {
        str(call.args.fields["path"].string_value)
        for call in status.tool_calls
        if call.name in {"write_file", "edit_file"} and call.status == pb.TOOL_CALL_COMPLETED
    }
    for path in sorted(written):
        print(f"file: {folder}{path}", file=sys.stderr)
    if status.phase != pb.EXECUTION_COMPLETED:
        phase = pb.ExecutionPhase.Name(status.phase)
        print(f"{phase}: {status.error}" if status.error else phase, file=sys.stderr)
        return EXECUTION_FAILED
    return 0

"""Tests input that the devserver does not send: missing fields, unusual texts, unknown fields."""

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from google.protobuf.json_format import MessageToDict
from temporalio.api.common.v1 import Payload

from stigmer_stubs import agentexecution_pb2 as pb
from stigmer_stubs.session_pb2 import Session
from stigmer_stubs.skill_pb2 import Skill
from tests.stack import Stack, answer, needs_temporal, start_stack
from tests.test_executions import add_agent
from tests.test_skills import zipped
from worker.convert import CONVERTER
from worker.status import MAX_STATUS_BYTES, json_size

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with start_stack(tmp_path_factory.mktemp("lenient") / "workspace") as stack:
        runner = await stack.runner()
        yield stack
        assert await runner.end() == 0
        assert "Traceback" not in "".join(runner.log)


@needs_temporal
@pytest.mark.parametrize(
    ("session", "message"),
    [
        ("empty", ""),
        ("blank", " \n\t"),
        ("ünï/../🎉", "schön 🎉 \u202e\0\ufffe\u2028"),
        ("s" * 500, "a long name"),
        ("large", "x" * 1_000_000),
        ("escaped", "\1" * 300_000),  # six bytes each in JSON
    ],
    ids=["empty", "blank", "odd", "long-name", "large", "escaped"],
)
async def test_any_text_is_accepted_as_a_message(shared: Stack, session: str, message: str) -> None:
    execution_id = await shared.create(message, session)
    returned = await shared.server.workflow(execution_id).result()
    for status in (returned, await shared.ended(execution_id)):
        assert answer(status).startswith(f"You said: {message[:1000]}".rstrip())
    assert json_size(returned) <= MAX_STATUS_BYTES
    again = answer(await shared.run("what did I ask before?", session))
    assert again.startswith(f"You asked before: {message[:1000]}".rstrip())


@needs_temporal
@pytest.mark.parametrize("names", [["helper", ""], ["helper", "helper"]], ids=["none", "twice"])
async def test_each_sub_agent_needs_a_name_of_its_own(shared: Stack, names: list[str]) -> None:
    agent = add_agent(shared, "nameless")
    for name in names:
        agent.spec.sub_agents.add(name=name)
    status = await shared.run("hello", "nameless")
    assert status.phase == pb.EXECUTION_FAILED
    assert status.error.startswith("each sub-agent of an agent needs a name of its own")
    assert [m.content for m in status.messages] == ["hello"], "the model was not asked"


@needs_temporal
async def test_missing_fields_count_as_empty(shared: Stack) -> None:
    agent = add_agent(shared, "bare")
    agent.ClearField("spec")
    assert answer(await shared.run("hello", "bare")) == "You said: hello"
    session = shared.server.store.get(Session, "bare")
    assert session
    session.ClearField("spec")
    assert answer(await shared.run("hello", "bare", agent="bare")) == "You said: hello"


@needs_temporal
async def test_an_earlier_status_is_replaced(shared: Stack) -> None:
    execution = pb.AgentExecution()
    execution.spec.agent_id, execution.spec.message = "dev-agent", "hello"
    # A newer server may have more phases and kinds of messages.
    execution.status.phase = 77  # type: ignore[assignment]
    execution.status.messages.add(type=55, content="old")
    created = await shared.server.create(execution)
    status = await shared.ended(created.metadata.id)
    assert [m.content for m in status.messages] == ["hello", "You said: hello"]


@needs_temporal
async def test_a_skill_needs_a_page_but_no_hash(shared: Stack) -> None:
    agent = add_agent(shared, "hashless")
    for name in ("one", "two", "none"):
        skill = Skill()
        skill.metadata.slug = name
        if name != "none":
            skill.status.artifact_storage_key = name
            page = f"# {name}\n".encode()
            shared.server.store.artifacts[name] = zipped({"SKILL.md": page})
        shared.server.store.add(skill)
    for name in ("one", "two"):
        agent.spec.skill_refs.add(slug=name, kind=999)  # a kind that this version does not know
    system = answer(await shared.run("!say {system}", "hashless"))
    assert "- `one`: one (`bin/skills/" in system
    assert "- `two`: two (`bin/skills/" in system
    agent.spec.skill_refs.add(slug="none")
    status = await shared.run("hello", "hashless")
    assert status.phase == pb.EXECUTION_FAILED
    assert status.error.startswith("skill `none`: it has no page: ")


@pytest.mark.parametrize("encoding", ["json/protobuf", "json/plain"])
async def test_unknown_fields_and_enum_values_are_accepted(encoding: str) -> None:
    """JSON contains the names of fields and enum values, so that unknown ones can occur."""
    execution = pb.AgentExecution()
    execution.metadata.id, execution.spec.message = "e", "hello"
    value = MessageToDict(execution)
    value["metadata"]["ownerScope"] = "galaxy"
    value["status"] = {"phase": "EXECUTION_PAUSED", "startedAt": "then", "mood": {"good": True}}
    metadata = {"encoding": encoding.encode()}
    if encoding == "json/protobuf":
        metadata["messageType"] = execution.DESCRIPTOR.full_name.encode()
    payload = Payload(metadata=metadata, data=json.dumps(value).encode())
    (read,) = CONVERTER.payload_converter.from_payloads([payload], [pb.AgentExecution])
    execution.metadata.SetInParent()
    execution.status.started_at = "then"
    assert read == execution

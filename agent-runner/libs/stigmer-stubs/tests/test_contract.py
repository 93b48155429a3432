"""Compares the package with the contract, which contract.txt and this file repeat on purpose.

With a typing error in the package, the runner could not communicate with the server.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor

from stigmer_stubs import agentexecution_pb2, apiresource_pb2, backend, temporal

LIBRARY = Path(__file__).parent.parent
PROTOS = sorted(f"stigmer_stubs/{path.name}" for path in LIBRARY.glob("proto/*/*.proto"))


def files() -> list[FileDescriptor]:
    return [descriptor_pool.Default().FindFileByName(name) for name in PROTOS]


def kind(field: FieldDescriptor) -> str:
    if field.message_type and field.message_type.GetOptions().map_entry:
        key, value = (field.message_type.fields_by_name[n] for n in ("key", "value"))
        return f"map<{kind(key)}, {kind(value)}>"
    composed = field.message_type or field.enum_type
    scalars = {field.TYPE_STRING: "string", field.TYPE_BOOL: "bool"}
    scalars |= {field.TYPE_INT32: "int32", field.TYPE_BYTES: "bytes"}
    return composed.full_name if composed else scalars[field.type]


def fields(message: Descriptor) -> list[str]:
    lines = [message.full_name]
    for field in message.fields:
        repeats = field.is_repeated and not kind(field).startswith("map<")
        one_of = f" ({field.containing_oneof.name})" if field.containing_oneof else ""
        lines.append(
            f"  {field.number} {field.name}: {'repeated ' if repeats else ''}{kind(field)}{one_of}"
        )
    return lines


def described() -> list[list[str]]:
    """Describe every message, enum and method in the format of contract.txt."""
    found = []
    for file in files():
        found += [fields(message) for message in file.message_types_by_name.values()]
        found += [
            [enum.full_name, *(f"  {v.number} {v.name}" for v in enum.values)]
            for enum in file.enum_types_by_name.values()
        ]
        for service in file.services_by_name.values():
            for method in service.methods:
                stream = "stream " if method.server_streaming else ""
                types = f"{method.input_type.full_name} -> {stream}{method.output_type.full_name}"
                found.append([f"/{service.full_name}/{method.name}: {types}"])
    return found


def expected() -> list[list[str]]:
    blocks: list[list[str]] = []
    for line in (LIBRARY / "tests/contract.txt").read_text().splitlines():
        if line.startswith("  "):
            blocks[-1].append(line)
        else:
            blocks.append([line])
    return blocks


def test_messages_enums_and_methods_match_the_contract() -> None:
    assert sorted(described()) == sorted(expected())
    assert len(expected()) == 63


def test_the_generated_files_are_up_to_date(tmp_path: Path) -> None:
    command = ["sh", str(LIBRARY / "generate.sh"), str(tmp_path)]
    subprocess.run(command, check=True, env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"})
    fresh = {path.name: path.read_text() for path in (tmp_path / "stigmer_stubs").iterdir()}
    ours = {path.name: path.read_text() for path in LIBRARY.glob("stigmer_stubs/*_pb2.py*")}
    assert len(fresh) == 2 * len(PROTOS) == 18
    assert fresh == ours


METHODS = [method for method in vars(backend).values() if isinstance(method, backend.Method)]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.path.rpartition(".")[2])
def test_methods_match_the_services(method: backend.Method) -> None:  # type: ignore[type-arg]
    service, name = method.path.removeprefix("/").split("/")
    described_method = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    assert method.request.DESCRIPTOR is described_method.input_type
    assert method.reply.DESCRIPTOR is described_method.output_type
    assert method.streams is described_method.server_streaming


def test_every_method_has_its_constant() -> None:
    in_protos = {line.split(":")[0] for (line, *_) in expected() if line.startswith("/")}
    assert {method.path for method in METHODS} == in_protos


def test_temporal_names() -> None:
    assert temporal.RUNNER_TASK_QUEUE == "agent_execution_runner"
    assert temporal.WORKFLOW_TASK_QUEUE == "agent_execution_stigmer"
    assert (temporal.ENSURE_THREAD, temporal.EXECUTE_GRAPHTON, temporal.CLEANUP_SANDBOX) == (
        "EnsureThread",
        "ExecuteGraphton",
        "CleanupSandbox",
    )
    assert (temporal.DEFAULT_ADDRESS, temporal.DEFAULT_NAMESPACE) == ("localhost:7233", "default")
    assert backend.DEFAULT_ENDPOINT == "localhost:7234"


def test_field_numbers() -> None:
    status = agentexecution_pb2.AgentExecutionStatus(phase=agentexecution_pb2.EXECUTION_FAILED)
    status.error = "e"
    assert status.SerializeToString() == b"\x10\x04\x32\x01e"
    reference = apiresource_pb2.ApiResourceReference(slug="s", version="v")
    assert reference.SerializeToString() == b"\x22\x01s\x2a\x01v"


def test_unknown_fields_pass_through() -> None:
    newer = agentexecution_pb2.AgentExecutionId(value="x").SerializeToString() + b"\xfa\x01\x01n"
    assert agentexecution_pb2.AgentExecutionId.FromString(newer).SerializeToString() == newer


def test_final_phases() -> None:
    names = agentexecution_pb2.ExecutionPhase
    assert {names.Name(phase) for phase in backend.FINAL_PHASES} == {
        "EXECUTION_COMPLETED",
        "EXECUTION_FAILED",
        "EXECUTION_CANCELLED",
    }

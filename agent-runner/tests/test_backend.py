"""Tests the gRPC client with a grpcio server, which is a different implementation."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
from grpclib.const import Status

from stigmer_stubs import backend
from stigmer_stubs.agent_pb2 import Agent, AgentId
from worker.backend import Backend, BackendError
from worker.endpoint import Endpoint

Handler = Callable[[AgentId, "grpc.aio.ServicerContext[AgentId, Agent]"], Awaitable[Agent]]


@asynccontextmanager
async def serving(
    handler: Handler, port: int = 0, tls: grpc.ServerCredentials | None = None
) -> AsyncIterator[int]:
    """Start a server with the method GET_AGENT, and yield its port."""
    server = grpc.aio.server()
    service, method = backend.GET_AGENT.path.removeprefix("/").split("/")
    call = grpc.unary_unary_rpc_method_handler(
        handler,
        request_deserializer=AgentId.FromString,
        response_serializer=Agent.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: call}),)
    )
    address = f"127.0.0.1:{port}"
    bound = server.add_secure_port(address, tls) if tls else server.add_insecure_port(address)
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(None)


async def echo(request: AgentId, context: "grpc.aio.ServicerContext[AgentId, Agent]") -> Agent:
    sent = dict(context.invocation_metadata() or ())
    agent = Agent(api_version=str(sent.get("authorization", "none")))
    agent.metadata.id = request.value
    return agent


@pytest.mark.parametrize(
    ("text", "host", "port", "tls", "shown"),
    [
        ("localhost:7234", "localhost", 7234, False, "localhost:7234"),
        ("http://host.docker.internal:7234", "host.docker.internal", 7234, False, None),
        ("http://h:1/", "h", 1, False, "h:1"),
        ("https://api.example.com", "api.example.com", 443, True, "https://api.example.com:443"),
        ("https://h:8443", "h", 8443, True, None),
        ("api.example.com:443", "api.example.com", 443, True, "https://api.example.com:443"),
        ("http://h:443", "h", 443, False, None),
        ("[::1]:7234", "::1", 7234, False, "[::1]:7234"),
    ],
)
def test_endpoints(text: str, host: str, port: int, tls: bool, shown: str | None) -> None:
    endpoint = Endpoint.parse(text)
    assert endpoint == Endpoint(host, port, tls)
    if shown:
        assert str(endpoint) == shown


@pytest.mark.parametrize(
    "text",
    ["", "localhost", ":1", "h:0", "h:65536", "h:x", "ftp://h:1", "http://u:p@h:1", "h:1/path"],
)
def test_an_invalid_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"should be|[Pp]ort"):
        Endpoint.parse(text)


async def test_the_key_is_sent_as_a_bearer_token() -> None:
    async with serving(echo) as port:
        for key, seen in (("k-1", "Bearer k-1"), (None, "none")):
            server = Backend(Endpoint("127.0.0.1", port), key)
            agent = await server.call(backend.GET_AGENT, AgentId(value="a"))
            assert (agent.metadata.id, agent.api_version) == ("a", seen)
            server.close()


async def test_a_refused_call_is_not_retried() -> None:
    calls = []

    async def refuse(
        request: AgentId, context: "grpc.aio.ServicerContext[AgentId, Agent]"
    ) -> Agent:
        calls.append(request.value)
        await context.abort(grpc.StatusCode.NOT_FOUND, "no agent `a`")
        raise AssertionError

    async with serving(refuse) as port:
        server = Backend(Endpoint("127.0.0.1", port))
        with pytest.raises(BackendError) as caught:
            await server.call(backend.GET_AGENT, AgentId(value="a"))
        server.close()
    assert caught.value.code is Status.NOT_FOUND
    assert str(caught.value) == (
        f"stigmer-server at 127.0.0.1:{port} refused AgentQueryController/get: "
        "NOT_FOUND: no agent `a`"
    )
    assert calls == ["a"]


async def test_the_client_reconnects_to_a_restarted_server() -> None:
    async with serving(echo) as port:
        server = Backend(Endpoint("127.0.0.1", port))
        await server.call(backend.GET_AGENT, AgentId(value="before"))
    with pytest.raises(BackendError, match="cannot be reached") as caught:
        await server.call(backend.GET_AGENT, AgentId(), retry_for=0.5)
    assert caught.value.code is Status.UNAVAILABLE

    waiting = asyncio.create_task(
        server.call(backend.GET_AGENT, AgentId(value="after"), retry_for=20)
    )
    await asyncio.sleep(0.5)
    assert not waiting.done()
    async with serving(echo, port):
        assert (await waiting).metadata.id == "after"
    server.close()


async def test_an_unavailable_server_is_retried() -> None:
    calls = []

    async def busy(request: AgentId, context: "grpc.aio.ServicerContext[AgentId, Agent]") -> Agent:
        calls.append(request.value)
        if len(calls) < 3:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "starting")
        return Agent(kind="Agent")

    async with serving(busy) as port:
        server = Backend(Endpoint("127.0.0.1", port))
        assert (await server.call(backend.GET_AGENT, AgentId())).kind == "Agent"
        server.close()
    assert len(calls) == 3


async def test_a_server_that_does_not_answer_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(request: AgentId, context: "grpc.aio.ServicerContext[AgentId, Agent]") -> Agent:
        await asyncio.sleep(20)
        return Agent()

    async with serving(sleep) as port:
        server = Backend(Endpoint("127.0.0.1", port))
        started = time.monotonic()
        with pytest.raises(BackendError, match=r"did not answer|DEADLINE_EXCEEDED"):
            await server.call(backend.GET_AGENT, AgentId(), retry_for=1)
        assert time.monotonic() - started < 10
        server.close()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A key and a self-signed certificate for localhost."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return key, cert


async def test_tls(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    key, cert = certificate
    tls = grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())])
    async with serving(echo, tls=tls) as port:
        server = Backend(Endpoint("localhost", port, tls=True))
        with pytest.raises(BackendError, match=r"certificate|CERTIFICATE"):
            await server.call(backend.GET_AGENT, AgentId(), retry_for=0)
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        agent = await server.call(backend.GET_AGENT, AgentId(value="a"))
        assert agent.metadata.id == "a"
        server.close()

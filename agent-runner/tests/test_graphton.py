"""Tests the agent loop with the scripted model, over the providers' HTTP APIs."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from devserver.model import ModelServer
from graphton.agent import Agent, LimitError, Outcome, RunLimits
from graphton.chat import ModelError, Reply, ToolUse
from graphton.files import Folder
from graphton.memory import ThreadMemory
from graphton.model import Effort, ModelConfig, Provider
from graphton.providers import connect
from graphton.tools import SandboxTools


@pytest.fixture
def server() -> Iterator[ModelServer]:
    server = ModelServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    (tmp_path / "box/.tmp").mkdir(parents=True)
    with Folder(tmp_path / "box") as folder:
        yield folder


class RecordingObserver:
    """An observer that records each event as a line."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.texts: list[str] = []

    def text_received(self, text: str) -> None:
        self.texts.append(text)

    def reply_received(self, reply: Reply) -> None:
        self.lines.append(f"replied {reply.text!r} {[use.name for use in reply.tool_uses]}")

    def retrying(self, error: ModelError, pause: float) -> None:
        self.lines.append(f"retrying {error.status}")

    def tool_started(self, use: ToolUse) -> None:
        self.lines.append(f"began {use.name}")

    def tool_finished(self, use: ToolUse, result: str, failed: bool) -> None:
        self.lines.append(f"{'failed' if failed else 'ended'} {use.name}: {result}")


def config(server: ModelServer, provider: Provider = Provider.OPENAI) -> ModelConfig:
    path = "/v1" if provider is Provider.OPENAI else ""
    return ModelConfig.resolve(
        provider, model="scripted", base_url=server.url + path, api_key="k-1"
    )


async def run(
    model: ModelConfig,
    folder: Folder,
    request: str,
    observer: RecordingObserver | None = None,
    *,
    limits: RunLimits | None = None,
    thread: str = "t",
    redact: Callable[[str], str] = str,
) -> Outcome:
    chat = connect(model)
    agent = Agent(
        chat,
        system="You are a test.",
        tools=SandboxTools(folder, {}, redact).all,
        limits=limits or RunLimits(),
        redact=redact,
    )
    memory = ThreadMemory(folder, thread)
    try:
        return await agent.run(memory.load(), request, observer or RecordingObserver(), memory.save)
    finally:
        await chat.close()


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("provider", Provider)
async def test_tools_are_used_until_the_final_answer(
    server: ModelServer, folder: Folder, provider: Provider, streams: bool
) -> None:
    server.stream = streams
    observer = RecordingObserver()
    request = (
        '!tool write_file {"path": "a.txt", "content": "grün"}\n'
        '!and list_files {}\n!tool read_file {"path": "none"}\n!say {system} It is {result}'
    )
    outcome = await run(config(server, provider), folder, request, observer)
    answer = "You are a test. It is `none`: No such file or directory"
    assert outcome.text == answer
    assert (outcome.rounds, outcome.usage.input_tokens, outcome.usage.output_tokens) == (3, 30, 15)
    assert folder.read("a.txt", 10) == "grün".encode()
    assert observer.lines == [
        "replied '' ['write_file', 'list_files']",
        "began write_file",
        "ended write_file: created `a.txt`: 5 bytes",
        "began list_files",
        "ended list_files: .tmp/\na.txt  5 bytes",
        "replied '' ['read_file']",
        "began read_file",
        "failed read_file: `none`: No such file or directory",
        f"replied {answer!r} []",
    ]
    if streams:
        assert observer.texts[0] == "You"
        assert observer.texts[-1] == answer
    # Each provider expects its own path and header.
    path, headers, body = server.requests[-1]
    assert path == {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}.get(
        provider, "/api/chat"
    )
    key = "x-api-key" if provider is Provider.ANTHROPIC else "authorization"
    assert headers[key].removeprefix("Bearer ") == "k-1"
    assert body["model"] == "scripted"


@pytest.mark.parametrize("provider", Provider)
async def test_the_options_of_a_reply_are_sent(
    server: ModelServer, folder: Folder, provider: Provider
) -> None:
    await run(config(server, provider), folder, "hello")
    default = server.requests[-1][2]
    await run(replace(config(server, provider), max_tokens=77, temperature=0.0), folder, "hello")
    body = server.requests[-1][2]
    names = ("max_tokens", "num_predict", "temperature")
    before, after = ({**sent, **sent.get("options", {})} for sent in (default, body))
    assert {name: after[name] for name in names if name in after} == {
        "num_predict" if provider is Provider.OLLAMA else "max_tokens": 77,
        "temperature": 0.0,
    }
    assert [name for name in names if name in before] == (
        ["max_tokens"] if provider is Provider.ANTHROPIC else []
    )


@pytest.mark.parametrize("streams", [True, False])
async def test_openai_itself_is_asked_with_the_responses_api(
    server: ModelServer, folder: Folder, monkeypatch: pytest.MonkeyPatch, streams: bool
) -> None:
    monkeypatch.setattr(Provider, "default_base_url", server.url + "/v1")
    server.stream = streams
    model = replace(config(server), max_tokens=77, effort=Effort.LOW)
    request = '!tool write_file {"path": "a", "content": "1"}\n!and list_files {}\n!say {result}'
    outcome = await run(model, folder, request)
    assert (outcome.text, outcome.rounds) == (".tmp/\na  1 bytes", 2)
    path, _, body = server.requests[-1]
    assert path == "/v1/responses"
    assert (body["max_output_tokens"], body["reasoning"]) == (77, {"effort": "low"})
    again = await run(model, folder, "what did I ask before?")
    assert again.text == f"You asked before: {request}"


async def test_results_refer_to_the_ids_of_their_tool_uses(
    server: ModelServer, folder: Folder
) -> None:
    request = "!tool list_files {}\n!and list_files {}\n!tool list_files {}\n!say x"
    await run(config(server), folder, request)
    messages = server.requests[-1][2]["messages"]
    asked = [call["id"] for m in messages for call in m.get("tool_calls", [])]
    answered = [m["tool_call_id"] for m in messages if m["role"] == "tool"]
    assert asked == answered
    assert len(set(asked)) == 3


async def test_each_thread_has_its_own_memory(server: ModelServer, folder: Folder) -> None:
    await run(config(server), folder, "my name is Ada", thread="thread-1")
    await run(config(server), folder, "run: echo hi", thread="thread-1")
    other = await run(config(server), folder, "what did I ask before?", thread="thread-2")
    assert other.text == "You asked before: "
    # Each of the providers can continue the conversation.
    for provider in Provider:
        outcome = await run(
            config(server, provider), folder, "what did I ask before?", thread="thread-1"
        )
        assert outcome.text.startswith("You asked before: my name is Ada | run: echo hi")


@pytest.mark.parametrize("status", [429, 500, 503, 529])
async def test_temporary_failures_are_retried(
    server: ModelServer, folder: Folder, status: int
) -> None:
    observer = RecordingObserver()
    outcome = await run(config(server), folder, f"!fail {status} 1\n!say at last", observer)
    assert outcome.text == "at last"
    assert observer.lines[0] == f"retrying {status}"


async def test_an_incomplete_response_is_retried(server: ModelServer, folder: Folder) -> None:
    for provider in Provider:
        observer = RecordingObserver()
        request = f"!cut\n!say one two three four five six {provider}"
        outcome = await run(config(server, provider), folder, request, observer)
        assert outcome.text == f"one two three four five six {provider}"
        assert observer.lines[0] == "retrying None"


@pytest.mark.parametrize("provider", Provider)
async def test_a_refusal_is_not_retried_and_does_not_show_the_key(
    server: ModelServer, folder: Folder, provider: Provider
) -> None:
    with pytest.raises(ModelError) as caught:
        await run(config(server, provider), folder, "!fail 401\n!say x")
    assert "401 scripted failure 401 (is its API key set and correct?)" in str(caught.value)
    assert "k-1" not in str(caught.value)
    assert len(server.requests) == 1


async def test_an_unreachable_service(monkeypatch: pytest.MonkeyPatch, folder: Folder) -> None:
    monkeypatch.setattr("graphton.model_client.FIRST_RETRY_SECONDS", 0.01)
    gone = ModelConfig.resolve(Provider.OLLAMA, base_url="http://127.0.0.1:1")
    with pytest.raises(ModelError, match=r"ollama at .*:1 cannot be reached.*6 times"):
        await run(gone, folder, "x")


async def test_an_unexpected_response(server: ModelServer, folder: Folder) -> None:
    with pytest.raises(ModelError, match="sent an unexpected response"):
        await run(config(server), folder, "!fail 200\n!say x")


async def test_local_services_bypass_the_proxy_and_errors_show_no_password(
    server: ModelServer, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    url = server.url.replace("//", "//user:pass@") + "/v1"
    with_password = ModelConfig.resolve(Provider.OPENAI, base_url=url)
    assert (await run(with_password, folder, "hello")).text == "You said: hello"
    with pytest.raises(ModelError) as caught:
        await run(with_password, folder, "!fail 400\n!say x")
    assert f"openai at {server.url}/v1 refused" in str(caught.value)


async def test_an_ollama_with_only_the_openai_api(server: ModelServer, folder: Folder) -> None:
    from devserver import model

    paths = dict(model._APIS)
    del model._APIS["/api/chat"]
    try:
        outcome = await run(config(server, Provider.OLLAMA), folder, "hello")
    finally:
        model._APIS.update(paths)
    assert outcome.text == "You said: hello"


async def test_a_service_that_omits_optional_fields(server: ModelServer, folder: Folder) -> None:
    server.omit_optional_fields = True
    model = ModelConfig.resolve(Provider.OPENAI, base_url=server.url)  # without /v1
    request = (
        '!tool write_file {"path": "a", "content": "1"}\n'
        '!and write_file {"path": "b", "content": "22"}\n!say both: {result}'
    )
    assert (await run(model, folder, request)).text == "both: created `b`: 2 bytes"
    assert folder.read("a", 9) + folder.read("b", 9) == b"122"
    assert [path for path, _, _ in server.requests] == [
        "/chat/completions",
        *["/v1/chat/completions"] * 2,
    ]


async def test_limits(server: ModelServer, folder: Folder) -> None:
    endless = "\n".join(["!tool list_files {}"] * 10)
    for limits, words in (
        (RunLimits(rounds=3), "after 3 rounds"),
        (RunLimits(tokens=40), "after 45 tokens: the limit is 40"),
    ):
        with pytest.raises(LimitError, match=words):
            await run(config(server), folder, endless, limits=limits)
    started = time.monotonic()
    slow = '!tool run_command {"command": "sleep 30"}\n!say x'
    with pytest.raises(LimitError, match="stopped after 1 s"):
        await run(config(server), folder, slow, limits=RunLimits(seconds=1))
    assert time.monotonic() - started < 15


async def test_tools_that_are_not_there_and_arguments_that_are_wrong(
    server: ModelServer, folder: Folder
) -> None:
    observer = RecordingObserver()
    await run(config(server), folder, '!tool fly {}\n!and read_file {"x": 1}\n!say ok', observer)
    assert observer.lines[2].startswith("failed fly: there is no tool `fly`; there are: read_file")
    assert observer.lines[4].startswith("failed read_file: wrong arguments for read_file: path")


async def test_no_secret_is_stored(server: ModelServer, folder: Folder) -> None:
    def redact(text: str) -> str:
        return text.replace("hunter2", "[secret]")

    request = '!tool run_command {"command": "echo hunter2"}\n!say it is {result}'
    observer = RecordingObserver()
    await run(config(server), folder, request, observer, redact=redact)
    assert "ended run_command: [secret]\n" in observer.lines
    results = [m for m in server.requests[-1][2]["messages"] if m["role"] == "tool"]
    assert [m["content"] for m in results] == ["[secret]\n"]

"""The scripted model, over HTTP: as OpenAI, Anthropic and Ollama serve theirs."""

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import urlsplit

from devserver.script import Answer, Turn, next_answer


class ModelServer:
    """The server, in threads of its own.

    Attributes:
        port: Where it listens.
        requests: What was asked: the path, the headers, the body.
        stream: Whether it streams to whoever wants that.
        loose: Whether it leaves out of OpenAI's stream what some services leave out.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        outer = self

        class Handler(_Handler):
            server_of = outer

        self._server = _Server((host, port), Handler)
        self.port = int(self._server.server_address[1])
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.stream = True
        self.omit_optional_fields = False
        self.ready: Callable[[], bool] = lambda: True
        self._failed: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it is, without a path."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Serve, in the background."""
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()

    def count_failure(self, what: str) -> int:
        """How often this was asked to fail, this time included."""
        with self._lock:
            self._failed[what] += 1
            return self._failed[what]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_of: ClassVar[ModelServer]

    def log_message(self, *_: object) -> None:
        """Nothing: the runner's log tells enough."""

    def do_GET(self) -> None:
        """`/health`: 200 once the devserver can be used."""
        if self.path != "/health":
            self._json(404, {"error": {"message": f"no such path: {self.path}"}})
            return
        ready = self.server_of.ready()
        self._json(200 if ready else 503, {"status": "ok" if ready else "starting"})

    def do_POST(self) -> None:
        """A request to the model."""
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", "0"))))
        path = urlsplit(self.path).path
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server_of.requests.append((path, headers, body))
        api = _APIS.get(path)
        if api is None:
            self._json(404, {"error": {"message": f"no such path: {path}"}})
            return
        system, turns = _conversation(body)
        said = next_answer(system, turns)
        time.sleep(said.sleep)
        key = json.dumps(body["messages"], sort_keys=True)
        if said.fail == 200:
            self._json(200, {"choices": [{"message": {"tool_calls": [{"id": 1}]}}]})
            return
        if said.fail and not 0 < said.times < self.server_of.count_failure(key):
            self._json(said.fail, {"error": {"message": f"scripted failure {said.fail}"}})
            return
        cut = said.cut and self.server_of.count_failure(f"cut {key}") == 1
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if body.get("stream") and self.server_of.stream:
                events = list(api().events(said))
                if self.server_of.omit_optional_fields:
                    events = [_without_optional_fields(event) for event in events]
                self._stream(api.kind, events, cut)
            else:
                self._json(200, api().whole(said))

    def _json(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        if status in (429, 503):
            self.send_header("retry-after", "0.1")
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(data)

    def _stream(self, kind: str, events: list[str], cut: bool) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in events[: len(events) // 2] if cut else events:
            data = event.encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()
        if cut:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")


def _conversation(body: dict[str, Any]) -> tuple[str, list[Turn]]:
    """The instructions and the turns, of any of the APIs."""
    system = str(body.get("system") or "")
    turns = []
    for message in body["messages"]:
        content = message.get("content") or ""
        if message["role"] == "system":
            system = content
        elif isinstance(content, str):
            turns.append(Turn(message["role"], content))
        else:
            results = [b for b in content if b["type"] == "tool_result"]
            turns += [Turn("tool", str(b["content"])) for b in results]
            texts = [b["text"] for b in content if b["type"] == "text"]
            if texts or not results:
                turns.append(Turn(message["role"], "".join(texts)))
    return system, turns


def _without_optional_fields(event: str) -> str:
    """An event of OpenAI's without an end's reason and without the numbers of tool calls."""
    if not event.startswith("data: {"):
        return event
    value = json.loads(event.removeprefix("data: "))
    for choice in value["choices"]:
        choice.pop("finish_reason")
        for call in choice["delta"].get("tool_calls", []):
            call.pop("index")
    return f"data: {json.dumps(value)}\n\n"


def _words(text: str) -> Iterator[str]:
    for number, word in enumerate(text.split(" ")):
        yield word if number == 0 else f" {word}"


class _OpenAI:
    kind = "text/event-stream"
    USAGE: ClassVar = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}

    @staticmethod
    def _calls(said: Answer) -> list[dict[str, Any]]:
        return [
            {
                "index": number,
                "id": f"call_{number}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(arguments)},
            }
            for number, (name, arguments) in enumerate(said.tools)
        ]

    def whole(self, said: Answer) -> dict[str, Any]:
        message = {"role": "assistant", "content": said.text, "tool_calls": self._calls(said)}
        reason = "tool_calls" if said.tools else "stop"
        return {"choices": [{"message": message, "finish_reason": reason}], "usage": self.USAGE}

    def events(self, said: Answer) -> Iterator[str]:
        def event(delta: dict[str, Any], reason: str | None = None) -> str:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            return f"data: {json.dumps({'choices': [choice]})}\n\n"

        yield event({"role": "assistant", "content": ""})
        if said.text:
            yield from (event({"content": word}) for word in _words(said.text))
        for call in self._calls(said):
            arguments = call["function"]["arguments"]
            first = {**call, "function": {**call["function"], "arguments": arguments[:7]}}
            yield event({"tool_calls": [first]})
            rest = {"index": call["index"], "function": {"arguments": arguments[7:]}}
            yield event({"tool_calls": [rest]})
        yield event({}, "tool_calls" if said.tools else "stop")
        yield f"data: {json.dumps({'choices': [], 'usage': self.USAGE})}\n\n"
        yield "data: [DONE]\n\n"


class _Anthropic:
    kind = "text/event-stream"

    def whole(self, said: Answer) -> dict[str, Any]:
        return {
            "type": "message",
            "role": "assistant",
            "content": self._blocks(said),
            "stop_reason": "tool_use" if said.tools else "end_turn",
            "usage": {"input_tokens": 10, "output_tokens": 5},
        }

    @staticmethod
    def _blocks(said: Answer) -> list[dict[str, Any]]:
        blocks: list[dict[str, Any]] = [{"type": "text", "text": said.text}] if said.text else []
        return blocks + [
            {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": arguments}
            for number, (name, arguments) in enumerate(said.tools)
        ]

    def events(self, said: Answer) -> Iterator[str]:
        def event(kind: str, **fields: Any) -> str:
            return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n"

        yield event("message_start", message={"usage": {"input_tokens": 10, "output_tokens": 1}})
        yield event("ping")
        for index, block in enumerate(self._blocks(said)):
            if block["type"] == "text":
                empty, text = {**block, "text": ""}, block["text"]
                parts = [{"type": "text_delta", "text": word} for word in _words(text)]
            else:
                empty, text = {**block, "input": {}}, json.dumps(block["input"])
                parts = [
                    {"type": "input_json_delta", "partial_json": part}
                    for part in ("", text[:5], text[5:])
                ]
            yield event("content_block_start", index=index, content_block=empty)
            yield from (event("content_block_delta", index=index, delta=part) for part in parts)
            yield event("content_block_stop", index=index)
        reason = "tool_use" if said.tools else "end_turn"
        yield event("message_delta", delta={"stop_reason": reason}, usage={"output_tokens": 5})
        yield event("message_stop")


class _Ollama:
    kind = "application/x-ndjson"

    @staticmethod
    def _end(said: Answer, text: str) -> dict[str, Any]:
        calls = [{"function": {"name": n, "arguments": a}} for n, a in said.tools]
        return {
            "message": {"role": "assistant", "content": text, "tool_calls": calls},
            "done": True,
            "done_reason": "stop",
            "prompt_eval_count": 10,
            "eval_count": 5,
        }

    def whole(self, said: Answer) -> dict[str, Any]:
        return self._end(said, said.text)

    def events(self, said: Answer) -> Iterator[str]:
        for word in _words(said.text):
            message = {"role": "assistant", "content": word}
            yield json.dumps({"message": message, "done": False}) + "\n"
        yield json.dumps(self._end(said, "")) + "\n"


_APIS: dict[str, type[_OpenAI] | type[_Anthropic] | type[_Ollama]] = {
    "/v1/chat/completions": _OpenAI,
    "/v1/messages": _Anthropic,
    "/api/chat": _Ollama,
}

"""Serves the scripted model with the HTTP APIs of OpenAI (both), Anthropic and Ollama."""

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import urlsplit

from devserver.script import ScriptedReply, Turn, next_reply


class ModelServer:
    """An HTTP server in background threads.

    Attributes:
        port: The port on which it listens.
        requests: The path, headers and body of each request for a reply so far.
        stream: Whether to stream replies to clients that ask for it.
        omit_optional_fields: Whether to omit fields in OpenAI's stream that some services omit.
        ready: Returns whether `/health` reports that the devserver is ready.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        outer = self

        class Handler(_Handler):
            model_server = outer

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
        """The URL of the server, without a path."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start serving in the background."""
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def count_failure(self, what: str) -> int:
        """Count a request that the script wants to fail, and return the count."""
        with self._lock:
            self._failed[what] += 1
            return self._failed[what]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    model_server: ClassVar[ModelServer]

    def log_message(self, *_: object) -> None:
        """Log nothing: the runner's log is enough."""

    def do_GET(self) -> None:
        """Answer `/health` with 200 when the devserver is ready."""
        if self.path != "/health":
            self._json(404, {"error": {"message": f"no such path: {self.path}"}})
            return
        ready = self.model_server.ready()
        self._json(200 if ready else 503, {"status": "ok" if ready else "starting"})

    def do_POST(self) -> None:
        """Answer a request to the model."""
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", "0"))))
        path = urlsplit(self.path).path
        if path == "/api/show":
            self._json(200, _OLLAMA_MODEL)
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.model_server.requests.append((path, headers, body))
        api = _APIS.get(path)
        if api is None:
            self._json(404, {"error": {"message": f"no such path: {path}"}})
            return
        system, turns = _conversation(body)
        reply = next_reply(system, turns)
        time.sleep(reply.sleep)
        key = json.dumps(body.get("messages") or body.get("input"), sort_keys=True)
        if reply.fail == 200:
            self._json(200, {"choices": [{"message": {"tool_calls": [{"id": 1}]}}]})
            return
        if reply.fail and not 0 < reply.times < self.model_server.count_failure(key):
            self._json(reply.fail, {"error": {"message": f"scripted failure {reply.fail}"}})
            return
        cut = reply.cut and self.model_server.count_failure(f"cut {key}") == 1
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if body.get("stream") and self.model_server.stream:
                events = list(api().events(reply))
                if self.model_server.omit_optional_fields:
                    events = [_without_optional_fields(event) for event in events]
                self._stream(api.content_type, events, cut)
            else:
                self._json(200, api().whole(reply))

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

    def _stream(self, content_type: str, events: list[str], cut: bool) -> None:
        self.send_response(200)
        self.send_header("content-type", content_type)
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
    """Parse the instructions and the turns from a request of any of the APIs."""
    system = _text(body.get("system") or body.get("instructions") or "")
    turns = []
    previous = ""
    for message in body.get("messages") or body["input"]:
        kind = message.get("type", "")
        content = message.get("content") or ""
        if kind == "function_call_output":
            turns.append(Turn("tool", message["output"]))
        elif kind in {"function_call", "reasoning"}:
            if previous not in {"function_call", "reasoning"}:  # the items of one reply
                turns.append(Turn("assistant", ""))
        elif message["role"] == "system":
            system = _text(content)
        elif isinstance(content, str):
            turns.append(Turn(message["role"], content))
        else:
            results = [b for b in content if b["type"] == "tool_result"]
            turns += [Turn("tool", str(b["content"])) for b in results]
            texts = [b for b in content if b["type"] == "text"]
            if texts or not results:
                turns.append(Turn(message["role"], _text(texts)))
        previous = kind
    return system, turns


def _text(content: str | list[dict[str, Any]]) -> str:
    """The text of a message, which can be a list of blocks."""
    if isinstance(content, str):
        return content
    return "\n\n".join(block["text"] for block in content)


def _without_optional_fields(event: str) -> str:
    """Remove the finish reason and the indexes of tool calls from an event of OpenAI's stream."""
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
    content_type = "text/event-stream"
    USAGE: ClassVar = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}

    @staticmethod
    def _calls(reply: ScriptedReply) -> list[dict[str, Any]]:
        return [
            {
                "index": number,
                "id": f"call_{number}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(arguments)},
            }
            for number, (name, arguments) in enumerate(reply.tools)
        ]

    def whole(self, reply: ScriptedReply) -> dict[str, Any]:
        message = {"role": "assistant", "content": reply.text, "tool_calls": self._calls(reply)}
        reason = "tool_calls" if reply.tools else "stop"
        return {"choices": [{"message": message, "finish_reason": reason}], "usage": self.USAGE}

    def events(self, reply: ScriptedReply) -> Iterator[str]:
        def event(delta: dict[str, Any], reason: str | None = None) -> str:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            return f"data: {json.dumps({'choices': [choice]})}\n\n"

        yield event({"role": "assistant", "content": ""})
        if reply.text:
            yield from (event({"content": word}) for word in _words(reply.text))
        for call in self._calls(reply):
            arguments = call["function"]["arguments"]
            first = {**call, "function": {**call["function"], "arguments": arguments[:7]}}
            yield event({"tool_calls": [first]})
            rest = {"index": call["index"], "function": {"arguments": arguments[7:]}}
            yield event({"tool_calls": [rest]})
        yield event({}, "tool_calls" if reply.tools else "stop")
        yield f"data: {json.dumps({'choices': [], 'usage': self.USAGE})}\n\n"
        yield "data: [DONE]\n\n"


class _Responses:
    content_type = "text/event-stream"

    @staticmethod
    def _output(reply: ScriptedReply) -> list[dict[str, Any]]:
        text = {"type": "output_text", "text": reply.text, "annotations": []}
        message = {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [text],
        }
        calls = [
            {
                "type": "function_call",
                "id": f"fc_{number}",
                "call_id": f"call_{number}",
                "name": name,
                "arguments": json.dumps(arguments),
                "status": "completed",
            }
            for number, (name, arguments) in enumerate(reply.tools)
        ]
        return ([message] if reply.text else []) + calls

    def whole(self, reply: ScriptedReply) -> dict[str, Any]:
        usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
        return {
            "object": "response",
            "status": "completed",
            "error": None,
            "output": self._output(reply),
            "usage": usage,
        }

    def events(self, reply: ScriptedReply) -> Iterator[str]:
        def event(kind: str, **fields: Any) -> str:
            return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n"

        yield event("response.created", response={"status": "in_progress"})
        for index, item in enumerate(self._output(reply)):
            yield event("response.output_item.added", output_index=index, item={**item})
            if item["type"] == "message":
                for word in _words(reply.text):
                    yield event("response.output_text.delta", output_index=index, delta=word)
            yield event("response.output_item.done", output_index=index, item=item)
        yield event("response.completed", response=self.whole(reply))


class _Anthropic:
    content_type = "text/event-stream"

    def whole(self, reply: ScriptedReply) -> dict[str, Any]:
        return {
            "type": "message",
            "role": "assistant",
            "content": self._blocks(reply),
            "stop_reason": "tool_use" if reply.tools else "end_turn",
            "usage": {"input_tokens": 10, "output_tokens": 5},
        }

    @staticmethod
    def _blocks(reply: ScriptedReply) -> list[dict[str, Any]]:
        blocks: list[dict[str, Any]] = [{"type": "text", "text": reply.text}] if reply.text else []
        return blocks + [
            {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": arguments}
            for number, (name, arguments) in enumerate(reply.tools)
        ]

    def events(self, reply: ScriptedReply) -> Iterator[str]:
        def event(kind: str, **fields: Any) -> str:
            return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n"

        yield event("message_start", message={"usage": {"input_tokens": 10, "output_tokens": 1}})
        yield event("ping")
        for index, block in enumerate(self._blocks(reply)):
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
        reason = "tool_use" if reply.tools else "end_turn"
        yield event("message_delta", delta={"stop_reason": reason}, usage={"output_tokens": 5})
        yield event("message_stop")


class _Ollama:
    content_type = "application/x-ndjson"

    @staticmethod
    def _end(reply: ScriptedReply, text: str) -> dict[str, Any]:
        calls = [{"function": {"name": n, "arguments": a}} for n, a in reply.tools]
        return {
            "message": {"role": "assistant", "content": text, "tool_calls": calls},
            "done": True,
            "done_reason": "stop",
            "prompt_eval_count": 10,
            "eval_count": 5,
        }

    def whole(self, reply: ScriptedReply) -> dict[str, Any]:
        return self._end(reply, reply.text)

    def events(self, reply: ScriptedReply) -> Iterator[str]:
        for word in _words(reply.text):
            message = {"role": "assistant", "content": word}
            yield json.dumps({"message": message, "done": False}) + "\n"
        yield json.dumps(self._end(reply, "")) + "\n"


_OLLAMA_MODEL: dict[str, Any] = {
    "capabilities": ["completion", "tools"],
    "model_info": {"general.architecture": "script", "script.context_length": 131_072},
    "parameters": "num_ctx 32768",
}

_APIS: dict[str, type[_OpenAI] | type[_Responses] | type[_Anthropic] | type[_Ollama]] = {
    "/v1/responses": _Responses,
    "/v1/chat/completions": _OpenAI,
    "/v1/messages": _Anthropic,
    "/api/chat": _Ollama,
}

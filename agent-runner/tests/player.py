"""Plays cassettes: exchanges with a model service, from files. See tests/cassettes/README.md."""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CASSETTES = Path(__file__).parent / "cassettes"
NAMES = sorted(str(p.relative_to(CASSETTES).with_suffix("")) for p in CASSETTES.rglob("*.json"))


@dataclass
class Cassette:
    """One case."""

    config: dict[str, Any]
    request: str
    exchanges: list[dict[str, Any]]
    outcome: dict[str, Any]

    @classmethod
    def load(cls, name: str) -> "Cassette":
        value = json.loads((CASSETTES / f"{name}.json").read_text())
        keys = ("config", "request", "exchanges", "outcome")
        return cls(**{key: value[key] for key in keys})


@dataclass
class Player:
    """A server that answers with the exchanges of a cassette, in their order."""

    cassette: Cassette
    requests: list[tuple[str, Any]] = field(default_factory=list)

    def __enter__(self) -> "Player":
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                self._answer(json.loads(self.rfile.read(length)))

            def _answer(self, body: Any) -> None:
                number = len(outer.requests)
                outer.requests.append((self.path, body))
                if number < len(outer.cassette.exchanges):
                    status, kind, data = encode(outer.cassette.exchanges[number]["response"])
                else:
                    status, kind, data = 418, "text/plain", b"the cassette has ended"
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def encode(response: dict[str, Any]) -> tuple[int, str, bytes]:
    """The status, content type and body of a response."""
    if "body" in response:
        return response["status"], "application/json", json.dumps(response["body"]).encode()
    ascii_only = response.get("ascii", True)
    events = [json.dumps(event, ensure_ascii=ascii_only) for event in response["events"]]
    if response["form"] == "ollama":
        text = "".join(f"{event}\n" for event in events)
        return response["status"], "application/x-ndjson", text.encode()
    named = response["form"] in {"responses", "claude"}
    text = "".join(
        (f"event: {event['type']}\n" if named else "") + f"data: {line}\n\n"
        for event, line in zip(response["events"], events, strict=True)
    )
    if response.get("done"):
        text += "data: [DONE]\n\n"
    return response["status"], "text/event-stream; charset=utf-8", text.encode()


def differences(expected: Any, found: Any, at: str = "body") -> list[str]:
    """What of the expected is not in what was found. A list must have the expected length."""
    match expected:
        case dict():
            if not isinstance(found, dict):
                return [f"{at}: {found!r} is no object"]
            return [
                problem
                for key, value in expected.items()
                for problem in (
                    differences(value, found[key], f"{at}.{key}")
                    if key in found
                    else [f"{at}.{key} is missing"]
                )
            ]
        case list():
            if not isinstance(found, list) or len(found) != len(expected):
                return [f"{at}: {found!r} has not {len(expected)} items"]
            pairs = enumerate(zip(expected, found, strict=True))
            return [p for n, (e, f) in pairs for p in differences(e, f, f"{at}[{n}]")]
    return [] if expected == found else [f"{at}: {found!r} is not {expected!r}"]

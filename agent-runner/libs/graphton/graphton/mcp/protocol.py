"""The messages of the protocol, as values."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from graphton.text import compact_json

VERSIONS: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
"""The versions that this client speaks, the newest first.

Later versions have no `initialize`. A server that also supports one of these still answers it."""

MAX_MESSAGE_BYTES: Final = 10_000_000
"""The maximum size of a message, and of the whole answer to an HTTP request."""

MAX_CONTAINERS: Final = 100_000
"""The maximum number of `{` and `[` in a message.

10 MB of empty objects would take a second to read, and 270 MB of memory."""

MAX_SEARCHED_CHARACTERS: Final = 600_000
"""How much of a text, far more than is shown of it, is searched for secrets.

In a text of 10 MB that is full of a secret, this would take more than a second."""

METHOD_NOT_FOUND: Final = -32601

CLIENT: Final = {"name": "agent-runner", "version": "1"}

# Keys that model services refuse or ignore at the top level of a tool's schema.
_UNSUPPORTED_KEYS: Final = frozenset({"$schema", "allOf", "anyOf", "enum", "not", "oneOf"})

# Their values are identifiers. Redacting them would make the schema invalid.
_KEYS_OF_NAMES: Final = frozenset({"$ref", "format", "pattern", "required", "type"})


def redact_start(text: str, redact: Callable[[str], str]) -> str:
    """The start of a text without secrets, to be cut to what is shown."""
    return redact(text[:MAX_SEARCHED_CHARACTERS])


class McpError(Exception):
    """A server cannot be used, or does not answer. The message says why."""


class SessionLostError(McpError):
    """An HTTP server does not know the session any more."""


@dataclass(frozen=True, slots=True)
class RemoteTool:
    """A tool, as its server describes it.

    Attributes:
        name: Its name at the server.
        description: What it does, for the model.
        schema: The JSON schema of its arguments.
        size: Its size in bytes, as JSON.
    """

    name: str
    description: str
    schema: dict[str, Any] = field(hash=False)
    size: int = 0


def request(number: int, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """A message that the server has to answer."""
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": dict(params)}


def notification(method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A message without an answer."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    return message if params is None else {**message, "params": dict(params)}


def reply_to(message: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a request of the server. Only `ping` is supported."""
    answer: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
    if message["method"] == "ping":
        return {**answer, "result": {}}
    text = f"this client does not support {str(message['method'])[:100]}"
    return {**answer, "error": {"code": METHOD_NOT_FOUND, "message": text}}


def parse(text: str | bytes) -> Any:
    """Read a message.

    Raises:
        ValueError: if it is not JSON.
        RecursionError: if it is nested too deeply.
        McpError: if it has too many objects and lists.
    """
    if isinstance(text, str):
        containers = text.count("{") + text.count("[")
    else:
        containers = text.count(b"{") + text.count(b"[")
    if containers > MAX_CONTAINERS:
        raise McpError(f"it sent a message with more than {MAX_CONTAINERS} objects and lists")
    return json.loads(text, parse_constant=str)  # not every service reads NaN


def is_answer_to(message: Any, number: Any) -> bool:
    """Whether a message is the answer to this client's request with this id."""
    if not isinstance(message, dict) or "method" in message:
        return False
    found = message.get("id")
    return type(found) is type(number) and found == number  # 1, 1.0 and True are equal


def result_of(answer: Mapping[str, Any], redact: Callable[[str], str] = str) -> dict[str, Any]:
    """The result in an answer.

    Args:
        answer: The answer.
        redact: Removes secrets from the text of an error, before it is cut.

    Raises:
        McpError: if the answer is an error, or not valid.
    """
    if isinstance(error := answer.get("error"), dict):
        message, code = (
            redact_start(str(error.get(key, "")), redact) for key in ("message", "code")
        )
        text = " ".join(message.split())[:1000] or "no reason given"
        raise McpError(f"it answered with error {code[:100] or 'without a code'}: {text}")
    result = answer.get("result")
    if not isinstance(result, dict):
        raise McpError("its answer has no result")
    return result


def parse_tools(result: Mapping[str, Any]) -> tuple[list[RemoteTool], str | None]:
    """Read a page of the list of tools.

    Returns:
        The tools, and the cursor of the next page.

    Raises:
        McpError: if the list is not valid.
    """
    items, cursor = result.get("tools"), result.get("nextCursor")
    if not isinstance(items, list):
        raise McpError("its list of tools is not a list")
    tools = []
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise McpError("its list has a tool without a name")
        description = str(item.get("description") or item.get("title") or "")
        schema = _acceptable(item.get("inputSchema"))
        # Half a character (a lone surrogate) could not be sent to a model.
        data = compact_json([item["name"], description, schema]).encode(errors="replace")
        # A number such as 1e999, which JSON cannot write again, becomes a text here.
        name, description, schema = json.loads(data, parse_constant=str)
        tools.append(RemoteTool(name, description, schema, len(data)))
    return tools, cursor if isinstance(cursor, str) and cursor else None


def _acceptable(schema: Any) -> dict[str, Any]:
    """A schema that all model services accept: an object with properties at its top."""
    known = schema if isinstance(schema, dict) else {}
    kept = {key: value for key, value in known.items() if key not in _UNSUPPORTED_KEYS}
    properties = kept.get("properties")
    return {
        **kept,
        "type": "object",
        "properties": properties if isinstance(properties, dict) else {},
    }


def redacted(tool: RemoteTool, redact: Callable[[str], str]) -> RemoteTool:
    """A tool without secrets in its description and its schema."""
    schema = _redacted(tool.schema, redact)
    return replace(tool, description=redact(tool.description), schema=schema)


def _redacted(schema: Any, redact: Callable[[str], str]) -> Any:
    """A schema without secrets in its texts. Names, such as those of properties, stay."""
    match schema:
        case str():
            return redact(schema)
        case list():
            return [_redacted(item, redact) for item in schema]
        case dict():
            return {
                key: item
                if key in _KEYS_OF_NAMES and not isinstance(item, dict)
                else _redacted(item, redact)
                for key, item in schema.items()
            }
    return schema


def tool_result(result: Mapping[str, Any]) -> tuple[str, bool]:
    """The text of a tool's result for the model, and whether the tool failed."""
    content = result.get("content")
    texts = [_block_text(block) for block in content] if isinstance(content, list) else []
    # The specification wants servers to send the same as text too, for older clients.
    if not texts and (structured := result.get("structuredContent")) is not None:
        texts.append(compact_json(structured))
    return "\n".join(texts) or "(no output)", result.get("isError") is True


def _block_text(block: Any) -> str:
    match block:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "image" | "audio" as kind, "data": str(data)}:
            return f"[{kind}, {block.get('mimeType')}, {_decoded_size(data)} bytes, not shown]"
        case {"type": "resource_link", "uri": uri}:
            about = " ".join(str(block.get(key) or "") for key in ("name", "description")).strip()
            return f"[resource {uri}{': ' if about else ''}{about}]"
        case {"type": "resource", "resource": {"uri": uri, "text": str(text)}}:
            return f"[resource {uri}]\n{text}"
        case {"type": "resource", "resource": {"uri": uri, "blob": str(data)} as resource}:
            kind = resource.get("mimeType")
            return f"[resource {uri}, {kind}, {_decoded_size(data)} bytes, not shown]"
    kind = block.get("type") if isinstance(block, dict) else type(block).__name__
    return f"[content of the unknown type {kind}, not shown]"


def _decoded_size(data: str) -> int:
    """The number of bytes that a base64 text stands for."""
    return len(data) * 3 // 4 - data[-2:].count("=")

"""Tool calls that a model wrote as text, because its server did not recognise them.

Some models do so always (qwen2.5-coder with Ollama), others now and then. Known forms are:

    {"name": "read_file", "arguments": {"path": "a.txt"}}      alone, several, in a list, or in ```
    <tool_call>{"name": …, "arguments": …}</tool_call>         Hermes, Qwen; <tools> too
    <function=read_file><parameter=path>a.txt</parameter></function>      Qwen3-Coder
    [TOOL_CALLS][{"name": …, "arguments": …}]                  Mistral
"""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from graphton.chat import ModelError, Part, Reply, Text, ToolUse

CAPABLE_MODEL: Final = "qwen3:8b"
"""A model for Ollama whose tool calls are recognised."""

_BLOCK: Final = re.compile(
    r"<tool_call>(?P<call>.*?)(?:</tool_call>|\Z)"
    r"|<tools>(?P<tools>.*?)(?:</tools>|\Z)"
    r"|(?P<function><function=.*?(?:</function>|\Z))"
    r"|\[TOOL_CALLS\]\s*(?P<mistral>\[.*)\Z"
    r"|```(?:json|tool_call|tool_code)?[ \t]*\n(?P<fence>.*?)(?:```|\Z)",
    re.DOTALL,
)
_FUNCTION: Final = re.compile(r"<function=([\w.-]+)>(.*?)(?:</function>|\Z)", re.DOTALL)
_PARAMETER: Final = re.compile(r"<parameter=([\w.-]+)>\n?(.*?)\n?</parameter>", re.DOTALL)


def find_text_calls(reply: Reply, tools: Collection[str], *, within_text: bool) -> Reply:
    """Replace tool calls in the text of a reply by tool uses.

    Only calls of tools that exist count: a model may well show JSON to the user.

    Args:
        reply: The reply.
        tools: The names of the tools that exist.
        within_text: Whether JSON between other text can be a call. A model whose calls are
            recognised by its server means such JSON as an example.

    Raises:
        ModelError: if the text looks like a tool call, but cannot be read as one.
    """
    if reply.tool_uses or not tools:
        return reply
    text = reply.text
    rest, calls = _extract(text, tools, within_text)
    if not calls:
        if not reply.truncated and _looks_like_call(text, tools):
            raise ModelError(
                "the model wrote a tool call as text, in a form that is not known: "
                f"{' '.join(text.split())[:200]!r} (use a model that can call tools, such as "
                f"{CAPABLE_MODEL} with Ollama: STIGMER_LLM_MODEL={CAPABLE_MODEL})"
            )
        return reply
    parts: list[Part] = [part for part in reply.parts if not isinstance(part, Text)]
    if rest:
        parts.append(Text(rest))
    uses = [ToolUse(f"call_{n}", name, arguments) for n, (name, arguments) in enumerate(calls)]
    return replace(reply, parts=(*parts, *uses))


_Call = tuple[str, dict[str, Any]]


def _extract(text: str, tools: Collection[str], within_text: bool) -> tuple[str, list[_Call]]:
    """The text around the calls, and the calls."""
    whole = _calls_in_json(text, tools)
    if whole:
        return "", whole
    calls: list[_Call] = []

    def found(match: re.Match[str]) -> str:
        if match["fence"] and not within_text and match[0].strip() != text.strip():
            return match[0]
        if function := match["function"]:
            inside = _calls_in_tags(function, tools)
        else:
            content = next(group for group in match.groups() if group is not None)
            inside = _calls_in_json(content, tools) or _calls_in_tags(content, tools)
        calls.extend(inside)
        return "" if inside else match[0]

    rest = _BLOCK.sub(found, text).replace("</tool_call>", "").strip()
    return rest, calls


def _calls_in_tags(text: str, tools: Collection[str]) -> list[_Call]:
    return [
        (name, {key: _value(value) for key, value in _PARAMETER.findall(body)})
        for name, body in _FUNCTION.findall(text)
        if name in tools
    ]


def _value(text: str) -> Any:
    """The value of a parameter: a number or a truth value as such, everything else as text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (bool, int)) else text


def _calls_in_json(text: str, tools: Collection[str]) -> list[_Call]:
    """The calls in a text that consists of nothing else; none if there is anything else."""
    try:
        values = list(_json_values(text.strip()))
    except (ValueError, RecursionError):
        return []
    calls = [_as_call(value) for value in values]
    if all(call and call[0] in tools for call in calls):
        return [call for call in calls if call]
    return []


def _json_values(text: str) -> Iterator[Any]:
    """Yield JSON values that follow one another, and the items of lists."""
    decoder = json.JSONDecoder(strict=False)  # models write newlines inside of strings
    position = 0
    while position < len(text):
        value, position = decoder.raw_decode(text, position)
        yield from value if isinstance(value, list) else [value]
        while position < len(text) and text[position] in " \t\r\n,;":
            position += 1


def _as_call(value: Any) -> _Call | None:
    if not isinstance(value, dict):
        return None
    if value.get("type") == "function" and isinstance(value.get("function"), dict):
        value = value["function"]
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError:
            return None
    others = set(value) - {"name", "arguments", "parameters", "id", "type"}
    if others or not isinstance(value.get("name"), str) or not isinstance(arguments, dict):
        return None
    return value["name"], arguments


def _looks_like_call(text: str, tools: Collection[str]) -> bool:
    start = text.strip()[:200]
    if start.startswith(("<tool_call>", "<tools>", "<function=", "[TOOL_CALLS]")):
        return True
    names = "|".join(map(re.escape, _longest_first(tools)))
    return bool(
        re.match(rf'(```\w*\s*)?[\[{{]\s*{{?\s*"name"\s*:\s*"({names})"\s*,', start)
        or re.match(rf"(```\w*\s*)?({names})\s*\(\s*[{{\"']", start)
    )


def _longest_first(names: Collection[str]) -> Sequence[str]:
    return sorted(names, key=len, reverse=True)

"""The answers of the scripted model. They depend on the conversation only.

A request can contain a script, with one step per line:

    !tool write_file {"path": "a.txt", "content": "x"}    ask for a tool
    !and list_files {}          ask for another tool in the same reply as the `!tool` before
    !say done: {result}         answer with a text
    !fail 503 2                 the request of the next step fails with this status, twice;
                                without a number, always. 200 means an invalid response.
    !sleep 1.5                  the reply of the next step is delayed by this many seconds
    !cut                        the reply of the next step breaks off, once

In the text of `!say`, {result} is the last result of a tool, {system} the instructions, and
{history} the earlier requests. In the arguments of a tool, "{x*1000}" is x a thousand times.

Without a script, the model understands a few requests: `write a haiku into x.txt`, `read x.txt`,
`run: ls`, `use the skill x`, `what did I ask before?`. It repeats any other request.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

HAIKU = "Worker wakes and polls,\na queue of silent wishes\nturns to finished work.\n"


@dataclass(frozen=True)
class Turn:
    """One turn of the conversation, independent of the API.

    Attributes:
        role: `user`, `assistant` or `tool`.
        text: The text, or the result of a tool.
    """

    role: str
    text: str


@dataclass
class ScriptedReply:
    """The model's next reply.

    Attributes:
        text: The text.
        tools: The names and arguments of the tools to ask for.
        sleep: The delay in seconds.
        fail: The HTTP status to fail with; 0 for no failure.
        times: How often to fail; 0 for always.
        cut: Whether to break off, once.
    """

    text: str = ""
    tools: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    sleep: float = 0
    fail: int = 0
    times: int = 0
    cut: bool = False


def next_reply(system: str, turns: Sequence[Turn]) -> ScriptedReply:
    """Return the next reply of a conversation."""
    asked = [index for index, turn in enumerate(turns) if turn.role == "user"]
    if not asked:
        return ScriptedReply("You said nothing.")
    request, left_out = _without_notes(turns[asked[-1]].text)
    since = turns[asked[-1] + 1 :]
    step = left_out + sum(turn.role == "assistant" for turn in since)
    results = [turn.text for turn in since if turn.role == "tool"]
    values = {
        "result": results[-1] if results else "",
        "system": system,
        "history": " | ".join(_without_notes(turns[index].text)[0] for index in asked[:-1]),
    }
    steps = _explicit_steps(request) or _steps_for_request(request, system)
    chosen = steps[min(step, len(steps) - 1)]
    if step >= len(steps):
        chosen = ScriptedReply("Done.")
    for name, value in values.items():
        chosen.text = chosen.text.replace(f"{{{name}}}", value)
    return chosen


_NOTE = r"\[(\d+) earlier replies [^\]]*\]"


def _without_notes(request: str) -> tuple[str, int]:
    """The request without the runner's notes, and how many replies to it were left out.

    A note at the beginning is about earlier requests, one at the end about replies to this one.
    """
    request = re.sub(rf"\A{_NOTE}\n\n", "", request)
    note = re.search(rf"\n\n{_NOTE}\Z", request)
    return (request[: note.start()], int(note[1])) if note else (request, 0)


def _arguments(text: str) -> dict[str, Any]:
    arguments: dict[str, Any] = json.loads(text)
    for name, value in arguments.items():
        if match := re.fullmatch(r"\{(.)\*(\d+)\}", str(value)):
            arguments[name] = match[1] * int(match[2])
    return arguments


def _explicit_steps(request: str) -> list[ScriptedReply]:
    steps: list[ScriptedReply] = []
    pending = ScriptedReply()
    for line in request.splitlines():
        match line.split(maxsplit=2):
            case ["!tool", name, arguments]:
                pending.tools.append((name, _arguments(arguments)))
            case ["!and", name, arguments]:
                steps[-1].tools.append((name, _arguments(arguments)))
                continue
            case ["!say", *_]:
                pending.text = line.removeprefix("!say").strip()
            case ["!fail", status, *times]:
                pending.fail, pending.times = int(status), int(times[0]) if times else 0
                continue
            case ["!sleep", seconds]:
                pending.sleep = float(seconds)
                continue
            case ["!cut"]:
                pending.cut = True
                continue
            case _:
                continue
        steps.append(pending)
        pending = ScriptedReply()
    if pending != ScriptedReply():
        pending.text = "Done."
        steps.append(pending)
    return steps


def _steps_for_request(request: str, system: str) -> list[ScriptedReply]:
    if match := re.search(r"write (?:an? )?(.+?) (?:in)?to `?([\w./-]+\w)`?", request, re.I):
        what, path = match[1], match[2]
        content = HAIKU if "haiku" in what.lower() else f"{what}\n"
        return [
            ScriptedReply(tools=[("write_file", {"path": path, "content": content})]),
            ScriptedReply(f"I wrote {what} into {path}."),
        ]
    if match := re.search(r"run: *(.+)", request, re.I):
        return [
            ScriptedReply(tools=[("run_command", {"command": match[1]})]),
            ScriptedReply("The command says: {result}"),
        ]
    if match := re.search(r"use the skill `?([\w.-]+)`?", request, re.I):
        page = re.search(rf"`?{re.escape(match[1])}`?.*?`(bin/skills/[^`]+)`", system, re.S)
        path = page[1] if page else "bin/skills/none"
        return [
            ScriptedReply(tools=[("read_file", {"path": path})]),
            ScriptedReply("The skill says: {result}"),
        ]
    if match := re.search(r"read `?([\w./-]+\w)`?", request, re.I):
        return [
            ScriptedReply(tools=[("read_file", {"path": match[1]})]),
            ScriptedReply("It says: {result}"),
        ]
    if re.search(r"what did i .*before|do you remember", request, re.I):
        return [ScriptedReply("You asked before: {history}")]
    return [ScriptedReply(f"You said: {request}")]

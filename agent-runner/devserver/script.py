"""What the scripted model answers: a function of the conversation, and nothing else.

A request may spell out what is to happen, a step a line:

    !tool write_file {"path": "a.txt", "content": "x"}
    !say done: {result}
    !fail 503 2                 the next step's request fails with this status, twice (else:
                                always); 200 is an answer that nobody understands
    !sleep 1.5                  the next step takes this many seconds longer
    !cut                        the next step's answer breaks off, once

In what is said, {result} is the last result of a tool, {system} the instructions, {history} all
that was asked before. Tools on neighbouring lines with `!and` before the second are asked for
together. Without such lines a few plain requests are understood: `write a haiku into x.txt`,
`read x.txt`, `run: ls`, `use the skill x`, `what did I ask before?`; all else is said back.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

HAIKU = "Worker wakes and polls,\na queue of silent wishes\nturns to finished work.\n"


@dataclass(frozen=True)
class Turn:
    """One turn of the conversation, whatever API it came by.

    Attributes:
        role: `user`, `assistant` or `tool`.
        text: What is said, or a tool's result.
    """

    role: str
    text: str


@dataclass
class Answer:
    """What the model does next.

    Attributes:
        text: What it says.
        tools: What it asks for: name and arguments.
        sleep: Seconds that it takes.
        fail: The HTTP status to fail with; 0 for none.
        times: How often to fail; 0 for always.
        cut: Whether to break off, once.
    """

    text: str = ""
    tools: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    sleep: float = 0
    fail: int = 0
    times: int = 0
    cut: bool = False


def next_answer(system: str, turns: Sequence[Turn]) -> Answer:
    """What comes next in a conversation."""
    asked = [index for index, turn in enumerate(turns) if turn.role == "user"]
    if not asked:
        return Answer("You said nothing.")
    request = turns[asked[-1]].text
    since = turns[asked[-1] + 1 :]
    step = sum(turn.role == "assistant" for turn in since)
    results = [turn.text for turn in since if turn.role == "tool"]
    values = {
        "result": results[-1] if results else "",
        "system": system,
        "history": " | ".join(turns[index].text for index in asked[:-1]),
    }
    steps = _explicit_steps(request) or _steps_for_request(request, system)
    chosen = steps[min(step, len(steps) - 1)]
    if step >= len(steps):
        chosen = Answer("Done.")
    for name, value in values.items():
        chosen.text = chosen.text.replace(f"{{{name}}}", value)
    return chosen


def _arguments(text: str) -> dict[str, Any]:
    arguments: dict[str, Any] = json.loads(text)
    for name, value in arguments.items():
        if match := re.fullmatch(r"\{(.)\*(\d+)\}", str(value)):
            arguments[name] = match[1] * int(match[2])
    return arguments


def _explicit_steps(request: str) -> list[Answer]:
    steps: list[Answer] = []
    pending = Answer()
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
        pending = Answer()
    if pending != Answer():
        pending.text = "Done."
        steps.append(pending)
    return steps


def _steps_for_request(request: str, system: str) -> list[Answer]:
    if match := re.search(r"write (?:an? )?(.+?) (?:in)?to `?([\w./-]+\w)`?", request, re.I):
        what, path = match[1], match[2]
        content = HAIKU if "haiku" in what.lower() else f"{what}\n"
        return [
            Answer(tools=[("write_file", {"path": path, "content": content})]),
            Answer(f"I wrote {what} into {path}."),
        ]
    if match := re.search(r"run: *(.+)", request, re.I):
        return [
            Answer(tools=[("run_command", {"command": match[1]})]),
            Answer("The command says: {result}"),
        ]
    if match := re.search(r"use the skill `?([\w.-]+)`?", request, re.I):
        place = re.search(rf"`?{re.escape(match[1])}`?.*?`(bin/skills/[^`]+)`", system, re.S)
        path = place[1] if place else "bin/skills/none"
        return [
            Answer(tools=[("read_file", {"path": path})]),
            Answer("The skill says: {result}"),
        ]
    if match := re.search(r"read `?([\w./-]+\w)`?", request, re.I):
        return [
            Answer(tools=[("read_file", {"path": match[1]})]),
            Answer("It says: {result}"),
        ]
    if re.search(r"what did i .*before|do you remember", request, re.I):
        return [Answer("You asked before: {history}")]
    return [Answer(f"You said: {request}")]

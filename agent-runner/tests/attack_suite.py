"""Runs many attacks as one command."""

import base64
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from graphton import commands
from tests.runners import Runner
from tests.stack import Stack, answer

SUITE = """
import json, os, signal, sys
prelude, definitions, attacks = json.loads(sys.stdin.read())
for name, program in attacks:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(20)
        os.dup2(writing, 1)
        os.close(reading)
        os.close(writing)
        try:
            exec(prelude + definitions + program)
        except OSError as error:
            print('stopped:', repr(error))
        sys.stdout.flush()
        os._exit(0)
    os.close(writing)
    with open(reading) as output:
        text = output.read()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    print(json.dumps([name, 'REACHED' in text, code, text]), flush=True)
"""
"""A program that tries attacks, and prints the parts of a Result for each."""


@dataclass(frozen=True)
class Result:
    """What became of an attack.

    Attributes:
        success: Whether it reached what it was aimed at.
        code: The exit code of its process; negative for a signal.
        output: What it printed, and the OSError that ended it.
    """

    success: bool
    code: int
    output: str


Attacks = Sequence[tuple[str, str]]
"""Names and programs."""


def parse_suite(output: str, attacks: Attacks) -> dict[str, Result]:
    """Return the results by the names of the attacks.

    Each attack must have one, and none may have ended with an error other than OSError, which would
    prove nothing.
    """
    lines = (json.loads(line) for line in output.splitlines() if line.startswith('["'))
    results = {name: Result(*rest) for name, *rest in lines}
    assert set(results) == {name for name, _ in attacks}, output
    assert {name: result for name, result in results.items() if result.code} == {}
    return results


def successes(results: Mapping[str, Result]) -> set[str]:
    """The names of the attacks that succeeded."""
    return {name for name, result in results.items() if result.success}


async def run_suite_here(
    box: Path, prelude: str, definitions: str, attacks: Attacks
) -> dict[str, Result]:
    """Run attacks as one command on this machine, with the sandbox `box`."""
    (box / "suite.py").write_text(SUITE)
    (box / "given").write_text(json.dumps([prelude, definitions, attacks]))
    words = ["bash", "-c", f"{sys.executable} suite.py < given"]
    done = await commands.run(words, box, environment={}, timeout=120, output_limit=100_000)
    output = done.output.decode()
    assert "cannot be confined" not in output
    return parse_suite(output, attacks)


async def run_suite(
    stack: Stack,
    runner: Runner,
    prelude: str,
    definitions: str,
    attacks: Attacks,
) -> dict[str, Result]:
    """Run attacks as one command of an execution."""
    given = json.dumps([prelude, definitions, attacks])
    encoded = [base64.b64encode(text.encode()).decode() for text in (SUITE, given)]
    python = sys.executable if type(runner) is Runner else "python"
    status = await stack.run(
        f"run: echo {encoded[0]} | base64 -d > suite.py; "
        f"echo {encoded[1]} | base64 -d | {python} suite.py 2>&1",
        "attack",
    )
    return parse_suite(answer(status).removeprefix("The command says: "), attacks)

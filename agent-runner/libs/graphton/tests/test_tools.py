"""Tests the tools on a real folder, with real commands."""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest

from graphton import commands, limits
from graphton.files import Folder
from graphton.text import truncate_middle
from graphton.tools import MAX_TOOL_RESULT_CHARACTERS, SandboxTools, ToolError

Use = Callable[..., Coroutine[None, None, str]]

needs_landlock = pytest.mark.skipif(
    not commands.wall().landlock, reason="the kernel has no Landlock"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "box/.tmp").mkdir(parents=True)
    return tmp_path / "box"


@pytest.fixture
def use(root: Path) -> Iterator[Use]:
    def redact(text: str) -> str:
        return text.replace("hunter2", "[secret]")

    with Folder(root) as folder:
        box = SandboxTools(folder, {"GREETING": "hi", "PASSWORD": "hunter2"}, redact,
                           frozenset({"[secret]"}))  # fmt: skip
        tools = {tool.name: tool for tool in box.all}

        async def call(name: str, /, **arguments: object) -> str:
            return await tools[name].call(arguments)

        yield call


async def test_crlf_line_ends_stay(use: Use, root: Path) -> None:
    (root / "win.txt").write_bytes(b"one\r\ntwo\r\nthree\r\n")
    assert await use("read_file", path="win.txt") == "     1  one\n     2  two\n     3  three"
    await use("edit_file", path="win.txt", old="one\ntwo", new="1\n2\n2b")
    await use("edit_file", path="win.txt", old="three", new="3\n4")
    await use("edit_file", path="win.txt", old="2b\r\n3", new="2c\r\n3")
    assert (root / "win.txt").read_bytes() == b"1\r\n2\r\n2c\r\n3\r\n4\r\n"
    (root / "mixed.txt").write_bytes(b"one\r\ntwo\nthree")
    await use("edit_file", path="mixed.txt", old="two\nthree", new="2\n3")
    assert (root / "mixed.txt").read_bytes() == b"one\r\n2\n3"


async def test_only_line_ends_end_a_line(use: Use, root: Path) -> None:
    (root / "a").write_text("one\x0ctwo\u2028three\nfour\r\n", newline="")
    assert await use("read_file", path="a") == "     1  one\x0ctwo\u2028three\n     2  four"
    (root / "b").write_text("\n\n")
    assert await use("read_file", path="b") == "     1  \n     2  "


async def test_a_placeholder_never_takes_the_place_of_a_secret(use: Use, root: Path) -> None:
    content = "USER=me\nPASSWORD=hunter2\nMODE=a\n"
    (root / "env").write_text(content)
    shown = await use("read_file", path="env")
    assert "PASSWORD=[secret]" in shown
    with pytest.raises(ToolError, match="nothing was written: `\\[secret\\]` stands for a secret"):
        await use("write_file", path="env", content="USER=you\nPASSWORD=[secret]\nMODE=b\n")
    with pytest.raises(ToolError, match="nothing was written"):
        await use("edit_file", path="env", old="MODE=a", new="MODE=b\nPASSWORD=[secret]")
    with pytest.raises(ToolError, match="the file has the secret itself"):
        await use("edit_file", path="env", old="PASSWORD=[secret]", new="PASSWORD=x")
    with pytest.raises(ToolError, match="nothing was written"):
        await use("write_file", path="new", content="PASSWORD=[secret]\n")
    assert (root / "env").read_text() == content
    assert not (root / "new").exists()
    await use("edit_file", path="env", old="MODE=a", new="MODE=b")
    assert (root / "env").read_text() == content.replace("MODE=a", "MODE=b")
    # A text that had it before may keep it.
    (root / "doc").write_text("Secrets look like [secret] here.")
    await use("edit_file", path="doc", old="here", new="there")
    await use("write_file", path="doc", content="Secrets are shown as [secret].")
    assert (root / "doc").read_text() == "Secrets are shown as [secret]."


async def test_files(use: Use, root: Path) -> None:
    assert await use("write_file", path="a/b.txt", content="one\ntwo\n") == (
        "created `a/b.txt`: 8 bytes"
    )
    assert await use("read_file", path="a/b.txt") == "     1  one\n     2  two"
    assert await use("read_file", path="a/b.txt", offset=2) == "     2  two"
    assert await use("read_file", path="a/b.txt", limit=1) == "     1  one\n[1 more lines]"
    assert await use("edit_file", path="a/b.txt", old="two", new="drei") == (
        "replaced 1 place in `a/b.txt`"
    )
    assert (root / "a/b.txt").read_text() == "one\ndrei\n"
    assert await use("list_files") == ".tmp/\na/"
    assert await use("list_files", path="a") == "b.txt  9 bytes"
    assert await use("search_files", pattern="dr[e]i|none") == "a/b.txt:2:drei\n"
    assert await use("search_files", pattern="drei", name="*.py") == "(nothing found)"


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("read_file", {"path": "none"}, "No such file"),
        ("read_file", {"path": "../x"}, "outside of the working folder"),
        ("read_file", {"path": "few", "offset": 9}, "has only 2 lines"),
        ("read_file", {"path": "bytes"}, "is not a text file"),
        ("read_file", {}, "wrong arguments for read_file: path: Field required"),
        ("read_file", {"path": "few", "lines": 1}, "lines: Extra inputs"),
        ("write_file", {"path": "few/x", "content": ""}, "Not a directory"),
        ("write_file", {"path": "x", "content": "\ud800"}, "lone surrogate"),
        ("edit_file", {"path": "few", "old": "x", "new": ""}, "is not in `few`"),
        ("edit_file", {"path": "few", "old": "a", "new": ""}, "2 times"),
        ("search_files", {"pattern": "("}, "grep: "),
        ("search_files", {"pattern": "x", "path": "../outside"}, "is outside of"),
        ("run_command", {"command": "echo no; exit 3"}, "no\n\\[exit code 3\\]"),
        ("run_command", {"command": "kill -9 $$"}, "ended by signal 9"),
        ("run_command", {"command": "true", "timeout_seconds": 9999}, "less than or equal to 540"),
    ],
)
async def test_failures_are_reported(
    use: Use, root: Path, name: str, arguments: dict[str, object], words: str
) -> None:
    (root / "few").write_text("a\na\n")
    (root / "bytes").write_bytes(b"\xff\xfe")
    (root.parent / "outside").mkdir()
    (root.parent / "outside/x").write_text("x")
    with pytest.raises(ToolError, match=words):
        await use(name, **arguments)


async def test_a_command_does_not_inherit_the_workers_environment(
    use: Use, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STIGMER_API_KEY", "of the worker")
    names = set((await use("run_command", command="env | sed 's/=.*//'")).split())
    ours = {"GREETING", "PASSWORD", "HOME", "TMPDIR", commands.COMMAND_ID_VARIABLE}
    # Without a locale, Python sets LC_CTYPE for its children (PEP 538).
    others = {*commands.INHERITED_VARIABLES, "PWD", "SHLVL", "_", "LC_CTYPE"}
    assert ours <= names <= ours | others
    assert await use("run_command", command="echo $GREETING; pwd") == f"hi\n{root}\n"


async def test_the_shell_is_found_whatever_path_a_command_gets(root: Path) -> None:
    with Folder(root) as folder:
        run = next(t for t in SandboxTools(folder, {"PATH": "/none"}).all if "run" in t.name)
        assert await run.call({"command": "echo $PATH"}) == "/none\n"


async def test_no_result_contains_a_secret(use: Use, root: Path) -> None:
    (root / "hunter2.txt").write_text("hunter2")
    for name, arguments in {
        "run_command": {"command": "echo $PASSWORD"},
        "read_file": {"path": "hunter2.txt"},
        "search_files": {"pattern": "hunter"},
        "list_files": {},
    }.items():
        result = await use(name, **arguments)
        assert "[secret]" in result
        assert "hunter2" not in result
    with pytest.raises(ToolError, match=r"\[secret\]"):
        await use("run_command", command="echo $PASSWORD; false")


async def test_a_command_that_takes_too_long_is_ended(use: Use, root: Path) -> None:
    started = time.monotonic()
    with pytest.raises(ToolError, match=r"started\n\[ended after 1 s\]"):
        await use("run_command", command="echo started; trap '' TERM; sleep 60", timeout_seconds=1)
    assert time.monotonic() - started < 15


async def test_every_process_of_a_command_is_ended(use: Use, root: Path) -> None:
    """This includes background processes, and the commands of a cancelled task."""
    started = time.monotonic()
    loop = "(while :; do date +%N > clock; sleep 0.02; done) &"
    assert await use("run_command", command=f"{loop} sleep 0.2; echo done") == "done\n"
    running = asyncio.create_task(use("run_command", command=f"{loop} touch up; wait"))
    while not (root / "up").exists():  # noqa: ASYNC110 (another process makes it)
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert time.monotonic() - started < 15
    await asyncio.sleep(0.1)
    before = (root / "clock").read_text()
    await asyncio.sleep(0.2)
    assert (root / "clock").read_text() == before


async def test_long_output_is_truncated_in_the_middle(use: Use) -> None:
    result = await use("run_command", command="echo first; yes | head -n 2000000; echo last")
    assert len(result) < MAX_TOOL_RESULT_CHARACTERS + 200
    assert result.startswith("first\n")
    assert result.endswith("last\n")
    assert "left out" in result


def test_truncate_middle() -> None:
    assert truncate_middle("x" * 8, 8) == "x" * 8
    assert truncate_middle("abcdefghi", 8) == "abcdef\n[… 1 characters left out …]\nhi"


@needs_landlock
async def test_variables_have_no_effect_before_a_command_is_confined(root: Path) -> None:
    """The dynamic loader uses some variables. With LD_PRELOAD it runs code."""
    given = {
        "LD_DEBUG": "files",
        "LD_DEBUG_OUTPUT": f"{root.parent}/trace",
        commands.COMMAND_ID_VARIABLE: "x",
    }
    with Folder(root) as folder:
        run = next(t for t in SandboxTools(folder, given).all if "run" in t.name)
        output = await run.call(
            {"command": f"echo =$LD_DEBUG-${{#{commands.COMMAND_ID_VARIABLE}}}="}
        )
    assert "=files-32=" in output
    assert [path.name for path in root.parent.iterdir()] == [root.name]


async def test_too_long_variables_are_reported(root: Path) -> None:
    with Folder(root) as folder:
        run = next(t for t in SandboxTools(folder, {"LONG": "x" * 200_000}).all if "run" in t.name)
        with pytest.raises(ToolError, match="cannot be started: Argument list too long"):
            await run.call({"command": "true"})


async def test_the_number_of_open_files_is_limited(use: Use) -> None:
    assert int(await use("run_command", command="ulimit -n")) <= limits.MAX_OPEN_FILES


async def test_the_worker_measures_without_its_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Landlock, a command can read the environment of the worker's programs."""
    program = tmp_path / "du"
    program.write_text('#!/bin/sh\nenv > "$2/environment"\necho 3 "$2"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("OPENAI_API_KEY", "hunter2")
    assert await commands._measure(tmp_path) == 3 << 10
    assert "hunter2" not in (tmp_path / "environment").read_text()

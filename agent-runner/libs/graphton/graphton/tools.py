"""What an agent can do in its sandbox: read, write, edit, list, search, run."""

import json
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from graphton import commands
from graphton.files import PRIVATE, FilesError, Folder
from graphton.threads import in_thread

RESULT_CHARACTERS: Final = 30_000
"""The longest result that a model gets: about 8000 tokens."""

FILE_BYTES: Final = 10_000_000
"""The largest file that is read, written or edited."""

COMMAND_SECONDS: Final = 120
LONGEST_COMMAND_SECONDS: Final = 540
"""How long a command may run: if the model says nothing, and at most."""

SEARCH_SECONDS: Final = 20.0


class ToolError(Exception):
    """A tool that could not do what it was asked. The message is the tool's result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """Something that a model can ask for.

    Attributes:
        name: As the model calls it.
        description: What it does, for the model.
        arguments: The model of its arguments; its JSON schema goes to the language model.
        run: Does it, and returns what the language model gets to see.
    """

    name: str
    description: str
    arguments: type[BaseModel]
    run: Callable[[Any], Awaitable[str]]

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of the arguments."""
        schema = _plain(self.arguments.model_json_schema())
        del schema["description"]  # it is for who reads this code
        return schema

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """Check the arguments, and do it.

        Raises:
            ToolError: if the arguments are wrong, or it cannot be done.
        """
        try:
            checked = self.arguments.model_validate(arguments)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, item['loc'])) or 'arguments'}: {item['msg']}"
                for item in error.errors()
            )
            raise ToolError(f"wrong arguments for {self.name}: {problems}") from None
        try:
            return shortened(await self.run(checked))
        except FilesError as error:
            raise ToolError(str(error)) from None


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without what costs tokens and says nothing."""
    return {
        key: _plain(value) if isinstance(value, dict) else value
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
    }


def shortened(text: str, limit: int = RESULT_CHARACTERS) -> str:
    """A text that is not longer than a limit, or not by much: its middle is left out."""
    if len(text) <= limit:
        return text
    head = limit - limit // 4
    left_out = len(text) - limit
    return f"{text[:head]}\n[… {left_out} characters left out …]\n{text[-(limit // 4) :]}"


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid")


Path = Annotated[str, Field(description="relative to the working folder", min_length=1)]


class ReadFile(_Arguments):
    """Arguments of read_file."""

    path: Path
    offset: Annotated[int, Field(description="the first line to read, from 1", ge=1)] = 1
    limit: Annotated[int, Field(description="how many lines to read", ge=1)] = 2000


class WriteFile(_Arguments):
    """Arguments of write_file."""

    path: Path
    content: Annotated[str, Field(description="the whole text of the file")]


class EditFile(_Arguments):
    """Arguments of edit_file."""

    path: Path
    old: Annotated[str, Field(description="the text to replace, exactly", min_length=1)]
    new: Annotated[str, Field(description="the text to put there")]
    replace_all: Annotated[bool, Field(description="all places, not the only one")] = False


class ListFiles(_Arguments):
    """Arguments of list_files."""

    path: Path = "."


class SearchFiles(_Arguments):
    """Arguments of search_files."""

    pattern: Annotated[str, Field(description="an extended regular expression", min_length=1)]
    path: Path = "."
    name: Annotated[str, Field(description="only files of such names: *.py")] = ""


class RunCommand(_Arguments):
    """Arguments of run_command."""

    command: Annotated[str, Field(description="for bash", min_length=1)]
    timeout_seconds: Annotated[
        int, Field(description="end it after this", ge=1, le=LONGEST_COMMAND_SECONDS)
    ] = COMMAND_SECONDS


@dataclass(frozen=True)
class SandboxTools:
    """The tools of one sandbox.

    Attributes:
        folder: The sandbox.
        environment: What commands get, beside the usual.
        redact: Takes secrets out of a text. No result holds any.
    """

    folder: Folder
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    redact: Callable[[str], str] = str

    @cached_property
    def all(self) -> Sequence[Tool]:
        """The tools, as a model gets them."""
        return (
            Tool(
                name="read_file",
                description="Read a text file. Lines come with their numbers.",
                arguments=ReadFile,
                run=self._read,
            ),
            Tool(
                name="write_file",
                description="Write a text file, in place of the one before. Folders are made.",
                arguments=WriteFile,
                run=self._write,
            ),
            Tool(
                name="edit_file",
                description="Replace a text in a file. It must occur exactly once, "
                "unless replace_all is set.",
                arguments=EditFile,
                run=self._edit,
            ),
            Tool(
                name="list_files",
                description="List a folder. Folders end with a slash.",
                arguments=ListFiles,
                run=self._list,
            ),
            Tool(
                name="search_files",
                description="Find lines in the files of a folder and those below it.",
                arguments=SearchFiles,
                run=self._search,
            ),
            Tool(
                name="run_command",
                description="Run a bash command in the working folder; get its output and exit "
                "code. Only the working folder and $TMPDIR can be written to. There is no input; "
                "what is still running at the end is ended.",
                arguments=RunCommand,
                run=self._run,
            ),
        )

    async def _read(self, arguments: ReadFile) -> str:
        text = await in_thread(self._text, arguments.path)
        lines = text.splitlines()
        first = arguments.offset - 1
        chosen = lines[first : first + arguments.limit]
        if not lines:
            return "(the file is empty)"
        if not chosen:
            raise ToolError(f"`{arguments.path}` has only {len(lines)} lines")
        numbered = "\n".join(f"{n:6}  {line}" for n, line in enumerate(chosen, arguments.offset))
        rest = len(lines) - first - len(chosen)
        return self.redact(numbered) + (f"\n[{rest} more lines]" if rest else "")

    def _text(self, path: str) -> str:
        data = self.folder.read(path, FILE_BYTES + 1)
        if len(data) > FILE_BYTES:
            raise ToolError(f"`{path}` is larger than {FILE_BYTES // 1_000_000} MB")
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise ToolError(f"`{path}` is not a text file") from None

    async def _write(self, arguments: WriteFile) -> str:
        data = _encoded(arguments.content)
        if len(data) > FILE_BYTES:
            raise ToolError(f"the content is larger than {FILE_BYTES // 1_000_000} MB")
        new = await in_thread(self.folder.write, arguments.path, data)
        return f"{'made' if new else 'replaced'} `{arguments.path}`: {len(data)} bytes"

    async def _edit(self, arguments: EditFile) -> str:
        def edit() -> int:
            text = self._text(arguments.path)
            count = text.count(arguments.old)
            if not count:
                raise ToolError(f"the text to replace is not in `{arguments.path}`")
            if count > 1 and not arguments.replace_all:
                raise ToolError(
                    f"the text to replace is in `{arguments.path}` {count} times: "
                    "give more of what is around it, or set replace_all"
                )
            data = _encoded(text.replace(arguments.old, arguments.new))
            if len(data) > FILE_BYTES:
                raise ToolError(f"the file would be larger than {FILE_BYTES // 1_000_000} MB")
            self.folder.write(arguments.path, data)
            return count

        count = await in_thread(edit)
        return f"replaced {count} {'place' if count == 1 else 'places'} in `{arguments.path}`"

    async def _list(self, arguments: ListFiles) -> str:
        entries = await in_thread(self.folder.entries, arguments.path)
        shown = []
        for entry in entries:
            match entry.kind:
                case "folder":
                    shown.append(f"{entry.name}/")
                case "file":
                    shown.append(f"{entry.name}  {entry.size} bytes")
                case kind:
                    shown.append(f"{entry.name}  ({kind})")
        return self.redact("\n".join(shown)) or "(the folder is empty)"

    async def _search(self, arguments: SearchFiles) -> str:
        # Not Python's `re`: a pattern can keep it busy for ever, and all threads with it.
        path = await in_thread(self.folder.relative, arguments.path)
        names = [f"--include={arguments.name}"] if arguments.name else []
        done = await commands.run(
            [program("grep"), "-rInE", f"--exclude-dir={PRIVATE}", *names, "-e", arguments.pattern,
             "--", path],
            self.folder.root,
            environment={},
            timeout=SEARCH_SECONDS,
            output_limit=4 * RESULT_CHARACTERS,
        )  # fmt: skip
        text = "\n" + self.redact(done.output.decode(errors="replace"))
        text = text.replace("\n./", "\n")[1:]
        match done.code:
            case 0:
                return text
            case 1 if not text:
                return "(nothing found)"
            case None:
                raise ToolError(f"the search took longer than {SEARCH_SECONDS:.0f} s")
        raise ToolError(text.strip())

    async def _run(self, arguments: RunCommand) -> str:
        try:
            done = await commands.run(
                [program("bash"), "-c", arguments.command],
                self.folder.root,
                environment=self.environment,
                timeout=arguments.timeout_seconds,
                output_limit=4 * RESULT_CHARACTERS,
            )
        except OSError as error:  # it, or a variable, is too long: a file may be longer
            raise ToolError(f"the command cannot be started: {error.strerror}") from None
        output = self.redact(done.output.decode(errors="replace"))
        if done.code == 0:
            return output or "(no output)"
        ended = f"exit code {done.code}"
        if done.code is None:
            ended = f"ended after {arguments.timeout_seconds} s"
        elif done.code < 0:
            ended = f"ended by signal {-done.code}"
        text = shortened(output)
        if text and not text.endswith("\n"):
            text += "\n"
        raise ToolError(f"{text}[{ended}]")


@cache
def program(name: str) -> str:
    """Where a program is: whatever PATH an agent's commands get, this is not looked for there."""
    return shutil.which(name) or name


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ToolError("the content holds half a character (a lone surrogate)") from None


def as_json(value: Any) -> str:
    """Arguments as a model wrote them, for what wants text."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

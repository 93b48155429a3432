"""The tools of an agent: read, write, edit, list and search files, and run commands."""

import re
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from graphton import commands, limits
from graphton.blocking import run_blocking
from graphton.files import PRIVATE_FOLDER, FilesError, Folder
from graphton.network import Network
from graphton.text import truncate_middle

MAX_TOOL_RESULT_CHARACTERS: Final = 30_000
"""The maximum length of a result for the model: about 8000 tokens.

A status shows less of it: see `worker.status.MAX_STATUS_RESULT_CHARACTERS`."""

MAX_FILE_BYTES: Final = 10_000_000
"""The maximum size of a file that is read, written or edited."""

DEFAULT_COMMAND_SECONDS: Final = 120
MAX_COMMAND_SECONDS: Final = 540
"""The time limit of a command: if the model gives none, and the highest it can give."""

MAX_SEARCH_SECONDS: Final = 20.0


class ToolError(Exception):
    """A tool failed. The message becomes its result, for the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool that a model can ask for.

    Attributes:
        name: The name.
        description: What the tool does, for the model.
        arguments: The type of the arguments. Its JSON schema is sent to the model.
        run: Runs the tool and returns the result for the model.
        given_schema: The JSON schema to send in place of that of `arguments`.
    """

    name: str
    description: str
    arguments: type[BaseModel]
    run: Callable[[Any], Awaitable[str]]
    given_schema: Mapping[str, Any] | None = None

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of the arguments, without references: not every service reads them."""
        if self.given_schema is not None:
            return dict(self.given_schema)
        schema = self.arguments.model_json_schema()
        return _simplified(schema, schema.pop("$defs", {}))

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """Validate the arguments and run the tool.

        Raises:
            ToolError: if the arguments are invalid, or the tool fails.
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
            return truncate_middle(await self.run(checked), MAX_TOOL_RESULT_CHARACTERS)
        except FilesError as error:
            raise ToolError(str(error)) from None


def _simplified(schema: dict[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """A schema with its definitions in the places that refer to them.

    The generated titles go, as they only cost tokens, and the docstrings, which are for developers.
    """
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if "properties" in schema:
        schema = {key: value for key, value in schema.items() if key != "description"}
    return {
        key: _simplified(value, definitions) if isinstance(value, dict) else value
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
    }


class ToolArguments(BaseModel):
    """The arguments of a tool. A name that the tool does not know is an error."""

    model_config = ConfigDict(extra="forbid")


PathArgument = Annotated[str, Field(description="relative to the working folder", min_length=1)]


class ReadFile(ToolArguments):
    """Arguments of read_file."""

    path: PathArgument
    offset: Annotated[int, Field(description="the first line to read, from 1", ge=1)] = 1
    limit: Annotated[int, Field(description="how many lines to read", ge=1)] = 2000


class WriteFile(ToolArguments):
    """Arguments of write_file."""

    path: PathArgument
    content: Annotated[str, Field(description="the whole text of the file")]


class EditFile(ToolArguments):
    """Arguments of edit_file."""

    path: PathArgument
    old: Annotated[str, Field(description="the text to replace, exactly", min_length=1)]
    new: Annotated[str, Field(description="the replacement")]
    replace_all: Annotated[bool, Field(description="replace every occurrence")] = False


class ListFiles(ToolArguments):
    """Arguments of list_files."""

    path: PathArgument = "."


class SearchFiles(ToolArguments):
    """Arguments of search_files."""

    pattern: Annotated[str, Field(description="an extended regular expression", min_length=1)]
    path: PathArgument = "."
    name: Annotated[str, Field(description="only files with matching names, such as *.py")] = ""


class RunCommand(ToolArguments):
    """Arguments of run_command."""

    command: Annotated[str, Field(description="a bash command", min_length=1)]
    timeout_seconds: Annotated[
        int, Field(description="the time limit", ge=1, le=MAX_COMMAND_SECONDS)
    ] = DEFAULT_COMMAND_SECONDS


@dataclass(frozen=True)
class SandboxTools:
    """The tools of one sandbox.

    Attributes:
        folder: The sandbox.
        environment: Additional environment variables for commands.
        redact: Removes secrets from a text. It is applied to every result.
        placeholders: What `redact` puts in the place of secrets. They are not written into files.
        account: What commands use, and may use, together.
    """

    folder: Folder
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    redact: Callable[[str], str] = str
    placeholders: frozenset[str] = frozenset()
    account: limits.Account = field(default_factory=limits.Account, repr=False)

    @cached_property
    def all(self) -> Sequence[Tool]:
        """All tools, in the order in which they are listed for the model."""
        return (
            Tool(
                name="read_file",
                description="Read a text file. Lines come with their numbers.",
                arguments=ReadFile,
                run=self._read,
            ),
            Tool(
                name="write_file",
                description="Write a text file, replacing an existing one. "
                "Missing folders are created.",
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
                description="Find matching lines in the files of a folder and its subfolders.",
                arguments=SearchFiles,
                run=self._search,
            ),
            Tool(
                name="run_command",
                description="Run a bash command in the working folder; get its output and exit "
                "code. Only the working folder and $TMPDIR can be written to. There is no input; "
                f"processes that are still running at the end are killed.{_about_the_network()}",
                arguments=RunCommand,
                run=self._run,
            ),
        )

    async def _read(self, arguments: ReadFile) -> str:
        return await run_blocking(self._read_lines, arguments)

    def _read_lines(self, arguments: ReadFile) -> str:
        text = self._read_text(arguments.path)
        lines = _LINE_END.split(text.removesuffix("\n").removesuffix("\r")) if text else []
        first = arguments.offset - 1
        chosen = lines[first : first + arguments.limit]
        if not lines:
            return "(the file is empty)"
        if not chosen:
            raise ToolError(f"`{arguments.path}` has only {len(lines)} lines")
        numbered = "\n".join(f"{n:6}  {line}" for n, line in enumerate(chosen, arguments.offset))
        rest = len(lines) - first - len(chosen)
        return self.redact(numbered) + (f"\n[{rest} more lines]" if rest else "")

    def _read_text(self, path: str) -> str:
        data = self.folder.read(path, MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ToolError(f"`{path}` is larger than {MAX_FILE_BYTES // 1_000_000} MB")
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise ToolError(f"`{path}` is not a text file") from None

    async def _write(self, arguments: WriteFile) -> str:
        data = _encode_text(arguments.content)
        if len(data) > MAX_FILE_BYTES:
            raise ToolError(f"the content is larger than {MAX_FILE_BYTES // 1_000_000} MB")
        if any(placeholder in arguments.content for placeholder in self.placeholders):
            before = await run_blocking(self._existing_text, arguments.path)
            self._refuse_placeholders(arguments.path, before, arguments.content)
        new = await run_blocking(self.folder.write, arguments.path, data)
        return f"{'created' if new else 'replaced'} `{arguments.path}`: {len(data)} bytes"

    async def _edit(self, arguments: EditFile) -> str:
        def edit() -> int:
            text = self._read_text(arguments.path)
            old, new = arguments.old, arguments.new
            if _uses_crlf(text):  # the model sees, and writes, lines without their ends
                old, new = _with_crlf(old), _with_crlf(new)
            count = text.count(old)
            if not count:
                hint = ""
                if any(placeholder in old for placeholder in self.placeholders):
                    hint = (
                        ": the file has the secret itself where you see the placeholder; "
                        "replace only the text around it"
                    )
                raise ToolError(f"the text to replace is not in `{arguments.path}`{hint}")
            if count > 1 and not arguments.replace_all:
                raise ToolError(
                    f"the text to replace is in `{arguments.path}` {count} times: "
                    "give more of what is around it, or set replace_all"
                )
            edited = text.replace(old, new)
            self._refuse_placeholders(arguments.path, text, edited)
            data = _encode_text(edited)
            if len(data) > MAX_FILE_BYTES:
                raise ToolError(f"the file would be larger than {MAX_FILE_BYTES // 1_000_000} MB")
            self.folder.write(arguments.path, data)
            return count

        count = await run_blocking(edit)
        return f"replaced {count} {'place' if count == 1 else 'places'} in `{arguments.path}`"

    def _existing_text(self, path: str) -> str:
        """The text of a file; empty if there is none, or it is not a text file."""
        try:
            return self._read_text(path)
        except (FilesError, ToolError):
            return ""

    def _refuse_placeholders(self, path: str, before: str, after: str) -> None:
        """Prevent that a placeholder is written into a file, where the secret itself belongs."""
        for placeholder in sorted(self.placeholders):
            if after.count(placeholder) > before.count(placeholder):
                raise ToolError(
                    f"nothing was written: `{placeholder}` stands for a secret that is hidden from "
                    f"you; `{path}` would contain this text instead of the secret. Change only "
                    "other parts of a file with edit_file, or write the file with run_command, "
                    "which has the secret as an environment variable"
                )

    async def _list(self, arguments: ListFiles) -> str:
        entries = await run_blocking(self.folder.list_entries, arguments.path)
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
        # Not Python's `re`: a bad pattern can run forever, and it would block every other thread.
        path = await run_blocking(self.folder.relative_path, arguments.path)
        names = [f"--include={arguments.name}"] if arguments.name else []
        done = await self._run_program(
            [find_program("grep"), "-rInE", f"--exclude-dir={PRIVATE_FOLDER}", *names,
             "-e", arguments.pattern, "--", path],
            {},
            MAX_SEARCH_SECONDS,
        )  # fmt: skip
        text = "\n" + self.redact(done.output.decode(errors="replace"))
        text = text.replace("\n./", "\n")[1:]
        match done.exit_code:
            case 0:
                return text
            case 1 if not text:
                return "(nothing found)"
            case None:
                raise ToolError(f"the search took longer than {MAX_SEARCH_SECONDS:.0f} s")
        raise ToolError(text.strip())

    async def _run(self, arguments: RunCommand) -> str:
        done = await self._run_program(
            [find_program("bash"), "-c", arguments.command],
            self.environment,
            arguments.timeout_seconds,
        )
        output = self.redact(done.output.decode(errors="replace"))
        if done.exit_code == 0:
            note = f"\n[{done.note}]" if done.note else ""
            return (output or "(no output)") + note
        ended = f"exit code {done.exit_code}"
        if done.excess:
            ended = f"ended because {done.excess}"
        elif done.exit_code is None:
            ended = f"ended after {arguments.timeout_seconds} s"
        elif done.exit_code < 0:
            ended = f"ended by signal {-done.exit_code}"
        text = truncate_middle(output, MAX_TOOL_RESULT_CHARACTERS)
        if text and not text.endswith("\n"):
            text += "\n"
        raise ToolError(f"{text}[{ended}{'; ' if done.note else ''}{done.note}]")

    async def _run_program(
        self, arguments: Sequence[str], environment: Mapping[str, str], seconds: float
    ) -> commands.CommandResult:
        try:
            return await commands.run(
                arguments,
                self.folder.root,
                environment=environment,
                timeout=seconds,
                output_limit=4 * MAX_TOOL_RESULT_CHARACTERS,
                account=self.account,
            )
        except OSError as error:  # usually: the command or a variable is too long
            raise ToolError(f"the command cannot be started: {error.strerror}") from None


def _about_the_network() -> str:
    match commands.network():
        case Network.OPEN:
            return ""
        case Network.NONE:
            return " There is no network."
        case Network.ALLOWLIST:
            return (
                " Only listed hosts can be reached, and only through the proxy in $HTTP_PROXY and "
                "$HTTPS_PROXY. Other hosts answer with 403."
            )


@cache
def find_program(name: str) -> str:
    """The path of a program, from the worker's own PATH and not from that of the agent."""
    return shutil.which(name) or name


_LINE_END: Final = re.compile(r"\r?\n")


def _uses_crlf(text: str) -> bool:
    """Whether all lines of a text end with CR LF."""
    return "\r\n" in text and text.count("\r\n") == text.count("\n")


def _with_crlf(text: str) -> str:
    return _LINE_END.sub("\r\n", text)


def _encode_text(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ToolError("the content contains half a character (a lone surrogate)") from None

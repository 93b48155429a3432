"""The names under which a model sees the tools of servers."""

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Final

MAX_NAME_CHARACTERS: Final = 64
"""The maximum length of a tool's name that all model services accept."""

_DIGEST_SIZES: Final = range(8, 57, 8)
"""How many characters a digest has: the first number with which all names differ."""


def tool_names(
    tools: Iterable[tuple[str, str]], reserved: Collection[str] = ()
) -> dict[tuple[str, str], str]:
    """Name tools, each given as the name of its server and its name there.

    A name is `server__tool`, with `_` in the place of characters that not every model service
    accepts. A digest replaces the end of a name that is too long, and is added to each of those
    that would be the same. So a name depends neither on the order of the servers nor on that of
    their tools. All names differ, also from the reserved ones.

    Args:
        tools: The tools.
        reserved: Names that other tools have.
    """
    plain = {tool: _plain_name(*tool) for tool in tools}
    counts = Counter(plain.values())
    names: dict[tuple[str, str], str] = {}
    for size in _DIGEST_SIZES:
        digests = {tool: _with_digest(name, tool, size) for tool, name in plain.items()}
        taken = {*reserved, *digests.values()}
        names = {
            tool: name
            if counts[name] == 1 and len(name) <= MAX_NAME_CHARACTERS and name not in taken
            else digests[tool]
            for tool, name in plain.items()
        }
        if len({*reserved, *names.values()}) == len({*reserved}) + len(names):
            break
    return names


def _plain_name(server: str, tool: str) -> str:
    name = re.sub(r"[^a-zA-Z0-9_-]", "_", f"{server}__{tool}")
    return name if re.match(r"[a-zA-Z_]", name) else f"mcp_{name}"  # Gemini needs a letter or `_`


def _with_digest(name: str, tool: tuple[str, str], size: int) -> str:
    # `repr` differs for all tools, and escapes lone surrogates, which UTF-8 cannot encode.
    digest = hashlib.sha256(repr(tool).encode()).hexdigest()
    room = MAX_NAME_CHARACTERS - size - 1
    return f"{name[:room]}_{digest[:size]}"

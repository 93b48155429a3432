"""The system prompt: the agent's instructions, its environment and its skills."""

from collections.abc import Iterable, Sequence

from worker.skills import Skill

_WORKING = """\
# Where you work

You work in a folder of your own. Tool paths are relative to it; its files stay for the next request
in this conversation. Do what is asked with the tools, look at the results, and end with a short
answer that says what you did. Values such as `[secret NAME]` stand for secrets that you do not get
to see; commands get them as the environment variable NAME.\
"""


def system_prompt(instructions: str, skills: Sequence[Skill], variables: Iterable[str]) -> str:
    """Build the system prompt.

    Args:
        instructions: The instructions from the agent's definition.
        skills: The skills in the sandbox.
        variables: The names of the environment variables that commands get.
    """
    parts = [instructions.strip() or "You are a helpful agent.", _WORKING]
    if names := sorted(variables):
        parts.append(
            "# Environment\n\nCommands get these variables: " + ", ".join(f"`{n}`" for n in names)
        )
    if skills:
        lines = [
            f"- `{skill.name}`: {skill.description or 'no description'} (`{skill.page}`)"
            for skill in skills
        ]
        parts.append(
            "# Skills\n\nRead a skill's page before you do what it is for. Its files lie beside "
            "the page.\n\n" + "\n".join(lines)
        )
    return "\n\n".join(parts)

"""What an agent is told about itself and where it is."""

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
    """The instructions for the model.

    Args:
        instructions: The agent's own.
        skills: What it can look up.
        variables: The names of the environment variables that its commands get.
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

"""What happens if a machine cannot wall in an agent's commands. Importing it is fast."""

from enum import StrEnum


class Isolation(StrEnum):
    """Whether commands run without a wall."""

    AUTO = "auto"  # they run behind what there is
    REQUIRE = "require"  # they do not run

"""Fields of a request that only some models accept."""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

from graphton.chat import ModelError

_log = logging.getLogger(__name__)

_REFUSED: Final = re.compile(
    r"unsupported|not support|unknown|unrecognized|not permitted|not allowed|deprecated|extra"
    r"|may only|only the default",
    re.IGNORECASE,
)

_Answer = TypeVar("_Answer")


class OptionalFields:
    """Sends fields until the service refuses them.

    Which models accept which fields changes with each new model, so there is no list of models.

    Args:
        names: The fields that may be left out, each with the field to send in its place, or an
            empty text.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self._refused: set[str] = set()

    async def send(
        self, body: Mapping[str, Any], ask: Callable[[dict[str, Any]], Awaitable[_Answer]]
    ) -> _Answer:
        """Call `ask` with the fields of a request that have not been refused.

        Raises:
            ModelError: from `ask`, if it is not about one of the fields.
        """
        while True:
            sent = self._accepted(body)
            try:
                return await ask(sent)
            except ModelError as error:
                refused = self._find_refused(sent, error)
                if not refused:
                    raise
                self._refused.add(refused)
                instead = self._names[refused]
                _log.warning(
                    "%s; trying again %s `%s`",
                    error,
                    f"with `{instead}` in place of" if instead else "without",
                    refused,
                )

    def _accepted(self, body: Mapping[str, Any]) -> dict[str, Any]:
        sent = {}
        for name, value in body.items():
            if name not in self._refused:
                sent[name] = value
            elif instead := self._names[name]:
                sent[instead] = value
        return sent

    def _find_refused(self, sent: Mapping[str, Any], error: ModelError) -> str:
        """The name of the field that an error refuses; empty if it is about something else."""
        if error.status not in {400, 422}:
            return ""
        for name in self._names:
            if name not in sent:
                continue
            if error.field.split(".")[0].split("[")[0] == name:
                return name
            named = re.search(rf"(?<![\w-]){name}(?![\w-])", str(error))
            if not error.field and named and _REFUSED.search(str(error)):
                return name
        return ""

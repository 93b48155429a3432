"""Errors as model services describe them."""

import json
import re
from dataclasses import dataclass
from typing import Final

TRANSIENT_STATUSES: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""HTTP statuses with which the same request may succeed later. 529 is Anthropic's: overloaded."""

_PERMANENT_ERRORS: Final = frozenset(
    {
        *("authentication_error", "billing_error", "invalid_request_error", "invalid_api_key"),
        *("not_found_error", "permission_error", "request_too_large", "context_length_exceeded"),
        *("insufficient_quota", "invalid_prompt", "content_filter", "model_not_found"),
        *("bio_policy", "misalignment_policy_violation", "data_residency_mismatch"),
    }
)
"""Types and codes of errors that the same request would get again, as the services name them."""

_TOO_LONG: Final = re.compile(
    r"context.?(length|window|size|limit)|maximum context|too many tokens|prompt is too long"
    r"|exceeds? the (available|maximum) (context|number of tokens)",
    re.IGNORECASE,
)


_REASONING: Final = re.compile(
    r"signature|thinking`? blocks?|reasoning`? items?|encrypted content", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class ServiceError:
    """An error, as a service describes it in a response.

    Attributes:
        text: The message, as one line of at most 500 characters.
        kinds: The type and the code of the error.
        field: The field of the request that it is about, if the service names one.
    """

    text: str
    kinds: frozenset[str]
    field: str

    @classmethod
    def parse(cls, body: str) -> "ServiceError":
        """Find the error in the body of a response. The body may be anything."""
        try:
            value = json.loads(body)
        except ValueError:
            value = body if "<html" not in body.lower() else ""
        if isinstance(value, list) and value:  # Gemini
            value = value[0]
        kinds, field = list[str](), ""
        if isinstance(value, dict):
            value = value.get("error") or value
        if isinstance(value, dict):
            kinds = [str(value.get(name) or "") for name in ("type", "code", "status")]
            field = str(value.get("param") or "")
            value = value.get("message") or value.get("detail") or json.dumps(value)
        return cls(" ".join(str(value).split())[:500], frozenset(kinds), field)

    @property
    def is_too_long(self) -> bool:
        """Whether the conversation is too long for the model."""
        if any("rate_limit" in kind for kind in self.kinds):  # too many tokens in a minute
            return False
        is_known = {"context_length_exceeded", "request_too_large"} & self.kinds
        return bool(is_known or _TOO_LONG.search(self.text))

    @property
    def is_about_reasoning(self) -> bool:
        """Whether the service refuses reasoning that it had sent: it is bound to something else."""
        return "invalid_encrypted_content" in self.kinds or bool(_REASONING.search(self.text))

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later, for an error without an HTTP status."""
        codes = [int(kind) for kind in self.kinds if kind.isdecimal()]
        if any(400 <= code < 500 and code not in TRANSIENT_STATUSES for code in codes):
            return False
        return not (self.kinds & _PERMANENT_ERRORS or self.is_too_long)

"""Tests the redaction of secrets."""

import base64
import json
import textwrap
import time
from urllib.parse import quote

import pytest

from worker.redaction import Redactor

KEY = "hun/ter 2+\nsecond-line-that-is-long"


def test_encoded_secrets_are_replaced_too() -> None:
    redact = Redactor([("KEY", KEY), ("PIN", "1"), ("NAME", "hun/ter")])
    for form in (
        KEY,
        json.dumps(KEY)[1:-1],
        quote(KEY, safe=""),
        base64.b64encode(KEY.encode()).decode(),
        "second-line-that-is-long",
    ):
        assert redact(f"a {form} b") == "a [secret KEY] b"
    assert redact("hun/ter 1") == "[secret NAME] 1"
    assert redact.redact_json({"a": ["hun/ter", 1, {"hun/ter": None}]}) == {
        "a": ["[secret NAME]", 1, {"[secret NAME]": None}]
    }
    assert Redactor()("\ud800x") == "?x"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("say hunter2 now", "say [secret P] now"),
        ("say hunt", "say "),
        ("say h", "say "),
        ("say hunger", "say hunger"),
        ("say ", "say "),
        ("hunter2", "[secret P]"),
    ],
)
def test_an_incomplete_text_never_shows_a_part_of_a_secret(text: str, shown: str) -> None:
    redact = Redactor([("P", "hunter2")])
    for end in range(len(text)):
        redacted = redact.redact_partial(text[:end])
        assert not any(redacted.endswith("hunter2"[:n]) for n in range(1, 8)), redacted
    assert redact.redact_partial(text) == shown or text == "hunter2"


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("secret", ["s3cret-value", "s3cret-value1", "s3cret-value12", "k" * 300],
                         ids=["12", "13", "14", "300"])  # fmt: skip
def test_base64_is_found_with_a_newline_and_in_lines(secret: str, end: str) -> None:
    redact = Redactor([("TOKEN", secret)])
    data = (secret + end).encode()
    in_lines = base64.encodebytes(data).decode()
    short_lines = "\n".join(textwrap.wrap(base64.b64encode(data).decode(), 64))
    for form in (
        base64.b64encode(data).decode(),
        base64.urlsafe_b64encode(data).decode(),
        in_lines,
        in_lines.replace("\n", "\n    "),
        short_lines,
    ):
        shown = redact(f"a {form} b")
        assert "[secret TOKEN]" in shown
        for line in form.split():
            assert line not in shown


def test_secrets_that_overlap_do_not_remain_in_part() -> None:
    redact = Redactor([("A", "0123456789"), ("B", "6789abcdef")])
    assert redact("x0123456789abcdefx") == "x[secret A]x"
    assert redact("0123456789 6789abcdef") == "[secret A] [secret B]"


def test_a_partial_secret_is_found_in_the_middle_of_repetitions() -> None:
    redact = Redactor([("P", "abababc")])
    assert redact.redact_partial("x ababab") == "x "
    assert redact.redact_partial("x abababab") == "x ab"
    assert redact.redact_partial("x abababc") == "x "
    assert redact.redact_partial("x abababcx") == "x [secret P]x"


def seconds(size: int) -> float:
    """The fastest of several runs, with texts that almost match at every character."""
    redact = Redactor([("KEY", "a" * size + "b"), ("LINES", "\n".join(["c" * 60] * (size // 60)))])
    text = "a" * size + "c" * size
    best = 1e9
    for _ in range(5):
        started = time.thread_time()  # other processes do not count
        redact(text)
        redact.redact_partial(text)
        redact.redact_partial("a" * size)
        best = min(best, time.thread_time() - started)
    return best


def test_the_time_is_proportional_to_the_length() -> None:
    assert seconds(32_000) < 1
    assert seconds(32_000) < 8 * seconds(8000)  # proportional is 4, quadratic is 16

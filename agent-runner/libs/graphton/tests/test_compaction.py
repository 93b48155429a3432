"""Tests what a model is told of a conversation that is too long."""

import random

import pytest

from graphton.chat import Message, Omission, Part, Reasoning, Role, Text, ToolUse
from graphton.compaction import fit, message_tokens

BOUND, FREE = Reasoning({"signature": "s"}, bound=True), Reasoning({"reasoning_content": "r"})


def conversation(turns: int, rounds: int, result: int = 4000, argument: int = 10) -> list[Message]:
    messages = []
    for turn in range(turns):
        messages.append(Message.user(f"request {turn}"))
        for number in range(rounds):
            use = ToolUse(f"u{turn}.{number}", "tool", {"content": "a" * argument})
            parts: tuple[Part, ...] = (BOUND, FREE, Text(f"step {number}"), use)
            messages.append(Message(role=Role.ASSISTANT, parts=parts))
            messages.append(Message.result(use.id, "r" * result))
        messages.append(Message(role=Role.ASSISTANT, parts=(BOUND, Text(f"answer {turn}"))))
    return messages


def total(messages: list[Message]) -> int:
    return sum(map(message_tokens, messages))


def check_pairs(messages: list[Message]) -> None:
    """Each result follows the message that asks for it, and no use is without a result."""
    open_uses: list[str] = []
    for message in messages:
        if message.role is Role.TOOL:
            assert message.tool_use_id == open_uses.pop(0)
        else:
            assert not open_uses
            open_uses = [use.id for use in message.tool_uses]
    assert not open_uses


def test_what_fits_stays_as_it_is() -> None:
    messages = conversation(3, 3)
    assert fit(messages, total(messages)) == messages


def test_old_results_are_shortened_first() -> None:
    messages = conversation(1, 10)
    fitted = fit(messages, total(messages) - 1)
    assert len(fitted) == len(messages)
    lengths = [len(m.text) for m in fitted if m.role is Role.TOOL]
    assert lengths[0] < 1100
    assert lengths[-2:] == [4000, 4000], "the newest stay"
    assert total(fitted) <= total(messages) * 0.62
    assert "3000 characters left out" in fitted[2].text


def test_long_arguments_are_shortened_too() -> None:
    messages = conversation(1, 10, result=10, argument=5000)
    fitted = fit(messages, total(messages) - 1)
    first, last = fitted[1].tool_uses[0], fitted[-3].tool_uses[0]
    assert len(first.arguments["content"]) < 1100
    assert len(last.arguments["content"]) == 5000


def test_then_long_texts_of_earlier_turns_are_shortened() -> None:
    long = "x" * 100_000
    old = [Message.user(long), Message(role=Role.ASSISTANT, parts=(Text(long),))]
    fitted = fit([*old, Message.user(f"new {long}")], 50_000)
    assert [len(m.text) < 4100 for m in fitted] == [True, True, False]
    assert fitted[2].text == f"new {long}"


def test_then_the_oldest_turns_are_left_out() -> None:
    messages = conversation(10, 2, result=500)
    fitted = fit(messages, total(messages) // 2)
    assert fitted[0].parts[0] == Omission(3 * (10 - fitted.count(fitted[0]) - len(
        [m for m in fitted if m.role is Role.USER][1:])))  # fmt: skip
    assert fitted[0].text.startswith("request ")
    assert fitted[-1].text == "answer 9"
    check_pairs(fitted)


def test_then_the_oldest_replies_of_the_newest_turn() -> None:
    messages = conversation(1, 50, result=500)[:-1]
    fitted = fit(messages, total(messages) // 3)
    request = fitted[0]
    assert request.text == "request 0"
    note = request.parts[-1]
    assert isinstance(note, Omission)
    kept = sum(m.role is Role.ASSISTANT for m in fitted)
    assert (note.replies, fitted[1].text) == (50 - kept, f"step {50 - kept}")
    assert request.shown_text == f"request 0\n\n{note.text}"
    check_pairs(fitted)
    again = fit([*fitted, *conversation(1, 60, result=500)[1:-1]], total(messages) // 3)
    second = again[0].parts[-1]
    assert isinstance(second, Omission)
    assert second.replies == 110 - sum(m.role is Role.ASSISTANT for m in again)
    assert sum(isinstance(part, Omission) for part in again[0].parts) == 1


def test_a_single_huge_turn_fits() -> None:
    """As after 99 tools with the longest results, which were two million characters."""
    messages = conversation(1, 99, result=30_000)[:-1]
    fitted = fit(messages, 20_000)
    assert total(fitted) <= 20_000
    assert fitted[0].text == "request 0"
    assert fitted[-1].text.startswith("rrr")
    check_pairs(fitted)


@pytest.mark.parametrize("message", [
    [Message.user("x" * 2_000_000)],
    [Message.user("go"), Message(role=Role.ASSISTANT, parts=(
        *(ToolUse(f"u{n}", "t", {"deep": {"er": ["y" * 50_000]}}) for n in range(20)),)),
     *(Message.result(f"u{n}", "z" * 50_000) for n in range(20))],
])  # fmt: skip
def test_even_one_request_or_reply_is_shortened(message: list[Message]) -> None:
    fitted = fit(message, 8000)
    assert total(fitted) <= 8000
    check_pairs(fitted)


def test_bound_reasoning_goes_with_what_it_is_bound_to() -> None:
    messages = conversation(1, 10)
    fitted = fit(messages, total(messages) - 1)
    changed = next(n for n, m in enumerate(fitted) if m is not messages[n])
    reasoning = [[p for p in m.parts if isinstance(p, Reasoning)] for m in fitted]
    assert BOUND in reasoning[1], "before the change"
    assert changed == 2
    assert not any(BOUND in parts for parts in reasoning[changed:])
    assert all(FREE in parts for parts in reasoning[3:-1:2]), "its provider refuses to miss it"


def test_it_is_needed_rarely() -> None:
    """A change makes the service's cache worthless, so it must not happen with every reply."""
    messages, changes = conversation(1, 0)[:1], 0
    for number in range(100):
        use = ToolUse(f"u{number}", "tool", {})
        messages.append(Message(role=Role.ASSISTANT, parts=(use,)))
        messages.append(Message.result(use.id, "r" * 2000))
        fitted = fit(messages, 10_000)
        changes += fitted != messages
        messages = fitted
        assert total(messages) <= 10_000
    assert 2 <= changes <= 20


def test_it_holds_for_any_conversation() -> None:
    chance = random.Random(1)  # noqa: S311 (not used for security)
    for _ in range(300):
        messages = conversation(
            chance.randint(1, 6), chance.randint(0, 8), chance.choice([0, 50, 3000, 40_000])
        )
        messages = messages[: chance.randint(1, len(messages))]
        while messages[-1].role is not Role.USER and messages[-1].tool_uses:
            messages.pop()
        budget = chance.randint(2000, 20_000)
        fitted = fit(messages, budget)
        check_pairs(fitted)
        assert total(fitted) <= budget
        newest = [m.text for m in messages if m.role is Role.USER][-1]
        assert newest in [m.text for m in fitted if m.role is Role.USER]
        assert fit(fitted, budget) == fitted
        replies = sum(m.role is Role.ASSISTANT for m in messages)
        notes = [p.replies for m in fitted for p in m.parts if isinstance(p, Omission)]
        assert replies == sum(m.role is Role.ASSISTANT for m in fitted) + sum(notes)

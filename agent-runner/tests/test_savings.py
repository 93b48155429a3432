"""Measures what caching and shortening save in an execution of 100 rounds.

The scripted model is asked with Anthropic's API. Tokens are estimated, and what the service's cache
would hold is computed from the requests: https://platform.claude.com/docs/en/build-with-claude/prompt-caching
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from devserver.model import ModelServer
from graphton.agent import Agent, RunLimits
from graphton.compaction import estimate
from graphton.files import Folder
from graphton.model import ModelConfig, Provider
from graphton.providers import connect
from graphton.tools import SandboxTools
from tests.test_graphton import RecordingObserver

ROUNDS = 100
RESULT_CHARACTERS = (500, 2000, 1000, 12_000, 4000)
"""The sizes of the results of tools, in turn."""

READ_PRICE, WRITE_PRICE = 0.1, 1.25
"""What reading a token from the cache and writing one costs, compared with one without a cache."""

LOOKBACK_BLOCKS = 20
"""How many blocks before a mark the service looks for what it has in its cache."""


@dataclass
class Cost:
    """The tokens of all requests together.

    Attributes:
        sent: All tokens.
        read: Those that the service reads from its cache.
        written: Those that it writes to its cache.
    """

    sent: int = 0
    read: int = 0
    written: int = 0

    @property
    def price(self) -> float:
        """What the requests cost, in tokens without a cache."""
        plain = self.sent - self.read - self.written
        return plain + self.read * READ_PRICE + self.written * WRITE_PRICE


def compute_cost(bodies: list[dict[str, Any]]) -> Cost:
    """Compute what a service with a cache does with requests."""
    cost, cache = Cost(), set[str]()
    for body in bodies:
        blocks = [*body["tools"], *body["system"]]
        blocks += [
            {"role": message["role"], **block}
            for message in body["messages"]
            for block in message["content"]
        ]
        sizes, keys, marks = [0], list[str](), list[int]()
        digest = hashlib.sha256()
        for number, block in enumerate(blocks):
            if block.get("cache_control"):
                marks.append(number)
            text = json.dumps({k: v for k, v in block.items() if k != "cache_control"})
            digest.update(text.encode())
            sizes.append(sizes[-1] + estimate(text))
            keys.append(digest.hexdigest())
        near = {n for mark in marks for n in range(mark, max(-1, mark - LOOKBACK_BLOCKS), -1)}
        read = max((sizes[n + 1] for n in near if keys[n] in cache), default=0)
        cost.sent += sizes[-1]
        cost.read += read
        cost.written += max((sizes[mark + 1] for mark in marks), default=read) - read
        cache |= {keys[mark] for mark in marks}
    return cost


async def run_rounds(root: Path, context_tokens: int) -> tuple[list[dict[str, Any]], str]:
    """Run 100 rounds. Returns the bodies of the requests, and the answer."""
    (root / ".tmp").mkdir(parents=True)
    for number, size in enumerate(RESULT_CHARACTERS):
        (root / f"f{number}").write_text("word " * (size // 5))
    steps = [
        f'!tool read_file {{"path": "f{number % len(RESULT_CHARACTERS)}"}}'
        for number in range(ROUNDS - 1)
    ]
    server = ModelServer()
    server.start()
    config = ModelConfig.resolve(Provider.ANTHROPIC, base_url=server.url, api_key="k")
    chat = connect(replace(config, context_tokens=context_tokens))
    try:
        with Folder(root) as folder:
            agent = Agent(
                chat, system="Be brief.", tools=SandboxTools(folder).all, limits=RunLimits()
            )
            outcome = await agent.run(
                [], "\n".join([*steps, "!say done"]), RecordingObserver(), lambda _: None
            )
    finally:
        await chat.close()
        server.stop()
    assert outcome.rounds == ROUNDS
    return [body for _, _, body in server.requests], outcome.text


@pytest.mark.parametrize(
    ("context_tokens", "at_most", "at_least_read"),
    [(200_000, 1.01, 0.9), (64_000, 0.75, 0.8), (32_768, 0.4, 0.6)],
)
async def test_caching_and_shortening(
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    context_tokens: int,
    at_most: float,
    at_least_read: float,
) -> None:
    whole, _ = await run_rounds(tmp_path / "whole", 10_000_000)
    bodies, answer = await run_rounds(tmp_path / "box", context_tokens)
    assert answer == "done"
    without, cost = compute_cost(whole), compute_cost(bodies)
    assert cost.sent <= without.sent * at_most
    assert cost.read >= cost.sent * at_least_read
    largest = max(estimate(json.dumps(body)) for body in bodies)
    assert largest <= context_tokens
    record_property(
        f"{ROUNDS} rounds, context of {context_tokens}",
        f"{cost.sent} of {without.sent} tokens sent, {cost.read} of them from the cache, "
        f"price {cost.price:.0f}, largest request {largest}",
    )

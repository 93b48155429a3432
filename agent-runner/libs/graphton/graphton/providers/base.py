"""What the clients of all services share."""

from collections.abc import Mapping

from graphton.model import ModelConfig
from graphton.providers.http import ModelHttpClient


class HttpChat:
    """The part of a ChatModel that does not depend on the service."""

    def __init__(self, config: ModelConfig, headers: Mapping[str, str]) -> None:
        self._config = config
        self._client = ModelHttpClient(config, headers)

    @property
    def identity(self) -> str:
        """See ChatModel."""
        return self._client.identity

    async def close(self) -> None:
        """See ChatModel."""
        await self._client.close()


def bearer(config: ModelConfig) -> dict[str, str]:
    """The header with the key, if there is one."""
    return {"authorization": f"Bearer {config.api_key}"} if config.api_key else {}

"""A gRPC method of stigmer-server that only its clients call, not the agent-runner."""

from typing import Final

from stigmer_stubs import session_pb2
from stigmer_stubs.backend import Method

CREATE_SESSION: Final = Method(
    "/ai.stigmer.agentic.session.v1.SessionCommandController/create",
    session_pb2.Session,
    session_pb2.Session,
)

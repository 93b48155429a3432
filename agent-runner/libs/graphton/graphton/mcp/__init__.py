"""A client for servers of the Model Context Protocol (MCP), which offer tools to a model.

https://modelcontextprotocol.io/specification describes the protocol.
"""

from graphton.mcp.protocol import McpError
from graphton.mcp.servers import HttpServer, McpServer, Servers, StdioServer, connect

__all__ = ["HttpServer", "McpError", "McpServer", "Servers", "StdioServer", "connect"]

# shellcheck shell=bash
# MCP servers that others wrote, for the worker's tests.

MCP_EVERYTHING_VERSION=2026.8.31
MCP_FETCH_VERSION=2026.10.24
MCP_GIT_VERSION=2026.10.19
# `node_modules` has the first one, `python` the others.
MCP_SERVERS=$CACHE/mcp/$MCP_EVERYTHING_VERSION-$MCP_FETCH_VERSION-$MCP_GIT_VERSION

install_mcp_servers() {
    [[ -e $MCP_SERVERS/.done ]] && return
    if ! have node || ! have npm; then
        apt_install nodejs npm
    fi
    have git || apt_install git
    rm -rf "$MCP_SERVERS"
    mkdir -p "$MCP_SERVERS"
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$MCP_SERVERS" \
        "@modelcontextprotocol/server-everything@$MCP_EVERYTHING_VERSION"
    # Not a virtual environment: a test copies the folder into a sandbox.
    python3.11 -m venv "$MCP_SERVERS/venv"
    "$MCP_SERVERS/venv/bin/pip" install --quiet --target "$MCP_SERVERS/python" \
        "mcp-server-fetch==$MCP_FETCH_VERSION" "mcp-server-git==$MCP_GIT_VERSION"
    rm -r "$MCP_SERVERS/venv"
    touch "$MCP_SERVERS/.done"
}

# shellcheck shell=bash
# agent-runner's own tools, in virtual environments below the cache.

POETRY_VERSION=2.5.1
POETRY_MIRROR_PLUGIN_VERSION=0.6.5
POETRY=$CACHE/poetry-$POETRY_VERSION/bin/poetry
export POETRY_VIRTUALENVS_IN_PROJECT=false POETRY_VIRTUALENVS_PATH=$CACHE/venvs
export POETRY_NO_INTERACTION=1
# Poetry asks PyPI's JSON API, which proxies and mirrors of PyPI seldom serve.
# The plugin makes it ask the index that pip asks, and needs no other lock file.
export POETRY_PYPI_MIRROR_URL=https://pypi.org/simple/

poetry_install() {
    local python
    python3.11 -c 'import ensurepip, venv' 2>/dev/null ||
        apt_install python3.11 python3.11-venv
    # Not a version manager's shim: that changes its mind with the folder.
    python=$(python3.11 -c 'import sys; print(sys.executable)')
    if [[ ! -e $POETRY.done ]]; then
        rm -rf "$CACHE/poetry-$POETRY_VERSION"
        "$python" -m venv "$CACHE/poetry-$POETRY_VERSION"
        "$CACHE/poetry-$POETRY_VERSION/bin/pip" install --quiet "poetry==$POETRY_VERSION" \
            "poetry-plugin-pypi-mirror==$POETRY_MIRROR_PLUGIN_VERSION"
        touch "$POETRY.done"
    fi
    cd agent-runner
    "$POETRY" env use --quiet "$python"
    "$POETRY" check --lock
    # Exactly the lock file: nothing left over from an earlier run.
    "$POETRY" sync
}

in_agent_runner() {
    cd agent-runner
    "$POETRY" run "$@"
}

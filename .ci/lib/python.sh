# shellcheck shell=bash
# Poetry and agent-runner's dependencies, in virtual environments in the cache.

POETRY_VERSION=2.5.1
POETRY_MIRROR_PLUGIN_VERSION=0.6.5
POETRY=$CACHE/poetry-$POETRY_VERSION/bin/poetry
export POETRY_VIRTUALENVS_IN_PROJECT=false POETRY_VIRTUALENVS_PATH=$CACHE/venvs
export POETRY_NO_INTERACTION=1
# Poetry uses PyPI's JSON API, which most proxies and mirrors of PyPI do not have. With the plugin it
# uses the simple index, as pip does, and the lock file stays the same.
export POETRY_PYPI_MIRROR_URL=https://pypi.org/simple/
# Kept between runs: without its cache, mypy takes half a minute.
export MYPY_CACHE_DIR=$CACHE/mypy

poetry_install() {
    local python
    python3.11 -c 'import ensurepip, venv' 2>/dev/null ||
        apt_install python3.11 python3.11-venv
    # The real path and not a version manager's shim, which depends on the working folder.
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
    # `sync` also removes packages that are not in the lock file.
    "$POETRY" sync
}

in_agent_runner() (
    cd agent-runner && "$POETRY" run "$@"
)

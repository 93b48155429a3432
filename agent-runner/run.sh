#!/bin/sh
# Runs the worker from a checkout, with Poetry if it is installed, else with a Python 3.11 that has
# the dependencies. The image runs `python main.py` directly.
set -eu
cd "$(dirname "$0")"

if command -v poetry >/dev/null 2>&1; then
    # This is fast if nothing is missing. Its output goes to standard error, as the log does.
    poetry install --quiet --only main >&2
    exec poetry run python main.py "$@"
fi
for python in .venv/bin/python python3.11 python3 python; do
    if command -v "$python" >/dev/null 2>&1 && "$python" -c 'import sys, temporalio, pydantic_settings
sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
        # With PYTHONPATH, the libraries in libs/ need not be installed.
        PYTHONPATH="libs/graphton:libs/stigmer-stubs${PYTHONPATH:+:$PYTHONPATH}" exec "$python" main.py "$@"
    fi
done
echo "run.sh: neither Poetry nor a Python 3.11 with the dependencies was found" >&2
echo "hint: install Poetry (https://python-poetry.org), then run this again" >&2
exit 127

#!/bin/sh
# Runs the worker from a checkout: with Poetry if it is there, else with a Python 3.11 that has
# the dependencies. In the image, `python main.py` is run directly.
set -eu
cd "$(dirname "$0")"

if command -v poetry >/dev/null 2>&1; then
    # Installs nothing when nothing is missing; the output is for people, not for the log's reader.
    poetry install --quiet --only main >&2
    exec poetry run python main.py "$@"
fi
for python in .venv/bin/python python3.11 python3 python; do
    if command -v "$python" >/dev/null 2>&1 && "$python" -c 'import sys, temporalio, pydantic_settings
sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
        # The path dependencies need not be installed to be importable.
        PYTHONPATH="libs/graphton:libs/stigmer-stubs${PYTHONPATH:+:$PYTHONPATH}" exec "$python" main.py "$@"
    fi
done
echo "run.sh: neither Poetry nor a Python 3.11 with the dependencies was found" >&2
echo "hint: install Poetry (https://python-poetry.org), then run this again" >&2
exit 127

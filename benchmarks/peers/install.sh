#!/bin/sh
# Makes one virtual environment for each peer library, .venv-peers/NAME, from benchmarks/peers/NAME.txt.
# They are apart because their requirements exclude each other's (rejax needs gymnax<1) and, some day, ours.
# Plain venv and pip, so that pip's own settings decide where packages come from.
# Usage: benchmarks/peers/install.sh [NAME ...]        PYTHON=python3.12 chooses the interpreter.
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
[ $# -gt 0 ] || set -- sb3 sbx rejax
for peer in "$@"; do
    requirements=benchmarks/peers/$peer.txt
    environment=.venv-peers/$peer
    [ -f "$requirements" ] || { echo "$requirements does not exist" >&2; exit 2; }
    # The copy of the requirements is written last: it says that the environment is complete, and from what.
    if cmp -s "$requirements" "$environment/requirements.txt"; then
        echo "$environment is up to date"
        continue
    fi
    echo "making $environment"
    "$python" -m venv --clear "$environment"
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
    cp "$requirements" "$environment/requirements.txt"
done

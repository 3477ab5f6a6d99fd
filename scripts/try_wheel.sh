#!/usr/bin/env bash
# Install the wheel in dist/ into a bare environment, without napari's Qt and without the
# checkout, and run the demo there.
set -euo pipefail
cd "$(dirname "$0")/.."

wheel=$(ls "$PWD"/dist/*.whl)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${VENV:-.venv}/bin/python" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet -c constraints.txt "$wheel[offline]"
cd "$folder"
venv/bin/napari-mcm --version
venv/bin/napari-mcm demo --fast --out demo
test -s demo/report.html
echo "The wheel works in a bare environment."

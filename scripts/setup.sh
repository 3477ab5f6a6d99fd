#!/usr/bin/env bash
# Set up .venv: `setup.sh run` with what the demo needs, `setup.sh dev` with the tools of
# the tests, the linters and the docs as well. An environment that is there is added to.
# $PYTHON, $QT (pyqt6 or pyside6) and $VENV name others than the usual.
set -euo pipefail
cd "$(dirname "$0")/.."

kind=${1:-dev}
venv=${VENV:-.venv}
began=$SECONDS

find_python() {
    local name
    # One that is named is the one that is meant.
    for name in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "${PYTHON:-python3} is no Python 3.11 or newer; name one: make PYTHON=/path/to/python3" >&2
    return 1
}

make_venv() {
    local python
    python=$(find_python)
    if ! "$python" -m venv "$venv"; then
        rm -rf "$venv"
        echo "$python cannot make environments; on Debian and Ubuntu install python3-venv." >&2
        return 1
    fi
}

# uv does not read pip's configuration: hand over a mirror and a certificate set there.
adopt_pip_settings() {
    local settings index cert
    settings=$("$venv/bin/python" -m pip config list)
    index=$(sed -n "s/^[^=]*\.index-url='\(.*\)'$/\1/p" <<<"$settings" | tail -n 1)
    cert=$(sed -n "s/^[^=]*\.cert='\(.*\)'$/\1/p" <<<"$settings" | tail -n 1)
    if [ -n "$index" ]; then export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"; fi
    if [ -n "$cert" ]; then export SSL_CERT_FILE="${SSL_CERT_FILE:-$cert}"; fi
}

install_with_uv() {
    if [ ! -x "$venv/bin/uv" ]; then
        "$venv/bin/python" -m pip install --quiet -c constraints.txt uv || return
    fi
    (
        adopt_pip_settings
        "$venv/bin/uv" pip install --python "$venv/bin/python" "$@"
    )
}

install_with_pip() {
    # Dependency groups need pip 25.1.
    "$venv/bin/python" -m pip install --quiet --upgrade "pip>=25.1"
    "$venv/bin/python" -m pip install "$@"
}

case ${QT:-pyqt6} in
    pyqt6) binding=all ;;
    pyside6) binding=pyside6 ;;
    *) echo "QT=$QT: choose pyqt6 or pyside6" >&2; exit 1 ;;
esac
wanted=(-c constraints.txt -e ".[$binding,offline]")
if [ "$kind" = dev ]; then wanted+=(--group dev); fi

if [ ! -x "$venv/bin/python" ]; then make_venv; fi
if ! install_with_uv "${wanted[@]}"; then
    echo "uv could not install everything (above); trying again with pip." >&2
    install_with_pip "${wanted[@]}"
fi

# The Makefile's stamps; an environment with the tools serves the demo too.
touch "$venv/.ready-run"
if [ "$kind" = dev ]; then touch "$venv/.ready-dev"; fi
echo "Set up in $((SECONDS - began)) s: $venv ($kind)"

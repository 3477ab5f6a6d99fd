#!/usr/bin/env bash
# Run a command with an X server of its own. napari draws with OpenGL, which Qt's
# "offscreen" platform lacks, so its tests need a real server; Xvfb is one.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
    xvfb xauth libxcb-icccm4 libxcb-keysyms1
    libegl1 libgl1 libgl1-mesa-dri libglib2.0-0 libfontconfig1 libdbus-1-3
    libxkbcommon-x11-0 libxcb-cursor0 libxcb-image0 libxcb-randr0
    libxcb-render-util0 libxcb-shape0
)

# Asks for what is used, not for package names: those differ between releases.
lacking() {
    local plugin libraries
    command -v xvfb-run >/dev/null || echo xvfb-run
    command -v xauth >/dev/null || echo xauth
    libraries=$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p)
    grep -q 'libGL\.so\.1 ' <<<"$libraries" || echo libGL.so.1
    local site=${VENV:-.venv}/lib/python3*/site-packages
    for plugin in $site/PyQt6/Qt6/plugins/platforms/libqxcb.so \
        $site/PySide6/Qt/plugins/platforms/libqxcb.so; do
        ldd "$plugin" 2>/dev/null | awk '/not found/ {print $1}' || true
    done
}

install_packages() {
    local root=()
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || return 1
        root=(sudo -n)
    fi
    command -v apt-get >/dev/null || return 1
    export DEBIAN_FRONTEND=noninteractive
    echo "Installing what an X server and Qt need: ${packages[*]}"
    "${root[@]}" apt-get -qq update || true
    "${root[@]}" apt-get -qq install -y --no-install-recommends "${packages[@]}" >/dev/null
}

if [ "$(uname)" != Linux ]; then exec "$@"; fi

missing=$(lacking | sort -u | tr '\n' ' ')
if [ -n "$missing" ] && ! { install_packages && missing=$(lacking) && [ -z "$missing" ]; }; then
    cat >&2 <<END
Tests of the viewer need an X server, and this machine lacks: $missing
They could not be installed from here (that takes root or password-less sudo, apt-get
and a network). As root:
    apt-get install ${packages[*]}
The engine and the command line are tested without them:
    ${VENV:-.venv}/bin/python -m pytest tests/core tests/cli tests/test_project.py
END
    exit 1
fi

# Else Qt would find the desktop's Wayland server and open its windows there.
export QT_QPA_PLATFORM=xcb
exec xvfb-run -a -s "-screen 0 1920x1080x24" "$@"

#!/usr/bin/env bash
# Make .venv with everything that the demo and the tests need, system libraries included.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${PYTHON:-}" ]; then
    echo "Python 3.11 or newer is needed and none was found; install it, or name one: make PYTHON=/path/to/python" >&2
    exit 1
fi

# What the viewer loads (Qt's X libraries, OpenGL) and draws on without a display (Xvfb, Mesa).
system_packages=(
    xvfb xauth libgl1 libgl1-mesa-dri libegl1 libglx-mesa0 libopengl0 libdbus-1-3 libfontconfig1
    libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0
    libxcb-render-util0 libxcb-shape0 libxcb-xinerama0 libxcb-xkb1
)

install_system() {
    local missing=()
    if ! command -v dpkg-query >/dev/null; then
        if ! command -v Xvfb >/dev/null && [ -z "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
            echo "Xvfb was not found and there is no display. Install Xvfb, Mesa's OpenGL and Qt's xcb libraries with your package manager." >&2
            exit 1
        fi
        return
    fi
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    local sudo=()
    if [ "$(id -u)" -ne 0 ]; then
        if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
            sudo=(sudo)
        else
            echo "These system packages are missing: ${missing[*]}" >&2
            echo "Install them, then run make again:" >&2
            echo "    sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
            [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] || exit 1
            echo "There is a display, so this goes on without them; make test needs them." >&2
            return
        fi
    fi
    echo "Installing ${#missing[@]} system packages: ${missing[*]}"
    "${sudo[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || system_packages+=(python3-venv)
install_system "${system_packages[@]}"

[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
.venv/bin/python -m pip install -q --upgrade 'pip>=25.1'

# torch first and by its exact version: a plain requirement may pull a build of several gigabytes.
if .venv/bin/python -c 'import torch' 2>/dev/null; then
    echo "Keeping torch $(.venv/bin/python -c 'import torch; print(torch.__version__)' 2>/dev/null), already in .venv."
else
    torch="$(grep '^torch==' constraints.txt)"
    index=()
    [ -n "${TORCH_INDEX:-}" ] && index=(--index-url "$TORCH_INDEX")
    .venv/bin/python scripts/download_size.py "${index[@]}" "$torch" || true
    .venv/bin/python -m pip install -q "${index[@]}" "$torch"
fi

limits="$(mktemp)"
trap 'rm -f "$limits"' EXIT
grep -v '^torch==' constraints.txt > "$limits"
.venv/bin/python -c 'import torch; print("torch==" + torch.__version__.split("+")[0])' 2>/dev/null >> "$limits"
needed=(-c "$limits" -e '.[viewer]' 'napari[pyqt6]' --group test)
.venv/bin/python scripts/download_size.py "${needed[@]}" || true
.venv/bin/python -m pip install -q "${needed[@]}"
echo "The environment is ready in .venv."

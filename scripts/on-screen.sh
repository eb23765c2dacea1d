#!/usr/bin/env bash
# Run a command on the display there is, or on a virtual one (always, with ON_SCREEN=virtual).
set -euo pipefail
if [ "${ON_SCREEN:-}" != virtual ] && [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
    exec "$@"
fi
if ! command -v xvfb-run >/dev/null; then
    echo "There is no display and xvfb-run was not found: install xvfb, then run this again." >&2
    exit 1
fi
unset WAYLAND_DISPLAY
export QT_QPA_PLATFORM=xcb LIBGL_ALWAYS_SOFTWARE=1 NAPARI_DMRI_HEADLESS=1
exec xvfb-run -a -s '-screen 0 1600x1000x24 -nolisten tcp' "$@"

"""What the user set on the plugin's Preferences page."""

from __future__ import annotations

from pathlib import Path

__all__ = ["convention", "device", "preference", "reports_folder"]

PLUGIN = "napari-dmri"
DEFAULTS = {"device": "auto", "convention": "radiological", "reports_folder": ""}


def preference(name: str) -> str:
    """Return a setting of the General page, or its default where napari has not read ours."""
    try:
        from napari.settings import get_plugin_settings

        return str(getattr(get_plugin_settings(PLUGIN).general, name))
    except (ImportError, KeyError, AttributeError):
        return DEFAULTS[name]


def device() -> str:
    """Return where jobs compute: auto, cpu, cuda or mps."""
    return preference("device")


def convention() -> str:
    """Return which side of the body is shown on the left: radiological or neurological."""
    return preference("convention")


def reports_folder(beside: Path | None = None) -> Path:
    """Return where records and reports go: the folder set, else beside a file, else here."""
    chosen = preference("reports_folder").strip()
    if chosen:
        return Path(chosen).expanduser()
    return beside.parent if beside is not None else Path.cwd()

"""The house keeps its rules: imports run downstairs, the core has no Qt, docks load no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "napari_dmri"

FLOORS = {
    **dict.fromkeys(["errors", "lazy", "progress", "provenance", "scan", "sphere", "device"], 1),
    "images": 2,
    **dict.fromkeys(["io", "signal", "training"], 3),
    **dict.fromkeys(["phantom", "compare", "deconvolve", "harmonize"], 4),
    **dict.fromkeys(["viewer", "cohort"], 5),
    **dict.fromkeys(["cli", "commands"], 6),
}
WINDOW = {"napari", "qtpy", "magicgui", "superqt", "vispy", "PyQt6", "PySide6", "npe2"}
MODULES = sorted(SOURCE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def runtime_imports(path: Path) -> list[str]:
    """List the modules a file imports, except for type checkers only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skipped.update(ast.walk(node))
    names: list[str] = []
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_run_downstairs(path: Path) -> None:
    if room(path) == "__init__":
        return
    here = FLOORS[room(path)]
    for name in runtime_imports(path):
        parts = name.split(".")
        if parts[0] != "napari_dmri" or len(parts) < 2 or parts[1] not in FLOORS:
            continue
        assert FLOORS[parts[1]] <= here, f"{path.name} on floor {here} imports {name} from above"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_only_the_viewer_imports_a_window_system(path: Path) -> None:
    if room(path) == "viewer":
        return
    assert not WINDOW & {name.split(".")[0] for name in runtime_imports(path)}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_modules_stay_readable(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_private_names_of_napari_stay_in_one_module() -> None:
    for path in MODULES:
        if path.name == "_napari_compat.py":
            continue
        for name in runtime_imports(path):
            parts = name.split(".")
            private = parts[0] == "napari" and any(p.startswith("_") for p in parts[1:])
            assert not private, f"{path} imports {name}"


def test_importing_the_package_loads_neither_torch_nor_qt() -> None:
    code = (
        "import sys, napari_dmri; "
        "print([m for m in ('torch', 'qtpy', 'napari', 'dipy', 'matplotlib') if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "package", ["", ".deconvolve", ".harmonize", ".io", ".phantom", ".training"]
)
def test_packages_offer_what_they_say(package: str) -> None:
    import importlib

    module = importlib.import_module(f"napari_dmri{package}")
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing

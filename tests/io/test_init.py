from __future__ import annotations

import subprocess
import sys

import pytest

import napari_dmri.io


def test_every_exported_name_is_there():
    for name in napari_dmri.io.__all__:
        assert callable(getattr(napari_dmri.io, name))
    assert set(napari_dmri.io.__all__) <= set(dir(napari_dmri.io))
    with pytest.raises(AttributeError, match="no attribute 'read_magic'"):
        napari_dmri.io.read_magic  # noqa: B018


def test_reading_loads_neither_torch_nor_dipy():
    code = (
        "import sys, napari_dmri.io as io; [getattr(io, n) for n in io.__all__];"
        "print([m for m in ('torch', 'dipy', 'matplotlib', 'napari') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""The wheel holds what the viewer needs and works where nothing else of the project is."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

OPEN_A_SAMPLE = """
import napari_dmri, npe2
assert "site-packages" in napari_dmri.__file__ and {fresh!r} in napari_dmri.__file__
manager = npe2.PluginManager.instance()
manager.discover()
manifest = manager.get_manifest("napari-dmri")
assert manifest.package_metadata.version == napari_dmri.__version__
layers = manifest.contributions.sample_data
sample = next(s for s in layers if s.key == "small_64d")
data, kwargs, kind = sample.open()[0]
print(kind, len(data.shape), kwargs["metadata"]["napari_dmri"]["object"].gradients.summary())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(folder)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_manifest_and_the_samples(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "napari_dmri/napari.yaml" in names
    assert "napari_dmri/py.typed" in names
    assert any(name.startswith("napari_dmri/sample_data/") for name in names)
    assert "napari_dmri/harmonize/models/demo-shresnet.safetensors" in names
    assert not [name for name in names if name.startswith("tests")]


def test_a_sample_opens_from_the_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    # A fresh environment that borrows only the third-party packages already here.
    fresh = tmp_path / "fresh"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(fresh)], check=True)
    python = fresh / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "-q"]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    Path(site, "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    answer = subprocess.run(
        [python, "-c", OPEN_A_SAMPLE.format(fresh=str(fresh))],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("image 4 ")


def test_no_extra_names_a_qt_binding() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = text.split("[project.optional-dependencies]")[1].split("[")[0]
    assert "napari[" not in text.split("[dependency-groups]")[0]
    assert not {"pyqt", "pyside"} & set(extras.lower().split())


def test_the_top_level_links_lead_into_the_package() -> None:
    package = ROOT / "src" / "napari_dmri"
    assert (ROOT / "napari.yaml").resolve() == (package / "napari.yaml").resolve()
    assert (ROOT / "sample_data").resolve() == (package / "sample_data").resolve()


def test_the_repository_stays_small() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False
    ).stdout.split(b"\0")
    for name in filter(None, listed):
        path = ROOT / name.decode()
        if path.is_file():
            assert path.stat().st_size <= 5_000_000, path

"""Time SH glyphs in a napari window of 1000 x 1000 pixels, order 8: redraw, slices, first picture.

    python benchmarks/glyphs.py            each count in a process of its own, in a napari window
    python benchmarks/glyphs.py --egl      the visual alone, without a window (a headless GPU)

A redraw is one whole frame after the camera moved, with the picture read back. The peers' figures
were measured on two cores with Mesa's llvmpipe, at the same window and order: mrview 3.0.3, FURY
2.0.0 (WebGPU) and FURY 0.12 (VTK). mrview is run again where it is installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

COUNTS = (1_000, 10_000, 40_000)
SIZE = 1000
TARGETS = {  # redraw s, slice s, first s, MB
    1_000: (1 / 30, 0.060, 0.3, None),
    10_000: (1 / 9, 0.250, 0.8, 150),
    40_000: (1 / 3, 0.900, 2.0, 300),
}
PEERS = {  # seconds a redraw; 1,024 glyphs stand for 1,000
    "mrview 3.0.3, 1280 triangles": {1_000: 0.126, 10_000: 0.95, 40_000: 3.6},
    "FURY 2.0.0, 720 triangles": {1_000: 0.292, 10_000: 1.30},
    "FURY 0.12 (VTK), 720 triangles": {1_000: 0.067, 10_000: 0.39, 40_000: 1.54},
}
FAILS = {("FURY 2.0.0, 720 triangles", 40_000): "fails"}
BUILDS = {  # seconds from data to first picture
    "FURY 2.0.0": {1_000: 1.65, 10_000: 3.6},
    "FURY 0.12 (VTK)": {1_000: 0.5, 10_000: 5.5, 40_000: 32.0},
}


def crossings(count: int, order: int = 8, seed: int = 0) -> np.ndarray:
    """Return fODFs of one to three fibres (N, C)."""
    from napari_dmri.sphere.harmonics import degrees, design_matrix

    rng = np.random.default_rng(seed)
    el = degrees(order)
    sharp = np.exp(-el * (el + 1) * 0.02)
    total = np.zeros((count, len(el)), np.float32)
    for fibre in range(3):
        u = rng.normal(size=(count, 3))
        u /= np.linalg.norm(u, axis=1, keepdims=True)
        share = rng.uniform(0.3, 1, count) * (rng.random(count) < (1, 0.6, 0.2)[fibre])
        total += (design_matrix(u, order) * sharp * share[:, None]).astype(np.float32)
    return total


def memory() -> float:
    """Return the process's resident memory in MB."""
    import psutil

    return psutil.Process().memory_info().rss / 1e6


def in_napari(count: int) -> dict[str, float | str]:
    """Measure one count in a napari window."""
    import napari
    from qtpy.QtWidgets import QApplication
    from vispy.gloo import gl

    from napari_dmri.images import ShImage
    from napari_dmri.viewer.glyphs.show import glyph_layer
    from napari_dmri.viewer.orientation import CONVENTIONS

    side, slices = round(np.sqrt(count)), 9
    flat = crossings(side * side)
    volume = np.empty((side, side, slices, 45), np.float32)
    for z in range(slices):
        volume[:, :, z] = np.roll(flat, 17 * z, axis=0).reshape(side, side, 45)
    viewer = napari.Viewer(show=True)
    canvas = viewer.window._qt_viewer.canvas._scene_canvas
    window = viewer.window._qt_window
    viewer.scene.camera.orientation = CONVENTIONS["radiological"]

    def picture() -> np.ndarray:
        return canvas.render(alpha=False)

    def settle() -> None:
        for _ in range(5):
            QApplication.processEvents()
            time.sleep(0.01)

    warm = viewer.add_layer(glyph_layer(ShImage(volume[:3, :3], np.eye(4))))
    for _ in range(4):
        settle()
        height, width = (int(n) for n in canvas.size[::-1])
        window.resize(window.width() + SIZE - width, window.height() + SIZE - height)
    picture()
    viewer.layers.remove(warm)
    settle()
    image = ShImage(volume, np.eye(4), name="fod")

    before = memory()
    begin = time.perf_counter()
    layer = viewer.add_layer(glyph_layer(image))
    viewer.reset_view()
    picture()
    first = time.perf_counter() - begin
    added = memory() - before
    settle()
    viewer.reset_view()

    def redraws(move: object, repeats: int) -> float:
        times = []
        for k in range(repeats):
            move(k)
            begin = time.perf_counter()
            picture()
            times.append(time.perf_counter() - begin)
        return float(np.median(times))

    node = viewer.window._qt_viewer.canvas.layer_to_visual[layer].node
    picture()
    centre = np.array(viewer.scene.camera.center)

    def pan(k: int) -> None:
        viewer.scene.camera.center = tuple(centre + 0.002 * side * np.array([0, k % 3, k % 2]))

    rest = node.frequency
    node.moving = lambda: True  # as while a mouse button is down
    pan(0)
    picture()
    redraw = redraws(pan, 12)
    frequency, drawn = node.frequency, node.drawn
    node.moving = lambda: False
    resting = redraws(pan, 4)
    same = float("nan")
    if count <= 10_000:
        layer.restyle(detail=8)
        picture()
        same = redraws(pan, 3)
        layer.restyle(detail=None)
        picture()
    viewer.scene.camera.center = tuple(centre)
    times = []
    for z in (0, 1, 2, 3, 5, 6):
        begin = time.perf_counter()
        viewer.dims.set_current_step(0, z)
        picture()
        times.append(time.perf_counter() - begin)
    added = max(added, memory() - before)
    viewer.dims.ndisplay = 3
    layer.restyle(extent="slab")
    settle()
    viewer.reset_view()
    picture()
    node.moving = lambda: True

    def turn(k: int) -> None:
        viewer.scene.camera.angles = (2.0 * k, 10, 80)

    turn(-1)
    picture()
    rotate = redraws(turn, 8)
    result = {
        "renderer": str(gl.glGetParameter(gl.GL_RENDERER)),
        "size": list(canvas.size),
        "redraw": redraw,
        "rotate": rotate,
        "slice": float(np.median(times)),
        "first": first,
        "added": added,
        "vertices": 10 * frequency**2 + 2,
        "rest": 10 * rest**2 + 2,
        "resting": resting,
        "same": same,
        "drawn": drawn,
    }
    viewer.close()
    return result


def without_window(count: int) -> dict[str, float | str]:
    """Measure the visual alone through vispy's EGL backend."""
    os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
    import vispy

    vispy.use("egl", gl="gl+")
    from vispy import scene
    from vispy.gloo import gl
    from vispy.scene.visuals import create_visual_node

    from napari_dmri.viewer.glyphs.basis import ShSpace
    from napari_dmri.viewer.glyphs.field import largest_amplitudes
    from napari_dmri.viewer.glyphs.visual import SHGlyphVisual

    side = round(np.sqrt(count))
    flat, space = crossings(side * side), ShSpace(8)
    canvas = scene.SceneCanvas(size=(SIZE, SIZE), show=True, bgcolor="black")
    view = canvas.central_widget.add_view()
    view.camera = scene.PanZoomCamera(aspect=1)
    view.camera.set_range((-0.5, side - 0.5), (-0.5, side - 0.5), margin=0)
    canvas.render()
    before, begin = memory(), time.perf_counter()
    node = create_visual_node(SHGlyphVisual)(parent=view.scene)
    y, x = np.divmod(np.arange(side * side), side)
    top = np.percentile(largest_amplitudes(flat, space), 95)
    centres = np.column_stack([x, y, 0 * x])
    gains = np.full(len(flat), 0.5 / top)
    node.set_glyphs(centres, flat, gains, space=space, radius=0.5, key=0)
    canvas.render()
    first, added = time.perf_counter() - begin, memory() - before
    hardware = "llvmpipe" not in str(gl.glGetParameter(gl.GL_RENDERER)).lower()
    if hardware:
        node.set_detail(8)

    def frames(repeats: int, change: object) -> float:
        times = []
        for k in range(repeats):
            change(k)
            begin = time.perf_counter()
            canvas.set_current()
            canvas._draw_scene()
            gl.glFinish()
            times.append(time.perf_counter() - begin)
        return float(np.median(times))

    redraw = frames(12, lambda k: view.camera.pan((0.002 * side * (-1) ** k, 0)))

    def turn_over(k: int) -> None:
        flat_k = np.roll(flat, 17 * k, axis=0)
        node.set_glyphs(centres, flat_k, gains, space=space, radius=0.5, key=k + 1)

    return {
        "renderer": str(gl.glGetParameter(gl.GL_RENDERER)), "size": [SIZE, SIZE],
        "redraw": redraw, "rotate": float("nan"), "slice": frames(5, turn_over), "first": first,
        "added": added, "vertices": 10 * node.frequency**2 + 2, "drawn": node.drawn,
        "rest": 10 * node.frequency**2 + 2, "resting": redraw, "same": float("nan"),
    }  # fmt: skip


def mrview_redraw(count: int) -> float | None:
    """Time a redraw of mrview, where it is installed: four are behind every grabbed picture."""
    if shutil.which("mrview") is None:
        return None
    from napari_dmri.images import ShImage
    from napari_dmri.io import write_sh

    side = round(np.sqrt(count))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "fod.nii.gz")
        volume = crossings(side * side).reshape(side, side, 1, 45)
        write_sh(ShImage(volume, np.eye(4)), path)
        line = ["mrview", str(path), "-odf.load_sh", str(path), "-mode", "1", "-plane", "2",
                "-size", f"{SIZE},{SIZE}", "-noannotations", "-capture.folder", folder]  # fmt: skip
        times = []
        for grabs in (1, 4):
            begin = time.perf_counter()
            subprocess.run([*line, *["-capture.grab"] * grabs, "-exit"], check=True, timeout=300)
            times.append(time.perf_counter() - begin)
        return (times[1] - times[0]) / 3 / 4


def judge(value: float, target: float | None) -> str:
    """Say whether a target is met."""
    return "" if target is None else " met" if value <= target else " MISSED"


def main() -> None:
    """Measure every count in its own process, and print the table."""
    egl = "--egl" in sys.argv
    where = "the visual alone, offscreen" if egl else "a napari window"
    print(f"SH glyphs, order 8, {SIZE} x {SIZE} pixels, {where}; medians of one run each")
    print(f"{os.cpu_count()} cores, load average at start {os.getloadavg()[0]:.2f}")
    for count in COUNTS:
        mode = "--egl-one" if egl else "--one"
        done = subprocess.run(
            [sys.executable, __file__, mode, str(count)],
            capture_output=True,
            text=True,
            timeout=600,
        )
        if done.returncode:
            print(f"{count}: failed\n{done.stderr[-1500:]}")
            continue
        found = json.loads(done.stdout.strip().splitlines()[-1])
        if "problem" in found:
            print(found["problem"])
            return
        if egl and any(word in found["renderer"].lower() for word in ("llvmpipe", "softpipe")):
            print(f"EGL offers no hardware renderer here, but {found['renderer']}.")
        redraw, change, first, added = TARGETS[count]
        size = "x".join(str(int(n)) for n in found["size"])
        print(f"\n{count:,} glyphs: {found['drawn']} drawn at {found['vertices']} vertices while "
              f"moving, {found['rest']} at rest; canvas {size}, {found['renderer']}")  # fmt: skip
        moved = max(found["redraw"], found["rotate"] if found["rotate"] == found["rotate"] else 0)
        print(f"  redraw       pan {found['redraw'] * 1e3:7.1f} ms "
              f"({1 / found['redraw']:.1f} fps), rotate {found['rotate'] * 1e3:.1f} ms, at rest "
              f"{found['resting'] * 1e3:.1f} ms; target {redraw * 1e3:.0f} ms"
              f"{judge(moved, redraw)}")  # fmt: skip
        if found["same"] == found["same"]:
            print(f"  at 642 vertices  {found['same'] * 1e3:7.1f} ms a redraw, as fine as mrview")
        print(f"  slice change     {found['slice'] * 1e3:7.1f} ms; target {change * 1e3:.0f} ms"
              f"{judge(found['slice'], change)}")  # fmt: skip
        print(f"  first picture    {found['first'] * 1e3:7.1f} ms; target {first * 1e3:.0f} ms"
              f"{judge(found['first'], first)}")  # fmt: skip
        limit = "" if added is None else f"; target {added} MB"
        print(f"  added memory     {found['added']:7.1f} MB{limit}{judge(found['added'], added)}")
        peers = {name: times.get(count) for name, times in PEERS.items()}
        measured = None if egl else mrview_redraw(count)
        if measured is not None:
            peers["mrview here"] = measured
        for name, seconds in peers.items():
            if seconds is None:
                print(f"  {name:31} {FAILS.get((name, count), 'not measured')}")
                continue
            build = BUILDS.get(name.split(",")[0], {}).get(count)
            also = (
                f"; first picture {build:.1f} s, {build / found['first']:.0f} x ours"
                if build
                else ""
            )
            print(f"  {name:31} redraw {seconds * 1e3:.0f} ms, "
                  f"{seconds / found['redraw']:.1f} x ours{also}")  # fmt: skip


if __name__ == "__main__":
    if "--one" in sys.argv:
        print(json.dumps(in_napari(int(sys.argv[-1]))))
    elif "--egl-one" in sys.argv:
        try:
            print(json.dumps(without_window(int(sys.argv[-1]))))
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
            print(json.dumps({"problem": f"EGL gives no context here ({reason}), so the visual was "
                              "not measured without a window; leave --egl out."}))  # fmt: skip
    else:
        main()

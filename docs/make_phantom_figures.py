"""Measure the gap between simulated sites, draw the phantom's figures, and fill docs/phantom.md.

Run from the repository root: ``python docs/make_phantom_figures.py``. The realism figure needs the
real scans (environment variable ``NAPARI_DMRI_DATA``, else ``../shared/data``).
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from napari_dmri import Scan, brain_mask, fit_sh, fit_tensor, read_scan, rish
from napari_dmri.phantom.anatomy import Subject, make_subject
from napari_dmri.phantom.composition import Composition, sample
from napari_dmri.phantom.presets import GAPS, get_scanner
from napari_dmri.phantom.scanner import EFFECTS, Scanner
from napari_dmri.phantom.travelling import field_of_view
from napari_dmri.phantom.truth import Truth

DOCS = Path(__file__).resolve().parent
DATA = Path(os.environ.get("NAPARI_DMRI_DATA", DOCS.parent.parent / "shared" / "data"))
SUBJECTS = 3


def measures(machine: Scanner, subject: Subject, held: Composition) -> np.ndarray:
    """Return mean FA and MD in white, then in grey matter (voxels at least 70 % of one tissue)."""
    tensor = fit_tensor(machine.scan(subject, held, seed=3), mask=held.mask)
    tissue = held.image("tissue")
    white, grey = tissue[..., 0] > 0.7, tissue[..., 1] > 0.7
    return np.array([m[t].mean() for t in (white, grey) for m in (tensor.fa, tensor.md)])


def gap_table() -> str:
    """Return the gap by cause and by preset as a Markdown table."""
    target, source = get_scanner("prisma_st"), get_scanner("ge_st")
    machines = {f"{e} alone": target.with_effects_of(source, e) for e in EFFECTS}
    machines["**all: `ge_st`**"] = source
    machines |= {f"`{name}` ({', '.join(e)})": get_scanner(name) for name, e in GAPS.items()}
    machines["`connectom_st`"] = get_scanner("connectom_st")
    total = dict.fromkeys(machines, 0.0)
    for index in range(SUBJECTS):
        subject = make_subject(index)
        held = sample(subject, field_of_view("small").grid(2.4))
        base = measures(target, subject, held)
        for name, machine in machines.items():
            total[name] = total[name] + 100 * (measures(machine, subject, held) / base - 1)
    lines = [
        "| against `prisma_st` | FA, WM | MD, WM | FA, GM | MD, GM |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, sums in total.items():
        cells = " | ".join(f"{v / SUBJECTS:+.1f} %" for v in np.asarray(sums))
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


def figure_subject() -> None:
    """Draw tissue, b0, MD and colour FA of one subject, and its number of populations."""
    subject, machine = make_subject(0), get_scanner("prisma_st")
    held = sample(subject, field_of_view("medium").grid(2.4))
    scan = machine.scan(subject, held, seed=1)
    tensor = fit_tensor(scan, mask=held.mask)
    tissue = held.image("tissue")
    count = (held.image("fractions") > 0).sum(-1) * (tissue[..., 0] > 0.5)
    b0 = scan.mean_b0()
    height = [round((z - scan.affine[2, 3]) / 2.4) for z in (4, 14, 24, 34, 46)]
    rows: list[tuple[str, Any, dict[str, Any]]] = [
        ("tissue", tissue[..., [2, 1, 0]], {}),
        ("b0", b0, {"cmap": "gray", "vmax": np.quantile(b0[held.mask], 0.97)}),
        ("MD", tensor.md, {"cmap": "gray", "vmin": 0, "vmax": 2e-3}),
        ("colour FA", np.clip(1.4 * tensor.colour_fa, 0, 1), {}),
        ("fibre populations", count, {"cmap": "viridis", "vmax": 4, "interpolation": "nearest"}),
    ]
    figure, axes = plt.subplots(len(rows), 7, figsize=(12, 10.4), facecolor="black")
    middle = round(-scan.affine[0, 3] / 2.4)
    front = round((-18 - scan.affine[1, 3]) / 2.4)
    for ax_row, (name, image, style) in zip(axes, rows, strict=True):
        slices = [image[8:-8, 10:-10, z] for z in height]
        slices += [image[8:-8, front], image[middle, 10:-10]]
        for ax, plane in zip(ax_row, slices, strict=True):
            ax.imshow(np.swapaxes(plane, 0, 1), origin="lower", **style)
            ax.set_axis_off()
        ax_row[0].set_title(name, color="white", fontsize=9, loc="left")
    figure.subplots_adjust(0, 0, 1, 0.97, 0.02, 0.1)
    save(figure, "phantom_subject.png", dpi=75)


def features(scan: Scan, mask: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Return FA, MD, RISH and b0 SNR per tissue; tissues by the same rule for every scan."""
    tensor = fit_tensor(scan, mask=mask)
    energies = rish(fit_sh(scan, order=4, mask=mask))
    inside = mask & (tensor.md > 0.2e-3)
    tissues = {
        "white matter": inside & (tensor.fa > 0.3) & (tensor.md < 1.1e-3),
        "grey matter": inside & (tensor.fa < 0.2) & (tensor.md < 1.1e-3),
        "CSF": inside & (tensor.md > 2.0e-3),
    }
    b0 = np.flatnonzero(scan.gradients.b0_mask)
    sigma = noise_sd(scan.volumes(b0[:2])[tissues["white matter"]]) if len(b0) > 1 else None
    mean = scan.mean_b0()
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, where in tissues.items():
        found[name] = {
            "FA": tensor.fa[where],
            "MD (1e-3 mm²/s)": 1e3 * tensor.md[where],
            "RISH 0": energies[where][:, 0],
            "RISH 2": energies[where][:, 1],
        }
        if sigma:
            found[name]["b0 SNR"] = mean[where] / sigma
    return found


def noise_sd(pair: np.ndarray) -> float:
    """Return the noise SD from two b0 volumes (n, 2), robustly, whatever their scale."""
    change = pair[:, 1] * (pair[:, 0].mean() / pair[:, 1].mean()) - pair[:, 0]
    return float(1.4826 * np.median(np.abs(change - np.median(change))) / np.sqrt(2))


def figure_realism() -> None:
    """Draw histograms of `ge_st` at b = 1000 beside real scans."""
    subject = make_subject(0)
    machine = replace(get_scanner("ge_st"), shells=((1000.0, 30),))
    held = sample(subject, field_of_view("medium").grid(2.4))
    sets = {"simulated ge_st": features(machine.scan(subject, held, seed=1), held.mask)}
    for name in ("siemens_trio", "philips_achieva_crop"):
        scan = read_scan(DATA / name / "dwi.nii.gz")
        sets[f"real {name}"] = features(scan, brain_mask(scan))
    columns = ["FA", "MD (1e-3 mm²/s)", "b0 SNR", "RISH 0", "RISH 2"]
    tissues = list(sets["simulated ge_st"])
    figure, axes = plt.subplots(len(tissues), len(columns), figsize=(13, 6.6))
    for tissue, ax_row in zip(tissues, axes, strict=True):
        for column, ax in zip(columns, ax_row, strict=True):
            have = {k: v[tissue][column] for k, v in sets.items() if column in v[tissue]}
            low = min(np.quantile(v, 0.002) for v in have.values())
            high = max(np.quantile(v, 0.985) for v in have.values())
            for (name, values), colour in zip(have.items(), ("C3", "C0", "C7"), strict=False):
                filled = {"histtype": "step", "lw": 1.4} if "real" in name else {"alpha": 0.5}
                ax.hist(
                    values,
                    np.linspace(low, high, 50),
                    density=True,
                    color=colour,
                    label=name,
                    **filled,
                )
            ax.set_yticks([])
            ax.tick_params(labelsize=7)
            if tissue == tissues[-1]:
                ax.set_xlabel(column)
        ax_row[0].set_ylabel(tissue)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="upper center", ncol=3)
    figure.tight_layout(rect=(0, 0, 1, 0.95))
    save(figure, "phantom_realism.png", dpi=80)


def figure_fibres() -> None:
    """Draw true fODFs of the centrum semiovale as polar curves in a coronal plane."""
    subject = make_subject(0)
    held = sample(subject, field_of_view("medium").grid(2.4))
    truth = Truth(subject, held)
    fod = truth.fod(8).coefficients
    y = round((-14 - truth.affine[1, 3]) / 2.4)
    x0, z0 = (round((c - truth.affine[i, 3]) / 2.4) for i, c in ((0, 2), (2, 4)))
    angles = np.linspace(0, 2 * np.pi, 121)
    plane = np.stack([np.cos(angles), 0 * angles, np.sin(angles)], 1)
    from napari_dmri.sphere.harmonics import design_matrix

    basis = design_matrix(plane, 8)
    figure, ax = plt.subplots(figsize=(8, 8.2), facecolor="black")
    directions = truth.directions[..., 0, :]
    for i in range(20):
        for k in range(20):
            voxel = (x0 + i, y, z0 + k)
            if truth.tissue[voxel][0] < 0.3:
                continue
            radius = np.clip(basis @ fod[voxel], 0, None)
            radius *= 0.6
            colour = np.abs(directions[voxel]).clip(0, 1)
            ax.fill(i + radius * plane[:, 0], k + radius * plane[:, 2], color=colour, lw=0)
    ax.set_aspect("equal")
    ax.set_axis_off()
    figure.subplots_adjust(0, 0, 1, 1)
    save(figure, "phantom_fodf.png", dpi=75)


def save(figure: Any, name: str, dpi: int) -> None:
    """Write a figure with a small palette."""
    from io import BytesIO

    from PIL import Image

    (DOCS / "images").mkdir(exist_ok=True)
    stream = BytesIO()
    figure.savefig(stream, dpi=dpi, facecolor=figure.get_facecolor())
    plt.close(figure)
    stream.seek(0)
    image = Image.open(stream).convert("RGB").quantize(200, dither=Image.Dither.NONE)
    image.save(DOCS / "images" / name, optimize=True)


def main() -> None:
    """Make everything, or what is named: table, subject, realism, fibres."""
    wanted = set(sys.argv[1:]) or {"table", "subject", "realism", "fibres"}
    if "subject" in wanted:
        figure_subject()
    if "fibres" in wanted:
        figure_fibres()
    if "realism" in wanted:
        figure_realism()
    if "table" in wanted:
        page = DOCS / "phantom.md"
        begin, end = "<!-- gap table -->", "<!-- end of gap table -->"
        pattern = re.compile(f"{begin}.*{end}", re.DOTALL)
        table = gap_table()
        page.write_text(pattern.sub(f"{begin}\n{table}\n{end}", page.read_text()))
        print(table)


if __name__ == "__main__":
    main()

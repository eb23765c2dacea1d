"""Deconvolve a scan with a trained network of the SHD family."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.deconvolve.base import Deconvolution, ResponseSet
from napari_dmri.deconvolve.shd.card import model_label
from napari_dmri.deconvolve.shd.shipped import TOLERANCE, choose_shipped, find_model, shipped_models
from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.images import ScalarImage, ShImage
from napari_dmri.progress import Progress, part, silent
from napari_dmri.provenance import provenance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_dmri.deconvolve.shd.model import ShdModel
    from napari_dmri.deconvolve.shd.predict import Prediction
    from napari_dmri.deconvolve.shd.prepared import Prepared
    from napari_dmri.images import Response
    from napari_dmri.scan import GradientTable, Scan

__all__ = ["as_deconvolution", "no_model", "shd"]

LABELS = {"gm": "grey matter", "csf": "CSF"}

BLOCK = 20_000
"""Voxels whose signal is predicted at once."""

LEARNED = ("losses", "plan", "seed", "started_from")
"""What a card tells of how its network learned, and CAME_TO of what that came to."""

CAME_TO = ("best_epoch", "best_loss", "steps", "seconds", "device", "ended_by_hand")


def shd(
    scan: Scan,
    responses: ResponseSet | Response,
    *,
    method: str = "shd-s-tv",
    model: ShdModel | str | Path | None = None,
    mode: str | None = None,
    mask: NDArray[Any] | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Deconvolution:
    """Estimate fODFs with a trained network.

    Parameters
    ----------
    scan
        The scan, magnitudes as they are, with the shells of the model.
    responses
        Of this scan: white matter's and those of the model's other tissues. Only their b0 goes
        into fODFs; all of them into the residual.
    method
        A name of `presets.PRESETS`, for the shipped model; with ``model`` it must be its method.
    model
        A model, its file, or a shipped model's name; None takes the one that comes with the
        package and has the scan's shells.
    mode
        ``"paper"`` or ``"tiled"``; None takes the model's own.
    mask
        Voxels to deconvolve (X, Y, Z); None takes the scan's, else all with b0 > 0. Where the scan
        has a mask of its own, the network sees all that is in that one.
    device, progress
        Where it runs; who is told.

    Returns
    -------
    The fODF, and the maps ``"residual"`` and, where the model has them, ``"gm"`` and ``"csf"``.

    Raises
    ------
    InputError
        If no model fits, in words with the remedy; or the scan cannot be prepared for it.

    Warns
    -----
    DmriWarning
        For what the model's card says against this scan.
    """
    from napari_dmri.deconvolve.shd.inputs import prepare
    from napari_dmri.deconvolve.shd.model import ShdModel
    from napari_dmri.deconvolve.shd.predict import predict_network
    from napari_dmri.deconvolve.shd.samples import surround
    from napari_dmri.deconvolve.shd.tiles import reach
    from napari_dmri.device import choose_device

    report = progress or silent
    report(0.0, "reading the model")
    if not isinstance(responses, ResponseSet):
        responses = ResponseSet({responses.tissue: responses})
    if mask is not None and scan.mask is None:
        scan = scan.with_mask(mask)
    if model is None:
        found = choose_shipped(method, scan.gradients, tuple(responses))
        if found is None:
            raise InputError(no_model(method, scan.gradients, tuple(responses)))
        model = found.path
    if isinstance(model, str | Path):
        model = ShdModel.load(find_model(model))
    if model.card["method"] != method:
        raise InputError(
            f"The model is of {model.card['label']} ({model.card['method']}) and {method} is asked "
            f"for; choose {model.card['method']}, or another model."
        )
    checks = model.check(scan, responses)
    wrong = [c.sentence for c in checks if c.level == "error"]
    if wrong:
        raise InputError(" ".join(wrong))
    for check in checks:
        if check.level == "warning":
            warnings.warn(check.sentence, DmriWarning, stacklevel=2)
    prepared = prepare(
        scan,
        responses,
        others=model.others,
        bvalues=model.bvalues,
        input_order=model.architecture.input_order,
        degree=model.architecture.degree,
        rule=str(model.card["rule"]),
        tolerance=TOLERANCE,
        margin=reach(model.architecture),
        progress=part(progress, 0.0, 0.15),
    )
    prepared = surround(prepared)
    if mask is not None:
        wanted = prepared.mask & np.asarray(mask, bool)
        if not wanted.any():
            raise InputError(
                f"None of the {int(np.count_nonzero(mask))} voxels of the mask can be deconvolved: "
                "they have no signal, or are outside the scan's own mask; check that both belong "
                "together."
            )
        prepared = replace(prepared, mask=wanted)
    where = choose_device(device)
    prediction = predict_network(
        model.network,
        model.architecture,
        prepared,
        model.others,
        mode=mode or str(model.card["mode"]),
        device=where.name,
        progress=part(progress, 0.15, 0.95),
    )
    return as_deconvolution(
        scan, responses, model, prepared, prediction, where.name, part(progress, 0.95, 1.0), mode
    )


def no_model(method: str, gradients: GradientTable, tissues: tuple[str, ...] | None = None) -> str:
    """Say that no model of the package fits a scan, and what to do."""
    own = [m for m in shipped_models() if m.card["method"] == method]
    shells = ", ".join(f"{s.bvalue:g}" for s in gradients.shells)
    listed = "; ".join(
        f"{m.name}: b = {', '.join(f'{b:g}' for b in m.card['bvalues'])}, "
        f"{' + '.join(m.card['tissues'])}"
        for m in own or shipped_models()
    )
    instead = ""
    if not own:
        others = ", ".join(sorted({str(m.card["method"]) for m in shipped_models()}))
        there = f" (there are models of {others}: {listed})" if others else ""
        instead = f"choose {others}, " if others else ""
        said = f"No trained model of {method} comes with this program{there}"
    else:
        have = f" and responses of {', '.join(tissues)}" if tissues else ""
        said = f"No model that comes with this program has the scan's b = {shells}{have} ({listed})"
    return (
        f"{said}: {instead}fit one to this scan (Fit to this scan, or 'napari-dmri deconvolve fit "
        f"SCAN --method {method} -o FOLDER'), or choose a model's file (--model FILE)."
    )


def as_deconvolution(
    scan: Scan,
    responses: ResponseSet | Response,
    model: ShdModel,
    prepared: Prepared,
    prediction: Prediction,
    device: str,
    progress: Progress | None = None,
    mode: str | None = None,
) -> Deconvolution:
    """Put what a network says of a whole scan in images, with the residual, notes, provenance.

    Parameters
    ----------
    scan, responses, model
        What went in.
    prepared, prediction
        The scan as the network saw it, and what it says.
    device, progress, mode
        Where it ran; who is told; the mode, if not the model's own.
    """
    card, mask = model.card, prepared.mask
    mode = mode or str(card["mode"])
    given = dict(responses) if isinstance(responses, ResponseSet) else {"wm": responses}
    used = {t: given[t] for t in ("wm", *model.others)}
    residual = _residual(prepared, prediction, progress)
    voxels = int(mask.sum())
    made = provenance(
        card["method"],
        {
            "mode": mode,
            "size": card.get("size"),
            "trained_from": card.get("trained_from"),
            "tissues": list(card["tissues"]),
            "order": model.architecture.degree,
            "architecture": model.architecture.as_dict(),
            **{name: card[name] for name in LEARNED if card.get(name) not in (None, "")},
            **dict(prepared.parameters),
        },
        inputs={
            "scan": scan.name,
            "path": str(scan.path or ""),
            "model": {
                "sha256": model.sha256,
                "label": card["label"],
                "bvalues": list(model.bvalues),
                "subjects": list(card.get("subjects", [])),
                "simulated": bool(card.get("simulated")),
                "known_fods": bool(card.get("known_fods")),
                "outcome": {k: v for k, v in dict(card.get("outcome", {})).items() if k in CAME_TO},
            },
            "responses": {
                t: {"bvalues": list(r.bvalues or ()), "zonal": r.zonal.tolist()}
                for t, r in used.items()
            },
        },
        citations=tuple(card.get("citations", ())),
        simulated=scan.simulated,
        volumes=prepared.volumes.tolist(),
        seen=prepared.inputs.tolist(),
        voxels={"deconvolved": voxels},
        device=device,
    )
    fod = ShImage(
        prediction.coefficients,
        scan.affine,
        mask=mask,
        normalised=False,
        name=f"{scan.name} {model_label(card)}",
        provenance=made,
    )
    maps = {
        "residual": ScalarImage(
            residual, scan.affine, f"{scan.name} residual", "of b0", provenance=made
        )
    }
    for i, tissue in enumerate(model.others):
        maps[tissue] = ScalarImage(
            np.ascontiguousarray(prediction.others[..., i]),
            scan.affine,
            f"{scan.name} {LABELS[tissue]}",
            "of its response",
            provenance=made,
        )
    how = "this scan" if card.get("trained_from") == "scan" else _trained_on(card)
    words = (
        f"{card['label']} in {mode} mode, trained on {how}: "
        f"{', '.join(t.upper() for t in card['tissues'])}",
        f"{voxels} voxels deconvolved",
    )
    return Deconvolution(
        fod,
        maps,
        (*words, *prepared.notes, *prediction.notes),
        tuple(int(v) for v in prepared.inputs),
        voxels,
        voxels,
    )


def _trained_on(card: Any) -> str:
    count = len(card.get("subjects", ()))
    kind = "simulated subjects" if card.get("simulated") else "subjects"
    known = " with known fODFs" if card.get("known_fods") else ""
    return f"{count} {kind if count != 1 else kind.removesuffix('s')}{known}"


def _residual(
    prepared: Prepared, prediction: Prediction, progress: Progress | None
) -> NDArray[np.float32]:
    """Return the root mean square of measured minus predicted signal over b0 (X, Y, Z)."""
    report = progress or silent
    result = np.zeros(prepared.mask.shape, np.float32)
    rows = np.flatnonzero(prepared.mask)
    held = np.flatnonzero(prepared.mask[prepared.box])
    wm, others = prepared.forward["wm"], prepared.forward_others
    signal = prepared.signal.reshape(-1, prepared.signal.shape[-1])
    fod = prediction.coefficients.reshape(-1, prediction.coefficients.shape[-1])
    isotropic = prediction.others.reshape(len(fod), -1)
    b0 = np.asarray(prepared.b0).reshape(-1)
    for start in range(0, len(rows), BLOCK):
        report(start / len(rows), "residual")
        at = rows[start : start + BLOCK]
        error = fod[at, : wm.shape[1]] @ wm.T - signal[held[start : start + BLOCK]]
        if others.shape[1]:
            error += isotropic[at] @ others.T
        result.reshape(-1)[at] = np.sqrt(np.square(error).mean(1)) / np.maximum(b0[at], 1e-12)
    return result

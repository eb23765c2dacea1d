"""A methods paragraph in plain English from what results say about their own making."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["methods_text"]

_PACKAGES = {
    "napari-dmri": "napari-dmri",
    "python": "Python",
    "torch": "PyTorch",
    "numpy": "NumPy",
    "dipy": "DIPY",
    "nibabel": "NiBabel",
}


def methods_text(provenances: Iterable[Mapping[str, Any]]) -> str:
    """Say what was done, with which parameters, versions and citations.

    Parameters
    ----------
    provenances
        Provenance dicts of the results (see `napari_dmri.provenance.provenance`); steps that
        occur more than once, with the same parameters, are told once.

    Returns
    -------
    A paragraph, the versions, and a numbered list of references, as text.
    """
    records = [dict(record) for record in provenances if record]
    references: list[str] = []
    sentences: list[str] = []
    for record in records:
        marks = []
        for citation in record.get("citations", ()):
            if citation not in references:
                references.append(citation)
            marks.append(str(references.index(citation) + 1))
        sentence = _sentence(record)
        if marks:
            sentence = f"{sentence[:-1]} [{', '.join(marks)}]."
        if sentence not in sentences:
            sentences.append(sentence)
    if any(record.get("simulated") for record in records):
        sentences.append("The scans are simulated, or a model was trained on simulated scans.")
    if not sentences:
        sentences = ["No step was recorded."]
    versions: dict[str, str] = {}
    for record in records:
        versions.update(record.get("versions", {}))
    parts = [" ".join(sentences)]
    if versions:
        named = [f"{word} {versions[key]}" for key, word in _PACKAGES.items() if key in versions]
        parts.append(f"Software: {', '.join(named)}.")
    if references:
        listed = "\n".join(f"[{n}] {text}" for n, text in enumerate(references, 1))
        parts.append(f"References\n{listed}")
    return "\n\n".join(parts) + "\n"


def _sentence(record: Mapping[str, Any]) -> str:
    method = str(record.get("method", "an unnamed step"))
    parameters = dict(record.get("parameters", {}))
    teller = _TELLERS.get(method)
    if teller is not None:
        return teller(parameters, record)
    if "label" in _model_of(record):
        return _fod_network(parameters, record)
    listed = ", ".join(f"{name} = {_value(value)}" for name, value in parameters.items())
    return f"{method} was applied{f' ({listed})' if listed else ''}."


def _sh_fit(p: dict[str, Any], record: Mapping[str, Any]) -> str:
    what = "S/b0" if p.get("normalise", True) else "the signal"
    text = "Real, even spherical harmonics"
    if "order" in p:
        text += f" up to order {p['order']}"
    text += f" were fitted to {what}"
    if p.get("shell") is not None:
        text += f" of the shell at b = {_value(p['shell'])} s/mm²"
    if p.get("smooth") is not None:
        text += f" with Laplace-Beltrami regularisation, lambda = {_value(p['smooth'])}"
    if p.get("order_chosen_automatically"):
        text += ", the order being the largest that the directions support"
    return text + "."


def _tensor(p: dict[str, Any], record: Mapping[str, Any]) -> str:
    words = {"wls": "weighted", "ols": "ordinary"}
    kind = words.get(str(p.get("method", "")).lower(), str(p.get("method", "")))
    text = f"Diffusion tensors were fitted by {kind} linear least squares"
    if p.get("max_bvalue") is not None:
        text += f" to volumes with b up to {_value(p['max_bvalue'])} s/mm²"
    return text + "."


def _linear_rish(p: dict[str, Any], record: Mapping[str, Any]) -> str:
    text = "Scans were harmonized by LinearRISH"
    if record.get("source_site") and record.get("target_site"):
        text += f" from {record['source_site']} to {record['target_site']}"
    text += ", scaling the spherical harmonics of each order by the template-space ratio of "
    text += "rotation-invariant energies"
    if p.get("smooth") is not None:
        text += f" (lambda = {_value(p['smooth'])}"
        cap = p.get("cap")
        text += f", scales limited to {_value(cap[0])} to {_value(cap[1])})" if cap else ")"
    return text + "; b0 images were not changed."


def _network(p: dict[str, Any], record: Mapping[str, Any]) -> str:
    name = "SHResNet" if record["method"] == "shresnet" else "the voxel-wise network of Golkov"
    text = f"Scans were harmonized by {name}"
    if record.get("source_site") and record.get("target_site"):
        text += f" from {record['source_site']} to {record['target_site']}"
    if p.get("blocks") is not None:
        count = p["blocks"]
        text += f" with {count} residual block{'' if count == 1 else 's'} in {p.get('mode')} mode"
    text += ", which maps spherical harmonics of S/b0"
    if p.get("smooth") is not None:
        text += f" (lambda = {_value(p['smooth'])})"
    if p.get("energy"):
        text += "; it was trained on the squared error of the signal and, with weight "
        text += f"{_value(p['energy'])}, of the root of the energy of order 2"
    if p.get("projection"):
        text += "; of its output the energy of each order was used, the directions being the source"
        text += "'s own"
    return text + "; b0 images were not changed."


def _phantom(p: dict[str, Any], record: Mapping[str, Any]) -> str:
    listed = ", ".join(f"{name} {_value(p[name])}" for name in ("size", "seed") if name in p)
    return f"Travelling subjects were simulated{f' ({listed})' if listed else ''}."


def _difference(p: dict[str, Any], record: Mapping[str, Any]) -> str:
    how = {"difference": "difference", "percent": "percent difference", "ratio": "ratio"}
    inputs = record.get("inputs", {})
    text = f"The {how.get(str(p.get('mode')), str(p.get('mode')))} of "
    text += f"{inputs.get('a', 'A')} and {inputs.get('b', 'B')} was taken"
    if record.get("undefined"):
        text += f"; {record['undefined']} voxels with a baseline near zero were left out"
    return text + "."


def _map(p: dict[str, Any], record: Mapping[str, Any]) -> str:
    if p.get("map") == "b0":
        return "The mean b0 is the mean of the volumes with b up to 50 s/mm²."
    return f"Volume {p.get('volume')} was taken as measured."


def _tissue(p: dict[str, Any], record: Mapping[str, Any]) -> str:
    return (
        "White matter, grey matter and CSF were told apart by FA (Otsu's threshold within "
        f"{_value(p.get('fa_limits'))}) and MD (CSF above {_value(p.get('csf_md'))} mm²/s)."
    )


def _response(p: dict[str, Any], record: Mapping[str, Any]) -> str:
    how = {
        "auto": "unsupervised from the scan",
        "dhollander": "unsupervised from the scan by signal decay and anisotropy",
        "tournier": "in white matter where deconvolution finds a single fibre",
        "fa": "in white matter where fractional anisotropy is highest",
    }
    name = str(p.get("algorithm"))
    text = f"Responses were estimated {how.get(name, f'by {name}')}"
    if p.get("order") is not None:
        text += f", up to order {p['order']}"
    taken = ["the spread of fibres within voxels"] if record.get("fibre") else []
    taken += ["the bias of Rician noise"] if p.get("noise") else []
    return text + (f"; {' and '.join(taken)} taken out" if taken else "") + "."


def _csd(p: dict[str, Any], record: Mapping[str, Any]) -> str:
    text = "Fibre orientation distributions"
    text += f" of order {p.get('order')} were estimated by constrained spherical deconvolution of "
    shell = p.get("shell")
    text += "all shells" if shell == "all" else f"the shell at b = {_value(shell)} s/mm²"
    return text + _constraints(p, record)


def _msmt(p: dict[str, Any], record: Mapping[str, Any]) -> str:
    text = "Fibre orientation distributions of white matter"
    text += f" (order {p.get('order')}) and the amounts of grey matter and CSF were estimated by "
    return text + "multi-shell multi-tissue constrained deconvolution" + _constraints(p, record)


def _model_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record tells of the model that a network's fODFs are from, or nothing."""
    return dict(dict(record.get("inputs", {})).get("model") or {})


def _fod_network(p: dict[str, Any], record: Mapping[str, Any]) -> str:
    model = _model_of(record)
    names = {"gm": "grey matter", "csf": "CSF"}
    others = [names[t] for t in p.get("tissues", ()) if t in names]
    text = "Fibre orientation distributions"
    if others:
        amounts = "amounts" if len(others) > 1 else "amount"
        text += f" of white matter (order {p.get('order')}) and the {amounts} of "
        text += f"{' and '.join(others)}"
    else:
        text += f" of order {p.get('order')}"
    text += f" were estimated by {model['label']} in {p.get('mode')} mode, a network "
    text += _lesson(p, model)
    outcome, plan = dict(model.get("outcome") or {}), dict(p.get("plan") or {})
    facts = []
    if outcome.get("steps") is not None:
        facts.append(f"{outcome['steps']} step{'s' * (outcome['steps'] != 1)}")
        if plan and p.get("architecture"):
            count, edge = plan["batch"], p["architecture"]["patch"]
            size = f"{edge} x {edge} x {edge} voxels" if edge > 1 else "one voxel"
            facts[-1] += f" of {count} patch{'es' * (count != 1)} of {size}"
    if p.get("seed") is not None:
        facts.append(f"seed {p['seed']}")
    if outcome.get("best_epoch") is not None and plan:
        facts.append(f"weights of epoch {outcome['best_epoch']} of {plan['epochs']} were kept")
    return text + (f" ({'; '.join(facts)})" if facts else "") + "."


def _lesson(p: dict[str, Any], model: Mapping[str, Any]) -> str:
    """Say what a network learned from: this scan or subjects, and whether true fODFs were told."""
    known = bool(model.get("known_fods"))
    if p.get("trained_from") == "scan":
        text = "fitted to this scan without known fODFs"
        if p.get("started_from"):
            text += ", beginning from a trained model"
        return text + " that had learned from true fODFs first" * known
    count = len(model.get("subjects", ()))
    text = f"trained on {count} {'simulated ' * bool(model.get('simulated'))}"
    text += f"subject{'s' * (count != 1)}"
    if not known:
        return f"{text} without known fODFs"
    alone = not dict(p.get("losses") or {}).get("supervised", 0)
    return f"{text}, with their true fODFs{' first and then without' * alone}"


def _constraints(p: dict[str, Any], record: Mapping[str, Any]) -> str:
    text = f" ({len(record['volumes'])} volumes)" if record.get("volumes") else ""
    if p.get("directions") is not None:
        text += f", non-negative in {p['directions']} directions of the half sphere"
    if p.get("regulariser") is not None:
        text += f", with a regulariser of {_value(p['regulariser'])}"
    return text + "."


def _rumba(p: dict[str, Any], record: Mapping[str, Any]) -> str:
    text = "Fibre orientation distributions were estimated by Richardson-Lucy deconvolution with a "
    text += "likelihood of noisy magnitudes"
    if record.get("method") == "rumba-tv":
        text += " and total variation along space (RUMBA-TV)"
    else:
        text += " (RUMBA-SD)"
    if p.get("iterations") is not None:
        text += f" in {p['iterations']} {'accelerated ' if p.get('accelerate') else ''}iterations"
    if p.get("order") is not None:
        text += f", written as harmonics of order {p['order']}"
    return text + "."


def _peaks(p: dict[str, Any], record: Mapping[str, Any]) -> str:
    text = f"Up to {p.get('most')} peaks a voxel were found by Newton's method from the maxima on "
    text += f"a grid, at least {_value(p.get('separation'))} degrees apart"
    if p.get("threshold"):
        text += f" and of at least {100 * p['threshold']:.3g} % of the largest"
    return text + "."


_TELLERS: dict[str, Callable[[dict[str, Any], Mapping[str, Any]], str]] = {
    "sh-fit": _sh_fit,
    "shresnet": _network,
    "phantom": _phantom,
    "tensor": _tensor,
    "golkov": _network,
    "linear-rish": _linear_rish,
    "difference": _difference,
    "map": _map,
    "tissue": _tissue,
    "response": _response,
    "csd": _csd,
    "msmt-csd": _msmt,
    "rumba": _rumba,
    "rumba-tv": _rumba,
    "peaks": _peaks,
}


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return " to ".join(_value(v) for v in value)
    return str(value)

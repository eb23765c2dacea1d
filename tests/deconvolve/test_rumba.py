"""RUMBA-SD against DIPY, against known fibres, and against its own symmetries."""

import warnings

import numpy as np
import pytest
import torch
from scipy.special import eval_legendre

from napari_dmri import Cancelled, DmriWarning, GradientTable, InputError, Scan
from napari_dmri.deconvolve import find_peaks, rumba
from napari_dmri.deconvolve.rumba_kernel import factorise, make_dictionary
from napari_dmri.deconvolve.rumba_steps import Effort, iterate, make_plan
from napari_dmri.deconvolve.rumba_tv import iterate_together, spatial_tiles
from napari_dmri.images import Response, ResponseSet
from napari_dmri.sphere.graph import geodesic_axes
from napari_dmri.sphere.harmonics import design_matrix
from napari_dmri.sphere.sampling import half_sphere

ALONG, ACROSS = 1.7e-3, 0.3e-3
GREY, WATER = 0.8e-3, 3.0e-3
SHELLS = ((1000.0, 20), (3000.0, 45))


def table(rotation=None):
    directions = [np.zeros((2, 3))]
    bvalues = [np.zeros(2)]
    for b, count in SHELLS:
        directions.append(half_sphere(count))
        bvalues.append(np.full(count, b))
    gradients = GradientTable(np.concatenate(bvalues), np.concatenate(directions))
    return gradients if rotation is None else gradients.rotate(rotation)


def fibre(gradients, direction):
    cosine = gradients.directions @ direction
    return np.exp(-gradients.bvalues * (ACROSS + (ALONG - ACROSS) * cosine**2))


def water(gradients, diffusivity=WATER):
    return np.exp(-gradients.bvalues * diffusivity)


def white(order=14, scale=100.0):
    nodes, weights = np.polynomial.legendre.leggauss(64)
    bvalues = [0.0, *(b for b, _ in SHELLS)]
    rows = [
        [
            2
            * np.pi
            * (weights * signal * np.sqrt((2 * el + 1) / (4 * np.pi)))
            @ eval_legendre(el, nodes)
            for el in range(0, order + 1, 2)
        ]
        for signal in (scale * np.exp(-b * (ACROSS + (ALONG - ACROSS) * nodes**2)) for b in bvalues)
    ]
    return Response(np.array(rows), tuple(bvalues))


def isotropic(diffusivity, tissue, scale=100.0):
    bvalues = np.array([0.0, *(b for b, _ in SHELLS)])
    zonal = scale * np.sqrt(4 * np.pi) * np.exp(-bvalues * diffusivity)
    return Response(zonal[:, None], tuple(bvalues), tissue)


def responses():
    return ResponseSet(
        {"wm": white(), "gm": isotropic(GREY, "gm"), "csf": isotropic(WATER, "csf", 150.0)}
    )


def scan_of(signals, gradients, shape=None, snr=None, seed=0, scale=100.0):
    signals = scale * np.asarray(signals, dtype=float)
    if snr is not None:
        rng = np.random.default_rng(seed)
        sigma = scale / snr
        noise = rng.standard_normal((2, *signals.shape)) * sigma
        signals = np.hypot(signals + noise[0], noise[1])
    shape = (len(signals), 1, 1) if shape is None else shape
    data = signals.reshape(*shape, -1).astype(np.float32)
    return Scan(data, np.diag([2.0, 2.0, 2.0, 1.0]), gradients)


def unit(*vector):
    return np.array(vector) / np.linalg.norm(vector)


def crossings(gradients, count, seed=0):
    """Return signals (count, V) of two fibres at 45-90 degrees, and the fibres (count, 2, 3)."""
    rng = np.random.default_rng(seed)
    signals, fibres = [], []
    for _ in range(count):
        first = unit(*rng.standard_normal(3))
        side = rng.standard_normal(3)
        side = unit(*(side - side @ first * first))
        angle = np.deg2rad(rng.uniform(45, 90))
        second = np.cos(angle) * first + np.sin(angle) * side
        signals.append(0.6 * fibre(gradients, first) + 0.4 * fibre(gradients, second))
        fibres.append([first, second])
    return np.array(signals), np.array(fibres)


def angles(a, b):
    return np.rad2deg(np.arccos(np.abs((a * b).sum(-1)).clip(0, 1)))


def density(result):
    return np.sqrt(4 * np.pi) * result.fod.coefficients[..., 0]


def test_agrees_with_dipy_at_its_own_settings():
    from dipy.core.gradients import gradient_table
    from dipy.core.sphere import Sphere
    from dipy.reconst.rumba import RumbaSDModel

    gradients = table()
    signals, _ = crossings(gradients, 3)
    signals = np.concatenate([signals, 0.7 * signals[:1] + 0.3 * water(gradients)])
    scan = scan_of(signals, gradients, snr=30)
    axes = half_sphere(181)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = RumbaSDModel(
            gradient_table(gradients.bvalues, bvecs=gradients.directions, b0_threshold=50),
            wm_response=np.array([ALONG, ACROSS, ACROSS]),
            gm_response=GREY,
            csf_response=WATER,
            n_iter=300,
            sphere=Sphere(xyz=axes),
        )
        theirs = model.fit(scan.data[:, 0, 0].astype(float)).model_params
    ours = rumba(scan, responses(), axes=axes, iterations=300, keep_vertices=True, device="cpu")
    mean = scan.data[..., :2].mean(-1)[:, 0, 0, None]
    fibres = ours.maps["vertices"].data[:, 0, 0] * 100 / mean
    fibres /= fibres.sum(1, keepdims=True)
    reference = theirs[:, :181] / theirs[:, :181].sum(1, keepdims=True)
    cosine = (fibres * reference).sum(1) / np.linalg.norm(fibres, axis=1)
    assert (cosine / np.linalg.norm(reference, axis=1) > 0.995).all()
    csf = np.sqrt(4 * np.pi) * ours.maps["csf"].data[:, 0, 0] * 150 / mean[:, 0]
    assert np.abs(csf - theirs[:, 182]).max() < 0.02


@pytest.mark.parametrize("accelerate", [False, True])
def test_recovers_a_single_fibre_and_its_density(accelerate):
    gradients, direction = table(), unit(0.3, -0.5, 0.8)
    signals = np.stack([fibre(gradients, direction), 2 * fibre(gradients, direction)])
    found = rumba(
        scan_of(signals, gradients), white(), iterations=300, accelerate=accelerate, device="cpu"
    )
    peaks = find_peaks(found.fod, threshold=0.3, device="cpu")
    assert (peaks.count == 1).all()
    assert angles(peaks.directions[:, 0, 0, 0], direction).max() < 1
    assert density(found)[:, 0, 0] == pytest.approx([1, 2], rel=0.02)
    assert found.maps["residual"].data.max() < 0.02
    assert found.voxels == 2
    assert found.volumes == tuple(range(67))
    assert "2 b0" in found.notes[0]


def test_finds_crossings_in_noise():
    gradients = table()
    signals, fibres = crossings(gradients, 40)
    scan = scan_of(signals, gradients, snr=40)
    found = rumba(scan, white(), accelerate=True, iterations=1200, device="cpu")
    peaks = find_peaks(found.fod, threshold=0.2, device="cpu").directions[:, 0, 0]
    nearest = angles(fibres[:, :, None], peaks[:, None]).min(2)
    assert np.median(nearest) < 4
    assert (nearest < 20).mean() > 0.95
    assert np.median(found.maps["noise"].data) == pytest.approx(1 / 40, rel=0.15)


def test_isotropic_voxels_go_to_their_tissues():
    gradients = table()
    signals = [
        water(gradients),
        water(gradients, GREY),
        0.5 * water(gradients) + 0.5 * fibre(gradients, unit(1, 2, 3)),
    ]
    settings = {"accelerate": True, "iterations": 6000, "device": "cpu"}
    found = rumba(scan_of(signals, gradients), responses(), **settings)
    grey, csf = (np.sqrt(4 * np.pi) * found.maps[t].data[:, 0, 0] for t in ("gm", "csf"))
    assert csf[0] == pytest.approx(100 / 150, abs=0.02)
    assert density(found)[0, 0, 0] < 0.02
    assert grey[1] > 0.9
    assert density(found)[1, 0, 0] < 0.1
    assert csf[2] == pytest.approx(50 / 150, abs=0.05)
    assert density(found)[2, 0, 0] == pytest.approx(0.5, abs=0.06)
    alone = rumba(
        scan_of(signals, gradients),
        ResponseSet({"wm": white(), "csf": isotropic(WATER, "csf")}),
        iterations=50,
        device="cpu",
    )
    assert set(alone.maps) == {"residual", "noise", "csf"}


def rotation_about(axis, degrees):
    axis = axis / np.linalg.norm(axis)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


@pytest.mark.parametrize(("symmetric", "most"), [(True, 1e-3), (False, 0.25)])
def test_turns_with_the_gradients(symmetric, most):
    """Exact for the 60 rotations of the icosahedron; otherwise within the spacing of the axes."""
    turn = rotation_about(geodesic_axes(1)[0], 72 if symmetric else 31)
    if not symmetric:
        turn = turn @ rotation_about(np.array([1.0, 2.0, 0.5]), 17)
    gradients, turned = table(), table(turn)
    signals, _ = crossings(gradients, 12)
    settings = {"iterations": 200, "device": "cpu"}
    before = rumba(scan_of(signals, gradients), white(), **settings).fod.coefficients
    after = rumba(scan_of(signals, turned), white(), **settings).fod.coefficients
    look = half_sphere(300)
    here = before[:, 0, 0] @ design_matrix(look, 12).T
    there = after[:, 0, 0] @ design_matrix(look @ turn.T, 12).T
    error = np.linalg.norm(here - there, axis=1) / np.linalg.norm(here, axis=1)
    assert np.median(error) < most


def test_noise_floor_biases_less_than_a_gaussian_model():
    """In free water at b = 3000 all signal is the noise floor: it must not become tissue."""
    gradients = table()
    scan = scan_of(np.tile(water(gradients), (200, 1)), gradients, snr=10)
    rician = rumba(scan, responses(), iterations=200, device="cpu")
    gaussian = rumba(scan, responses(), iterations=200, noise=1e-3, device="cpu")

    def tissue(result):
        return float((density(result) + np.sqrt(4 * np.pi) * result.maps["gm"].data).mean())

    assert tissue(rician) < 0.5 * tissue(gaussian)


def test_accelerated_steps_converge_to_the_same():
    """At the maximum of the likelihood the signal is unique, the compartments nearly so."""
    gradients = table()
    signals, _ = crossings(gradients, 6)
    scan = scan_of(signals, gradients, snr=25)
    matrix = make_dictionary(scan, white(), geodesic_axes(3), "all").matrix
    both = []
    for iterations, accelerate in ((6000, False), (200_000, True)):
        found = rumba(
            scan,
            white(),
            axes=geodesic_axes(3),
            iterations=iterations,
            accelerate=accelerate,
            noise=0.04,
            tolerance=0,
            keep_vertices=True,
            device="cpu",
        )
        both.append(found.maps["vertices"].data[:, 0, 0] @ matrix.T)
    size = np.linalg.norm(both[0], axis=1)
    assert (np.linalg.norm(both[0] - both[1], axis=1) < 5e-3 * size).all()


def test_tolerance_ends_early():
    gradients = table()
    scan = scan_of([fibre(gradients, unit(1, 0, 0))], gradients)
    found = rumba(scan, white(), tolerance=1e-2, device="cpu")
    assert found.converged == 1
    never = rumba(scan, white(), tolerance=0, iterations=5, device="cpu")
    assert "reached the tolerance" in found.notes[-1]
    assert never.notes[-1].endswith("all steps were taken, as is usual")
    assert never.converged == 0


def test_coils_and_one_shell():
    gradients, direction = table(), unit(0, 1, 1)
    rng = np.random.default_rng(3)
    clean = 100 * np.tile(fibre(gradients, direction), (20, 1))
    channels = rng.standard_normal((8, *clean.shape)) * 4
    channels[0] += clean
    data = np.sqrt((channels**2).sum(0))
    scan = scan_of(data / 100, gradients)
    right = rumba(scan, white(), coils=4, iterations=200, device="cpu")
    assert np.median(right.maps["noise"].data) == pytest.approx(0.04, rel=0.2)
    one = rumba(scan, white(), shell=3000, iterations=200, device="cpu")
    assert one.volumes == tuple(range(22, 67))
    peaks = find_peaks(one.fod, threshold=0.5, device="cpu")
    assert np.median(angles(peaks.directions[:, 0, 0, 0], direction)) < 2


def test_response_of_one_shell_without_b0():
    gradients, direction = table(), unit(0, 1, 1)
    scan = scan_of([fibre(gradients, direction)], gradients)
    rows = white().zonal
    for response in (Response(rows[2:], (3000.0,)), Response(rows[2:]), Response(rows)):
        found = rumba(scan, response, shell=3000, iterations=100, clip=False, device="cpu")
        assert density(found)[0, 0, 0] == pytest.approx(1, rel=0.05)
        assert len(found.volumes) == 45
    weighted = rumba(scan, Response(rows[1:]), iterations=100, device="cpu")
    assert density(weighted)[0, 0, 0] == pytest.approx(1, rel=0.05)
    assert len(weighted.volumes) == 65


def test_keeps_vertices():
    gradients = table()
    scan = scan_of([fibre(gradients, unit(1, 2, 0))], gradients)
    found = rumba(scan, white(), iterations=60, keep_vertices=True, order=8, device="cpu")
    amplitudes = found.maps["vertices"].data[0, 0, 0]
    assert amplitudes.shape == (321,) == found.axes.shape[:1]
    assert (amplitudes >= 0).all()
    assert amplitudes @ design_matrix(found.axes, 8) == pytest.approx(
        found.fod.coefficients[0, 0, 0], abs=1e-4
    )


def test_factors_are_as_accurate_as_asked():
    gradients = table()
    scan = scan_of([water(gradients)], gradients)
    matrix = make_dictionary(scan, responses(), geodesic_axes(8), "all").matrix
    assert matrix.shape == (66, 323)
    assert matrix[0] == pytest.approx(1)
    left, right = factorise(matrix, 1e-3)
    assert np.abs(left @ right - matrix).max() < 1e-3
    assert factorise(np.eye(5)) is None


def plan_and_signal(shape, snr=25):
    gradients = table()
    rng = np.random.default_rng(1)
    left = np.arange(np.prod(shape)).reshape(shape) // int(np.prod(shape[1:])) < shape[0] // 2
    fibres = np.stack([fibre(gradients, unit(1, 0.2, 0)), fibre(gradients, unit(0, 0.3, 1))])
    signals = fibres[left.astype(int).ravel()]
    scan = scan_of(signals, gradients, shape, snr=snr)
    mask = rng.random(shape) > 0.1
    return scan.with_mask(mask), left


def test_tiles_leave_no_seams():
    scan, _ = plan_and_signal((7, 6, 5))
    dictionary = make_dictionary(scan, white(), geodesic_axes(4), "all")
    device = torch.device("cpu")
    plan = make_plan(dictionary.matrix, 1, (1 / 80, 1 / 8), device)
    results = []
    for shape in ((20, 20, 20), (3, 2, 4), (1, 1, 1)):
        order, tiles = spatial_tiles(scan.mask, device, shape)
        signal = torch.from_numpy(
            np.asarray(scan.data).reshape(-1, 67)[order][:, dictionary.volumes]
        )
        normal, _ = dictionary.normalise(signal, True)
        f, _, _ = iterate_together(plan, normal, tiles, Effort(60, True))
        volume = np.zeros((scan.mask.size, plan.columns))
        volume[order] = f.numpy()
        results.append(volume)
    for other in results[1:]:
        assert np.abs(other - results[0]).max() < 1e-3 * results[0].max()


def test_no_weight_of_total_variation_is_plain():
    scan, _ = plan_and_signal((4, 3, 3))
    settings = {"iterations": 40, "device": "cpu"}
    plain = rumba(scan, responses(), **settings)
    off = rumba(scan, responses(), total_variation=True, smoothing=0.0, **settings)
    assert off.fod.coefficients == pytest.approx(plain.fod.coefficients, abs=1e-3)
    assert off.maps["csf"].data == pytest.approx(plain.maps["csf"].data, abs=1e-3)
    assert off.maps["residual"].data == pytest.approx(plain.maps["residual"].data, abs=1e-4)
    assert np.array_equal(off.fod.mask, scan.mask)


@pytest.mark.parametrize("accelerate", [False, True])
def test_total_variation_smooths_within_and_keeps_edges(accelerate):
    scan, left = plan_and_signal((8, 6, 5), snr=12)
    settings = {"iterations": 200, "accelerate": accelerate, "device": "cpu"}
    together = rumba(scan, white(), total_variation=True, **settings)
    alone = rumba(scan, white(), **settings)
    for part in (left & scan.mask, ~left & scan.mask):
        spread = [r.fod.coefficients[part].std(0).mean() for r in (together, alone)]
        assert spread[0] < 0.6 * spread[1]
    first = find_peaks(together.fod, device="cpu").directions[..., 0, :]
    assert np.median(angles(first[left & scan.mask], unit(0, 0.3, 1))) < 2
    assert np.median(angles(first[~left & scan.mask], unit(1, 0.2, 0))) < 2


def test_layouts_and_threads_do_not_matter():
    scan, _ = plan_and_signal((5, 4, 3))
    fortran = Scan(np.asfortranarray(scan.data), scan.affine, scan.gradients, scan.mask)
    for extra in ({}, {"total_variation": True}):
        one = rumba(scan, white(), iterations=20, device="cpu", **extra)
        two = rumba(fortran, white(), iterations=20, device="cpu", **extra)
        before = torch.get_num_threads()
        torch.set_num_threads(3)
        try:
            three = rumba(scan, white(), iterations=20, device="cpu", **extra)
            assert torch.get_num_threads() == 3
        finally:
            torch.set_num_threads(before)
        for other in (two, three):
            assert other.fod.coefficients == pytest.approx(one.fod.coefficients, abs=1e-4)


@pytest.mark.parametrize("total_variation", [False, True])
def test_leaves_out_voxels_that_cannot_be_used(total_variation):
    gradients = table()
    scan = scan_of(np.tile(fibre(gradients, unit(1, 1, 1)), (4, 1)), gradients, (2, 2, 1))
    scan.data[0, 0, 0, 5] = np.nan
    scan.data[0, 1, 0, :2] = 0
    settings = {"iterations": 10, "total_variation": total_variation, "device": "cpu"}
    with pytest.warns(DmriWarning, match=r"1 .*NaN.* 1 .*b0 <= 0"):
        found = rumba(scan, white(), **settings)
    assert found.voxels == 2
    assert not found.fod.coefficients[0].any()
    assert np.isfinite(found.fod.coefficients).all()
    assert np.array_equal(found.fod.mask[..., 0], [[False, False], [True, True]])
    with pytest.raises(InputError, match="mask holds no voxel"):
        rumba(scan, white(), mask=np.zeros((2, 2, 1)), **settings)
    scan.data[:] = np.nan
    with pytest.raises(InputError, match="no voxel can be deconvolved"):
        rumba(scan, white(), **settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"iterations": 0}, "iterations"),
        ({"iterations": -5}, "iterations"),
        ({"iterations": 2.5}, "iterations"),
        ({"order": 7}, "order"),
        ({"coils": 0}, "coils"),
        ({"noise": 0.0}, "noise"),
        ({"noise": (0.1, 0.01)}, "noise"),
        ({"noise": float("nan")}, "noise"),
        ({"smoothing": -1.0}, "total variation"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"shell": 2000.0}, "No shell"),
        ({"axes": np.eye(3)}, "axes"),
        ({"axes": np.concatenate([half_sphere(9), -half_sphere(9)[:1]])}, "antipodal"),
        ({"axes": np.zeros((9, 3))}, "zero vector"),
        ({"mask": np.ones((3, 3, 3))}, "mask"),
    ],
)
def test_refuses_settings(settings, words):
    gradients = table()
    scan = scan_of([water(gradients)], gradients)
    with pytest.raises(InputError, match=words):
        rumba(scan, white(), device="cpu", **settings)


def test_refuses_responses_and_scans():
    gradients = table()
    scan = scan_of([water(gradients)], gradients)
    with pytest.raises(InputError, match="no row"):
        rumba(scan, Response(white().zonal, (0, 700, 2000)), device="cpu")
    with pytest.raises(InputError, match="same in all directions"):
        rumba(scan, isotropic(GREY, "wm"), device="cpu")
    with pytest.raises(InputError, match="no row"):
        other = Response(np.ones((2, 1)), (0, 700), "csf")
        rumba(scan, ResponseSet({"wm": white(), "csf": other}), device="cpu")
    weighted = Scan(scan.data[..., 2:], scan.affine, gradients.select(np.arange(2, 67)))
    with pytest.raises(InputError, match="no b0"):
        rumba(weighted, white(), device="cpu")


@pytest.mark.parametrize("total_variation", [False, True])
def test_can_be_cancelled(total_variation):
    scan, _ = plan_and_signal((5, 4, 3))
    calls = []

    def stop(fraction, text):
        calls.append((fraction, text))
        if fraction > 0.05 or len(calls) > 3:
            raise Cancelled

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(Cancelled):
            rumba(
                scan,
                white(),
                iterations=100_000,
                tolerance=0,
                total_variation=total_variation,
                progress=stop,
                device="cpu",
            )
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_reports_to_the_end():
    scan, _ = plan_and_signal((5, 4, 3))
    for extra in ({}, {"total_variation": True}):
        seen = []
        rumba(
            scan,
            white(),
            iterations=5,
            progress=lambda f, t, s=seen: s.append(f),
            device="cpu",
            **extra,
        )
        assert seen[-1] == pytest.approx(1)
        assert seen == sorted(seen)


def test_a_heartbeat_may_stop_the_steps():
    gradients = table()
    scan = scan_of([water(gradients)], gradients)
    dictionary = make_dictionary(scan, white(), geodesic_axes(3), "all")
    plan = make_plan(dictionary.matrix, 1, (0.01, 0.1), torch.device("cpu"))
    beats = []

    def beat():
        beats.append(1)
        if len(beats) == 4:
            raise Cancelled

    with pytest.raises(Cancelled):
        iterate(plan, torch.ones(1, plan.rows), Effort(50), beat)
    assert len(beats) == 4

"""Picks against truth: properties of the matchings, metrics, curves, set operations and the command."""

from __future__ import annotations

import itertools
import json
import pathlib
import textwrap
import time
from typing import Sequence, Tuple

import numpy as np
import pytest

from deepetpicker.__main__ import main
from deepetpicker.config import EvaluateOptions
from deepetpicker.errors import InputError
from deepetpicker.evaluation import (
    Match,
    bootstrap_intervals,
    compare,
    confusion_matrix,
    curve_of,
    distance_candidates,
    evaluate,
    hits_of,
    localisation_metrics,
    mask_candidates,
    match_by_distance,
    take_best_scores,
)
from deepetpicker.evaluation.measures import (
    class_metrics,
    distance_histogram,
    macro_f1,
    ratios,
    taken_for,
    z_profile,
)
from deepetpicker.evaluation.sanity import geometry_hint
from deepetpicker.io.coordinates import CoordinateTable, write_coordinates
from deepetpicker.io.volumes import write_volume

SHAPE = (24, 32, 40)


def table(positions: Sequence, classes: Sequence[int] = (), scores: Sequence[float] = ()) -> CoordinateTable:
    positions = np.asarray(positions, float).reshape(-1, 3)
    n = len(positions)
    return CoordinateTable(positions, np.array(classes if len(classes) else [1] * n, dtype=int),
                           np.array(scores if len(scores) else [np.nan] * n, dtype=float))


def crowd(seed: int, n_truth: int = 40, n_picks: int = 50) -> Tuple[CoordinateTable, CoordinateTable]:
    """Return truth and picks so dense that most picks have several particles within 4 voxels."""
    rng = np.random.default_rng(seed)
    truth, picks = (rng.random((n, 3)) * SHAPE for n in (n_truth, n_picks))
    return (table(truth, rng.integers(1, 4, n_truth)),
            table(picks, rng.integers(1, 4, n_picks), rng.integers(0, 20, n_picks) / 20))


def balls(truth: CoordinateTable, radius_vox: float = 3.0) -> np.ndarray:
    """Return an instance mask with a ball per particle; later particles overwrite earlier ones."""
    mask = np.zeros(SHAPE, np.int16)
    grid = np.stack(np.indices(SHAPE), axis=-1)
    for row, centre in enumerate(truth.positions_zyx_vox, start=1):
        mask[((grid - centre) ** 2).sum(axis=-1) <= radius_vox ** 2] = row
    return mask


def match_by_mask(truth: CoordinateTable, picks: CoordinateTable, mask: np.ndarray) -> Match:
    """Match as ``evaluate`` does by the mask rule."""
    return take_best_scores(mask_candidates(truth, picks, mask), picks.scores)


def same_pairs(a, b, truth_order, pick_order) -> bool:
    """Tell whether match b of permuted tables pairs the same particles as match a."""
    return (set(zip(a.truth_index.tolist(), a.pick_index.tolist()))
            == set(zip(truth_order[b.truth_index].tolist(), pick_order[b.pick_index].tolist())))


SPREAD = table(np.stack(np.meshgrid([4, 12, 19], [5, 15, 26], [6, 20, 33], indexing="ij"), -1).reshape(-1, 3))


def test_perfect_picks_have_f1_one_under_both_rules():
    for match in (match_by_mask(SPREAD, SPREAD, balls(SPREAD)), match_by_distance(SPREAD, SPREAD, 3.0)):
        found = localisation_metrics(match, voxel_size_ang=10.0)
        assert (found["precision"], found["recall"], found["F1"], found["Fbeta"]) == (1, 1, 1, 1)
        assert (found["AD_vox"], found["AD_ang"]) == (0, 0)


def test_a_second_pick_on_a_particle_is_a_false_positive():
    picks = table([*SPREAD.positions_zyx_vox, SPREAD.positions_zyx_vox[5] + 0.4])
    for match in (match_by_mask(SPREAD, picks, balls(SPREAD)), match_by_distance(SPREAD, picks, 3.0)):
        assert (match.tp, match.fp, match.fn) == (27, 1, 0)


def test_mask_rule_takes_the_best_score_not_the_nearest():
    truth, picks = table([[10, 10, 10]]), table([[10, 10, 10], [10, 10, 12]], scores=[0.2, 0.9])
    match = match_by_mask(truth, picks, balls(truth))
    assert match.pick_index.tolist() == [1]
    assert match.distances_vox.tolist() == [2.0]


def test_mask_rule_breaks_score_ties_and_missing_scores_by_distance():
    truth = table([[10, 10, 10]])
    for scores in ([0.5, 0.5], [np.nan, np.nan]):
        picks = table([[10, 10, 12], [10, 10, 11]], scores=scores)
        assert match_by_mask(truth, picks, balls(truth)).pick_index.tolist() == [1]
    unknown_and_low = table([[10, 10, 10], [10, 10, 12]], scores=[np.nan, 0.01])
    assert match_by_mask(truth, unknown_and_low, balls(truth)).pick_index.tolist() == [1]


def test_mask_rule_looks_up_the_rounded_voxel_and_clips_to_the_volume():
    mask = np.zeros(SHAPE, np.int16)
    mask[0, 0, 0] = 1
    picks = table([[0.49, -0.3, 0.2], [0.51, 0, 0], [-7, -7, -7]], scores=[0.9, 0.8, 0.7])
    assert mask_candidates(table([[0, 0, 0]]), picks, mask).pick_index.tolist() == [0, 2]


def test_mask_of_another_table_is_refused():
    with pytest.raises(InputError, match=r"particle 27.*26 rows"):
        match_by_mask(SPREAD.select(np.arange(26)), SPREAD, balls(SPREAD))
    with pytest.raises(InputError, match="3D"):
        match_by_mask(SPREAD, SPREAD, np.zeros((4, 4)))


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_rows_does_not_matter(seed):
    truth, picks = crowd(seed)
    rng = np.random.default_rng(100 + seed)
    a, b = rng.permutation(len(truth)), rng.permutation(len(picks))
    moved = match_by_distance(truth.select(a), picks.select(b), 5.0)
    assert same_pairs(match_by_distance(truth, picks, 5.0), moved, a, b)
    mask = balls(truth)
    still = np.arange(len(truth))
    assert same_pairs(match_by_mask(truth, picks, mask), match_by_mask(truth, picks.select(b), mask), still, b)


def test_shifting_both_sets_changes_nothing():
    truth, picks = crowd(1)
    shift = np.array([3.5, -20.25, 100.0])
    moved = [table(t.positions_zyx_vox + shift, t.class_ids, t.scores) for t in (truth, picks)]
    before, after = match_by_distance(truth, picks, 5.0), match_by_distance(*moved, 5.0)
    assert before.pick_index.tolist() == after.pick_index.tolist()
    assert before.distances_vox == pytest.approx(after.distances_vox)


def test_optimal_assignment_finds_what_the_nearest_pick_would_lose():
    truth = table([[5, 5, 5], [5, 5, 9]])
    picks = table([[5, 5, 6.5], [5, 5, 2]])  # the first is nearer to the first particle, which only the second reaches
    match = match_by_distance(truth, picks, 3.1)
    assert match.tp == 2
    assert dict(zip(match.truth_index.tolist(), match.pick_index.tolist())) == {0: 1, 1: 0}


@pytest.mark.parametrize("seed", range(30))
def test_assignment_has_most_pairs_then_least_distance(seed):
    rng = np.random.default_rng(seed)
    truth, picks = table(rng.random((rng.integers(1, 5), 3)) * 6), table(rng.random((rng.integers(1, 5), 3)) * 6)
    match = match_by_distance(truth, picks, 3.0)
    gaps = np.linalg.norm(truth.positions_zyx_vox[:, None] - picks.positions_zyx_vox[None], axis=-1)
    best = (0, 0.0)
    for size in range(1, min(len(truth), len(picks)) + 1):
        for rows in itertools.combinations(range(len(truth)), size):
            for columns in itertools.permutations(range(len(picks)), size):
                used = gaps[rows, columns]
                if (used <= 3.0).all():
                    best = min(best, (-size, float(used.sum())))
    assert (-match.tp, match.distances_vox.sum()) == pytest.approx(best)


def test_radius_is_inclusive_and_may_differ_per_particle():
    truth, picks = table([[5, 5, 5], [5, 5, 25]]), table([[5, 5, 8], [5, 5, 28]])
    assert match_by_distance(truth, picks, 3.0).tp == 2
    assert match_by_distance(truth, picks, np.array([3.0, 2.9])).truth_index.tolist() == [0]
    assert match_by_distance(truth, truth, 0.0).tp == 2


@pytest.mark.parametrize("radius", [-1.0, np.nan, np.array([1.0, 2.0])])
def test_a_wrong_radius_is_refused(radius):
    with pytest.raises(InputError, match="radius_vox"):
        match_by_distance(SPREAD, SPREAD, radius)


def test_empty_sets_are_valid():
    empty, full = CoordinateTable.empty(), SPREAD
    for truth, picks in ((empty, empty), (empty, full), (full, empty)):
        for match in (match_by_distance(truth, picks, 3.0), match_by_mask(truth, picks, np.zeros(SHAPE, np.int16))):
            assert (match.tp, match.fp, match.fn) == (0, len(picks), len(truth))
            found = localisation_metrics(match)
            values = [found[name] for name in ("precision", "recall", "F1", "Fbeta")]
            assert all(np.isnan(values)) if not len(truth) + len(picks) else values == [0, 0, 0, 0]
            assert np.isnan(found["AD_vox"])


def test_ten_thousand_particles_take_seconds():
    rng = np.random.default_rng(0)
    truth = table(rng.random((10000, 3)) * [300, 900, 900])
    picks = table(truth.positions_zyx_vox + rng.normal(0, 5, (10000, 3)), scores=rng.random(10000))
    start = time.monotonic()
    match = match_by_distance(truth, picks, 25.0)
    curve = curve_of(hits_of([(distance_candidates(truth, picks, 25.0), picks.scores)]))
    assert match.tp > 9900
    assert curve.tp[-1] == match.tp
    assert time.monotonic() - start < 5


def test_ratios_follow_their_definitions():
    found = ratios(6, 2, 4, beta=4)
    p, r = 6 / 8, 6 / 10
    assert found["F1"] == pytest.approx(2 * p * r / (p + r))
    assert found["Fbeta"] == pytest.approx(17 * p * r / (16 * p + r))


def test_angstrom_distance_needs_a_voxel_size():
    match = match_by_distance(table([[5, 5, 5]]), table([[5, 5, 7]]), 3.0)
    assert localisation_metrics(match, voxel_size_ang=7.5)["AD_ang"] == pytest.approx(15.0)
    assert np.isnan(localisation_metrics(match)["AD_ang"])


def test_confusion_counts_every_particle_and_pick_once():
    truth, picks = crowd(3)
    match = match_by_distance(truth, picks, 4.0)
    counts = confusion_matrix(truth.class_ids, picks.class_ids, match, [1, 2, 3])
    assert counts[:-1].sum(axis=1).tolist() == [int((truth.class_ids == c).sum()) for c in (1, 2, 3)]
    assert counts[:, :-1].sum(axis=0).tolist() == [int((picks.class_ids == c).sum()) for c in (1, 2, 3)]
    assert counts[-1, -1] == 0
    assert counts[:-1, :-1].sum() == match.tp


def test_a_hit_of_another_class_is_false_there_and_missed_here():
    truth, picks = table([[5, 5, 5], [5, 5, 25]], [1, 2]), table([[5, 5, 5], [5, 5, 25]], [1, 1])
    counts = confusion_matrix(truth.class_ids, picks.class_ids, match_by_distance(truth, picks, 1.0), [1, 2, 3])
    rows = class_metrics(counts)
    assert [(r["TP"], r["FP"], r["FN"]) for r in rows] == [(1, 1, 0), (0, 0, 1), (0, 0, 0)]
    assert np.isnan(rows[2]["F1"])
    assert macro_f1(rows) == pytest.approx((2 / 3 + 0) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_curve_equals_a_matching_at_every_threshold(seed):
    truth, picks = crowd(seed)
    mask = balls(truth)
    by_distance = curve_of(hits_of([(distance_candidates(truth, picks, 5.0), picks.scores)]))
    by_mask = curve_of(hits_of([(mask_candidates(truth, picks, mask), picks.scores)]))
    assert by_distance.thresholds.tolist() == sorted(set(picks.scores.tolist()), reverse=True)
    for i, threshold in enumerate(by_distance.thresholds):
        kept = picks.select(picks.scores >= threshold)
        near, inside = match_by_distance(truth, kept, 5.0), match_by_mask(truth, kept, mask)
        assert (by_distance.tp[i], by_distance.fp[i]) == (near.tp, near.fp)
        assert (by_mask.tp[i], by_mask.fp[i]) == (inside.tp, inside.fp)


def test_curve_over_tomograms_sums_counts():
    sets = [crowd(seed) for seed in (1, 2)]
    pairs = [(distance_candidates(t, p, 4.0), p.scores) for t, p in sets]
    both, single = curve_of(hits_of(pairs)), [curve_of(hits_of([pair])) for pair in pairs]
    assert both.n_truth == 80
    assert both.tp[-1] == sum(c.tp[-1] for c in single)
    at = {t: i for i, t in enumerate(both.thresholds)}[0.5]
    assert both.tp[at] == sum(c.tp[np.flatnonzero(c.thresholds >= 0.5)[-1]] for c in single)


def test_average_precision_and_best_threshold():
    truth = table([[5, 5, 5], [5, 5, 25]])
    picks = table([[5, 5, 5], [20, 20, 20], [5, 5, 25], [20, 5, 5]], scores=[0.9, 0.8, 0.7, 0.6])
    curve = curve_of(hits_of([(distance_candidates(truth, picks, 1.0), picks.scores)]))
    assert curve.average_precision == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert curve.best("F1") == pytest.approx({"threshold": 0.7, "value": 0.8, "precision": 2 / 3, "recall": 1.0})
    assert curve.best("precision")["threshold"] == 0.9
    with pytest.raises(InputError, match="metric"):
        curve.best("accuracy")


def test_curve_without_scores_or_picks_is_empty():
    for picks in (CoordinateTable.empty(), table([[5, 5, 5]])):
        curve = curve_of(hits_of([(distance_candidates(SPREAD, picks, 3.0), picks.scores)]))
        assert len(curve) == 0
        assert np.isnan(curve.best("F1")["threshold"])
        assert curve.average_precision == 0


def test_curve_rows_can_be_thinned():
    truth, picks = crowd(0)
    curve = curve_of(hits_of([(distance_candidates(truth, picks, 4.0), picks.scores)]))
    thin = curve.rows(limit=5)
    assert len(thin) == 5
    assert (thin[0], thin[-1]) == (curve.rows()[0], curve.rows()[-1])


@pytest.mark.parametrize("seed", range(5))
def test_compare_partitions_both_sets_and_is_symmetric(seed):
    a, b = crowd(seed)
    one, other = compare(a, b, 4.0), compare(b, a, 4.0)
    assert sorted([*one.truth_index, *one.only_a]) == list(range(len(a)))
    assert sorted([*one.pick_index, *one.only_b]) == list(range(len(b)))
    assert one.only_a.tolist() == other.only_b.tolist()
    assert one.only_b.tolist() == other.only_a.tolist()
    assert set(zip(one.truth_index, one.pick_index)) == set(zip(other.pick_index, other.truth_index))


def test_compare_with_itself_and_with_nothing():
    same, nothing = compare(SPREAD, SPREAD, 2.0), compare(SPREAD, CoordinateTable.empty(), 2.0)
    assert same.jaccard == 1
    assert same.distances_vox.max() == 0
    assert (nothing.tp, len(nothing.only_a), nothing.jaccard) == (0, 27, 0)
    assert np.isnan(compare(CoordinateTable.empty(), CoordinateTable.empty(), 2.0).jaccard)


def test_bootstrap_holds_the_value_and_is_repeatable():
    counts = np.array([[30, 10, 5], [20, 2, 9], [35, 6, 6]])
    found = bootstrap_intervals(counts)
    value = ratios(*counts.sum(axis=0))
    assert all(found[n][0] <= value[n] <= found[n][1] for n in found)
    assert found == bootstrap_intervals(counts)
    low, high = bootstrap_intervals(counts[:1])["recall"]
    assert low < 30 / 35 < high < 1
    assert np.isnan(bootstrap_intervals(np.zeros((2, 3)))["F1"]).all()


def test_profiles_count_everything():
    profile = z_profile(np.array([0, 23.4, -3]), np.array([5.0, 40.0]), np.array([True, False]), depth_vox=24, bins=6)
    assert (profile["truth"].sum(), profile["picks"].sum(), profile["hits"].sum()) == (3, 2, 1)
    assert profile["edges_vox"].tolist()[::6] == [-0.5, 23.5]
    assert distance_histogram(np.array([0.0, 2.0, 2.0]))["hits"].sum() == 3
    assert distance_histogram(np.zeros(0))["hits"].sum() == 0


@pytest.mark.parametrize(("change", "said"), [
    (lambda p: p[:, ::-1], "x and z"), (lambda p: p * [1, -1, 1] + [0, SHAPE[1] - 1, 0], "y of the picks were flipped"),
    (lambda p: (p + 0.5) / 2 - 0.5, "scaled by 2"), (lambda p: p * 10.0, "angstrom")])
def test_a_wrong_geometry_is_named(change, said):
    truth = table(np.random.default_rng(5).random((12, 3)) * SHAPE)
    hint = geometry_hint(truth, table(change(truth.positions_zyx_vox)), 1.5, SHAPE, 10.0)
    assert said in hint
    assert geometry_hint(truth, truth, 1.5, SHAPE, 10.0) == ""


def make_folders(tmp_path, names=("TS_01", "TS.02 b"), instances=True, classes=True):
    """Write truth and picks of tomograms: in each 27 particles, 25 hits, 2 false positives."""
    truth, picks = tmp_path / "truth", tmp_path / "picks"
    truth.mkdir()
    picks.mkdir()
    names_by_id = {1: "ring", 2: "<b>rod"}
    for name in names:
        true = CoordinateTable(SPREAD.positions_zyx_vox, np.arange(27) % 2 + 1, np.full(27, np.nan), names_by_id)
        rng = np.random.default_rng(len(name))
        positions = [*(true.positions_zyx_vox[:25] + rng.uniform(-0.4, 0.4, (25, 3))), [8, 10, 13], [16, 20, 27]]
        picked = CoordinateTable(np.array(positions), np.r_[np.arange(25) % 2 + 1, 1, 1],
                                 np.r_[np.linspace(0.95, 0.5, 25), 0.3, 0.2], names_by_id)
        write_coordinates(truth / f"{name}.csv", true)
        write_coordinates(picks / f"{name}.csv", picked)
        write_volume(truth / f"{name}.mrc", rng.normal(size=SHAPE).astype(np.float32), 10.0)
        if instances:
            write_volume(truth / f"{name}_instances.mrc", balls(true), 10.0)
    if classes:
        (truth / "classes.json").write_text(json.dumps({"voxel_size_angstrom": 10.0, "classes": [
            {"id": 1, "name": "ring", "diameter_angstrom": 60},
            {"id": 2, "name": "<b>rod", "diameter_angstrom": 60}]}))
    return truth, picks


@pytest.mark.parametrize("rule", ["mask", "distance"])
def test_evaluate_folders(tmp_path, rule):
    report = evaluate(*make_folders(tmp_path), EvaluateOptions(rule=rule))
    total = report.overall
    assert (total["TP"], total["FP"], total["FN"], total["n_tomograms"]) == (50, 4, 4, 2)
    assert 0 < total["AD_vox"] < 0.7
    assert total["AD_ang"] == pytest.approx(10 * total["AD_vox"])
    assert report.per_tomogram["TS.02 b"]["rule"] == rule
    assert [row["name"] for row in report.per_class] == ["ring", "<b>rod"]
    assert report.confusion.tolist() == [[26, 0, 2], [0, 24, 2], [4, 0, 0]]
    assert report.best_threshold["F1"]["threshold"] == 0.5
    assert report.best_threshold["F1"]["precision"] == 1
    assert report.warnings == ()


def test_the_example_of_the_documents_runs(tmp_path, monkeypatch):
    make_folders(tmp_path, ("TS_01",))
    monkeypatch.chdir(tmp_path)
    page = (pathlib.Path(__file__).parents[2] / "docs/evaluation.rst").read_text("utf-8")
    names = {"table_a": table([[3, 4, 5], [9, 9, 9]]), "table_b": table([[9, 9, 10], [20, 20, 20]])}
    exec(textwrap.dedent(page.partition(".. code-block:: python")[2].partition("\n``")[0]), names)
    assert (tmp_path / "evaluation/report.html").is_file()
    assert names["report"].overall["TP"] == 26
    assert [names[name].positions_zyx_vox.tolist() for name in ("shared", "only_a", "only_b")] == [
        [[9, 9, 9]], [[3, 4, 5]], [[20, 20, 20]]]


def test_threshold_leaves_the_curve_alone(tmp_path):
    report = evaluate(*make_folders(tmp_path), EvaluateOptions(threshold=0.5))
    assert (report.overall["TP"], report.overall["FP"]) == (50, 0)
    assert report.curve.thresholds.min() == 0.2


def test_report_is_json_without_nan(tmp_path):
    truth, picks = make_folders(tmp_path)
    write_coordinates(picks / "TS_01.csv", CoordinateTable.empty())
    text = json.dumps(evaluate(truth, picks).to_dict(), allow_nan=False)
    content = json.loads(text)
    assert content["per_tomogram"]["TS_01"]["AD_vox"] is None
    assert content["confusion"]["columns"] == ["ring", "<b>rod", "missed"]
    assert content["overall"]["FN"] == 29


def test_missing_and_spare_pick_files(tmp_path):
    truth, picks = make_folders(tmp_path)
    (picks / "TS_01.csv").rename(picks / "TS_1.csv")
    report = evaluate(truth, picks)
    assert (report.overall["TP"], report.overall["FN"]) == (25, 29)
    assert any(text.startswith("TS_01: no picks") for text in report.warnings)
    assert any(text.startswith("TS_1: picks without truth") for text in report.warnings)


def test_what_a_killed_writer_left_is_no_tomogram_that_hides_the_others(tmp_path):
    truth, picks = make_folders(tmp_path, instances=False)
    for path in truth.glob("*.mrc"):
        path.unlink()
    (truth / ".TS_01.123-0a1b2c3d.mrc").write_bytes(b"half")
    (picks / ".TS_03.123-0a1b2c3d.csv").write_text("x,y")
    (picks / "TS_01.csv").unlink()
    report = evaluate(truth, picks, EvaluateOptions(rule="distance"))
    assert (report.overall["TP"], report.overall["FN"]) == (25, 29)


def test_no_name_in_common_is_an_error(tmp_path):
    truth, picks = make_folders(tmp_path)
    for path in list(picks.iterdir()):
        path.rename(path.with_name("x" + path.name))
    with pytest.raises(InputError, match=r"expected TS\.02 b, TS_01, found xTS\.02 b, xTS_01"):
        evaluate(truth, picks)
    with pytest.raises(InputError, match="no such folder"):
        evaluate(tmp_path / "nowhere", picks)


def test_candidates_of_a_pick_run_make_the_curve(tmp_path):
    truth, picks = make_folders(tmp_path, names=("TS_01",))
    low = table([SPREAD.positions_zyx_vox[25], [1, 1, 1]], [2, 1], [0.15, 0.12])
    full = CoordinateTable.concatenate([evaluate(truth, picks).tomograms[0].scored, low])
    write_coordinates(picks / "TS_01_candidates.csv", full)
    (picks / "manifest.json").write_text(json.dumps({"format_version": 1, "command": "pick", "items": [
        {"name": "TS_01", "candidates": "elsewhere/TS_01_candidates.csv"}]}))
    report = evaluate(truth, picks)
    assert report.warnings == ()
    assert report.overall["TP"] == 25
    assert (report.curve.tp[-1], report.curve.thresholds.min()) == (26, 0.12)


def test_a_damaged_table_fails_alone(tmp_path):
    truth, picks = make_folders(tmp_path)
    (picks / "TS_01.csv").write_text("class,x,y,z,score\n1,2,three,4,0.5\n")
    report = evaluate(truth, picks)
    assert list(report.failed) == ["TS_01"]
    assert report.overall["TP"] == 25
    (picks / "TS.02 b.csv").write_text("class,x,y,z,score\n1,2,three,4,0.5\n")
    with pytest.raises(InputError, match="no tomogram could be evaluated"):
        evaluate(truth, picks)


def test_distance_rule_says_what_it_lacks(tmp_path):
    truth, picks = make_folders(tmp_path, classes=False, instances=False)
    with pytest.raises(InputError, match="--radius-angstrom"):
        evaluate(truth, picks)
    with pytest.raises(InputError, match=r"TS\.02 b_instances\.mrc"):
        evaluate(truth, picks, EvaluateOptions(rule="mask"))
    assert evaluate(truth, picks, EvaluateOptions(radius_angstrom=30)).overall["TP"] == 50


def test_margin_leaves_out_both_sides_and_their_picks(tmp_path):
    truth, picks = make_folders(tmp_path, names=("TS_01",))
    report = evaluate(truth, picks, EvaluateOptions(margin=6))
    inside = ((SPREAD.positions_zyx_vox >= 5.5) & (SPREAD.positions_zyx_vox <= np.array(SHAPE) - 6.5)).all(axis=1)
    assert report.overall["n_truth"] == inside.sum() == 3
    assert (report.overall["TP"], report.overall["FP"]) == (int(inside[:25].sum()), 2)


def test_params_items_replace_folders(tmp_path):
    truth, picks = make_folders(tmp_path, instances=False)
    params = {"options": {"rule": "distance", "beta": 2}, "classes": [{"id": 1, "name": "a", "diameter_angstrom": 60},
                                                                     {"id": 2, "name": "b", "diameter_angstrom": 60}],
              "items": [{"name": "one", "truth": str(truth / "TS_01.csv"), "picks": str(picks / "TS_01.csv"),
                         "voxel_size": 10}]}
    report = evaluate(params=params)
    assert report.overall["TP"] == 25
    assert report.overall["beta"] == 2
    assert [row["name"] for row in report.per_class] == ["a", "b"]
    params["items"][0]["pick"] = params["items"][0].pop("picks")
    with pytest.raises(InputError, match="did you mean 'picks'"):
        evaluate(params=params)
    with pytest.raises(InputError, match="--truth DIR"):
        evaluate()


def test_hollow_masks_are_pointed_out(tmp_path):
    truth, picks = make_folders(tmp_path, names=("TS_01",))
    mask = balls(SPREAD)
    mask[balls(SPREAD, 1.5) > 0] = 0
    write_volume(truth / "TS_01_instances.mrc", mask, 10.0)
    report = evaluate(truth, picks)
    assert report.overall["TP"] == 0
    assert any("27 of 27 particles lie outside their own instance mask" in text for text in report.warnings)


@pytest.mark.long
def test_command_prints_tables_or_json(tmp_path, capsys):
    truth, picks = make_folders(tmp_path)
    argv = ["evaluate", "--truth", str(truth), "--picks", str(picks)]
    assert main([*argv, "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    rows = {line.split("  ")[0]: line.split() for line in text.splitlines() if line}
    assert rows["all"][1:6] == ["54", "54", "50", "4", "4"]
    assert "best threshold for F1: 0.5 " in text
    assert main([*argv, "--json", "--rule", "distance"]) == 0
    assert json.loads(capsys.readouterr().out)["overall"]["TP"] == 50
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "report.html", "evaluation.json", "curve.csv", "reliability.csv", "manifest.json", "slices_1.png",
        "slices_2.png"}
    lines = (tmp_path / "out" / "curve.csv").read_text().splitlines()
    assert lines[0] == "threshold,TP,FP,FN,precision,recall,F1,Fbeta"
    assert [float(v) for v in lines[-1].split(",")[:4]] == [0.2, 50, 4, 4]


def test_command_exit_codes(tmp_path, capsys):
    truth, picks = make_folders(tmp_path)
    (picks / "TS_01.csv").write_text("class,x,y,z,score\n1,2,three,4,0.5\n")
    assert main(["evaluate", "--truth", str(truth), "--picks", str(picks)]) == 1
    assert "failed: TS_01:" in capsys.readouterr().out
    assert main(["evaluate", "--truth", str(truth)]) == 2
    assert main(["evaluate", "--truth", str(truth), "--picks", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") >= 2


def test_a_threshold_below_the_one_of_the_picks_matches_the_candidates(tmp_path):
    """The table of picks was cut at 0.5; whoever asks for 0.2 gets what 0.2 would have picked."""
    truth = table(SPREAD.positions_zyx_vox)
    candidates = table(truth.positions_zyx_vox, scores=np.linspace(0.95, 0.1, len(truth)))
    for name, one in (("t", truth), ("p", candidates.select(candidates.scores >= 0.5)), ("c", candidates)):
        write_coordinates(tmp_path / f"{name}.csv", one)
    items = [{"name": "x", "truth": str(tmp_path / "t.csv"), "picks": str(tmp_path / "p.csv"),
              "candidates": str(tmp_path / "c.csv"), "voxel_size": 10.0}]
    found = {threshold: evaluate(options=EvaluateOptions(radius_angstrom=20, threshold=threshold),
                                 params={"items": items}).overall["TP"] for threshold in (0.0, 0.2, 0.7)}
    assert found == {threshold: int((candidates.scores >= (threshold or 0.5)).sum()) for threshold in found}


def test_particles_pass_for_the_class_of_their_best_candidate():
    truth = CoordinateTable(np.array([[5, 5, 5], [5, 5, 30], [30, 5, 5], [30, 30, 30]], float), np.array([1, 1, 4, 4]),
                            np.full(4, np.nan))
    found = CoordinateTable(np.array([[5, 5, 6], [5, 6, 5], [5, 5, 30], [30, 5, 5], [31, 5, 5], [30, 30, 31]], float),
                            np.array([1, 4, 4, 4, 1, 4]), np.array([0.9, 0.5, 0.8, 0.6, 0.7, 0.2]))
    counts = taken_for(truth, found, {1: 3.0, 4: 3.0}, 0.3)
    assert counts.tolist() == [[1, 1, 0], [1, 0, 1]]
    backwards = found.select(np.arange(6)[::-1])
    assert taken_for(truth, backwards, {1: 3.0, 4: 3.0}, 0.3).tolist() == counts.tolist()
    nothing = found.select(np.zeros(0, int))
    assert taken_for(truth, nothing, {1: 3.0, 4: 3.0}, 0.3).tolist() == [[0, 0, 2], [0, 0, 2]]
    assert taken_for(nothing, found, {1: 3.0, 4: 3.0}, 0.3).sum() == 0

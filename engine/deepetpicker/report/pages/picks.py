"""The page of a picking: what to look into, scores against thresholds, what picks look like, outliers, what went in."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from deepetpicker.config import PickOptions
from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.io.volumes import release_pages
from deepetpicker.outliers import LIMIT
from deepetpicker.report import PictureStyle, choose_planes, score_histogram, slices_with_picks
from deepetpicker.report.charts import counts_figure, depth_figure
from deepetpicker.report.pages.crops import (
    EDGE_DIAMETERS,
    Group,
    Spot,
    Tomograms,
    groups_of,
    rings,
    spots_of,
    spread,
    width,
)
from deepetpicker.report.pages.facts import (
    model_facts,
    option_facts,
    place_cells,
    run_facts,
    said_of_missing,
    short_path,
)
from deepetpicker.report.pages.markup import Chart, chart, duration, number, plural, render
from deepetpicker.report.pages.tally import EDGE_SHARE, TomogramRow, at_the_edge, depths_of, rows_of
from deepetpicker.report.rounds import name_of
from deepetpicker.report.slices import CLASS_LOOKS, DEFAULT_DIAMETER_VOX
from deepetpicker.report.sources import PickedTomogram, PickRun

SHOWN_SLICES = 4
DASHES = {"-": "", "--": "4 2.5", "-.": "7 2 1 2", ":": "1.5 2"}


def picks_page(run: PickRun, crops: int, names: Optional[Mapping[str, str]] = None) -> str:
    """Return the page of a picking as HTML text.

    Parameters
    ----------
    run : PickRun
        Tomograms that failed included; it may have no picks.
    crops : int
        Crops in each group of a contact sheet; 0 leaves pictures out.
    names : mapping of str to str, optional
        What model files, by their paths, are called.
    """
    ids = [one.id for one in run.classes]
    rows = rows_of(run.tomograms, ids)
    marked = [i for i, row in enumerate(rows) if row.remarks]
    opener = Tomograms({one.name: (one.place.path, one.place.voxel_size_ang) for one in run.tomograms})
    sheets = [(one.name, _groups(run, one, opener, crops)) for one in run.classes] if crops else []
    n_picks = sum(row.n_picks for row in rows)
    done = [row for row in rows if not row.is_failed]
    kinds = [one.name for one in run.classes] if len(run.classes) > 1 else ["picks"]
    return render("picks.html.jinja", {
        "heading": f"{plural(n_picks, 'pick')} in {plural(len(done), 'tomogram')}",
        "subtitle": _subtitle(run, names or {}),
        "failed": [(one.name, one.reason) for one in run.tomograms if one.reason],
        "warnings": _warnings(run, rows), "tiles": _tiles(run, done), "names": kinds,
        "classes": [_class_row(run, one) for one in run.classes], "charts": _charts(run), "sheets": sheets,
        "rings": rings(), "width": width(), "edge": EDGE_DIAMETERS, "absent": said_of_missing(opener),
        "slices": _slices(run, rows, opener) if crops else [], "legend": _legend(run), "counts": _counts(run, rows),
        "rows": [_cells(row) for row in rows], "total": _total(done), "marked": marked, "deviations": LIMIT,
        "model": model_facts(run.card), "run": run_facts(run.manifest),
        "options": option_facts(PickOptions(), run.manifest.get("options") or {}),
        "inputs": [[one.name, *place_cells(one.place, "")] for one in run.tomograms]})


def _subtitle(run: PickRun, names: Mapping[str, str]) -> str:
    """Return one sentence that says what picked what."""
    started = str(run.manifest.get("started", "")).replace("T", " ")
    kinds = ", ".join(one.name for one in run.classes)
    model, name = short_path(run.model) or "nobody knows", name_of(run.model, names)
    return f"{kinds or 'Nothing'}, picked with the model {f'of {name} ({model})' if name else model}" + (
        f", {started}." if started else ".")


def _warnings(run: PickRun, rows: Sequence[TomogramRow]) -> List[str]:
    """Return what the user should know before he uses the picks."""
    lines = list(run.warnings)
    lines += [f"not picked yet: {', '.join(run.missing)}"] if run.missing else []
    if run.card is None and run.model:
        lines.append(f"the model {short_path(run.model)} is not there any more: what it says about itself is missing "
                     "below")
    used = [one.name for one in run.tomograms if run.card and run.card.use_of(one.name) in ("training", "both")]
    if used:
        lines.append(f"the model was trained on {', '.join(used)}: picks there are better than in new tomograms")
    verdict = (run.card.training.get("verdict") or {}) if run.card else {}
    if verdict.get("grade") in ("doubtful", "not usable"):
        lines.append(f"the model is {verdict.get('text')}")
    remarks = [(row.name, remark) for row in rows if not row.is_failed for remark in row.remarks]
    lines += [f"{name}: {remark}" for name, remark in remarks
              if not any(text.startswith(f"{name}: ") and remark in text for text in run.warnings)]
    near, expected = at_the_edge(run.tomograms, {one.id: one.diameter_ang for one in run.classes})
    if near > max(EDGE_SHARE, 1.5 * expected):
        lines.append(f"{near:.0%} of the picks lie within half a diameter of the top or bottom of their tomogram, "
                     f"where {expected:.0%} would lie by chance: look at them, or leave the edges out with a mask")
    if not any(row.n_picks for row in rows):
        every = np.concatenate([np.zeros(0), *(one.candidates.scores for one in run.tomograms)])
        lines.append(f"nothing was picked; the best candidate scores {every.max():.2f}: a lower threshold needs no new "
                     "run" if every.size else "nothing was picked, and there is no candidate at any score: are voxel "
                     "size, contrast and diameter those of the training?")
    return lines


def _tiles(run: PickRun, done: Sequence[TomogramRow]) -> List[Tuple[str, str, str]]:
    """Return the headline numbers."""
    counts = [row.n_picks for row in done]
    every = sorted(number(t, 2) for one in run.tomograms for t in one.thresholds.values())
    limits = " to ".join(dict.fromkeys([every[0], every[-1]])) if every else "-"
    seconds = [row.seconds for row in done if row.seconds is not None]
    n_candidates = sum(row.n_candidates for row in done)
    range_ = f"{min(counts)} to {max(counts)}" if counts else ""
    return [("picks", str(sum(counts)), f"of {plural(n_candidates, 'candidate')}"),
            ("tomograms", str(len(done)), f"of {len(run.tomograms) + len(run.missing)}"),
            ("picks per tomogram", f"{np.median(counts):g}" if counts else "-", f"median; {range_}" if counts else ""),
            ("threshold", limits, "lowest score of a pick" + (", by class" if " " in limits else "")),
            ("time per tomogram", duration(float(np.mean(seconds)) if seconds else None),
             str((run.manifest.get("outputs") or {}).get("device") or ""))]


Parts = List[Tuple[PickedTomogram, float, CoordinateTable, CoordinateTable]]


def _of_class(run: PickRun, one: ParticleClass) -> Parts:
    """Return each tomogram with the threshold, picks and other candidates (below the threshold) of a class."""
    found = []
    for tomogram in run.tomograms:
        limit = tomogram.thresholds.get(one.id, float("nan"))
        picks = tomogram.picks.select(tomogram.picks.class_ids == one.id).sorted_by_score()
        others = tomogram.candidates.select((tomogram.candidates.class_ids == one.id)
                                            & ~(tomogram.candidates.scores >= limit)).sorted_by_score()
        found.append((tomogram, limit, picks, others if limit == limit else others.select(np.zeros(len(others), bool))))
    return found


def _class_row(run: PickRun, one: ParticleClass) -> List[str]:
    """Return the numbers of a class as cells."""
    parts = _of_class(run, one)
    scores = np.concatenate([np.zeros(0), *(picks.scores for _, _, picks, _ in parts)])
    limits = sorted({limit for _, limit, _, _ in parts if limit == limit})
    trained = {int(p["class_id"]): p for p in (run.card.training.get("picks") or [])} if run.card else {}
    score = trained.get(one.id, {})
    return [f"{one.name} ({one.id})", f"{one.diameter_ang:.4g} Å" if one.diameter_ang else "-", str(len(scores)),
            str(sum(len(others) for _, _, _, others in parts)), " and ".join(number(limit) for limit in limits) or "-",
            number(float(np.median(scores)) if len(scores) else None),
            _trained(score, run.card is not None and run.card.is_partial)]


def _trained(score: Mapping[str, Any], partial: bool) -> str:
    """Return how well the training picked a class: by recall where many particles were not annotated."""
    if not score.get("n_true"):
        return "-"
    figure = f"recall {number(score['recall'])}" if partial else f"F1 {number(score['f1'])}"
    return f"{figure} on {score['n_true']}"


def _charts(run: PickRun) -> List[Chart]:
    """Return the scores of each class with its threshold, and the depths."""
    shown = []
    for one in run.classes:
        parts = _of_class(run, one)
        picked = np.concatenate([np.zeros(0), *(picks.scores for _, _, picks, _ in parts)])
        others = np.concatenate([np.zeros(0), *(rest.scores for _, _, _, rest in parts)])
        limits = {limit for _, limit, _, _ in parts if limit == limit}
        figure = score_histogram(picked, others, limits.pop() if len(limits) == 1 else float("nan"),
                                 ("picks", "below the threshold"))
        shown.append(chart(f"Scores of {one.name}", "A gap between the two says that the threshold matters little.",
                           figure))
    depths = depths_of(run.tomograms, [one.id for one in run.classes])
    if depths is not None:
        names = {f"{one.name}": depths.counts[one.id] for one in run.classes}
        shown.append(chart("Depth", "All tomograms together. Ice, borders and the missing wedge show here.",
                           depth_figure(depths.edges, names, depths.is_relative)))
    return shown


def _groups(run: PickRun, one: ParticleClass, opener: Tomograms, crops: int) -> List[Group]:
    """Return the contact sheets of a class: best, borderline and rejected."""
    above: List[Tuple[float, Spot]] = []
    below: List[Tuple[float, Spot]] = []
    for tomogram, limit, picks, others in _of_class(run, one):
        voxel = tomogram.place.voxel_size_ang
        diameter = one.diameter_ang / voxel if voxel and one.diameter_ang else DEFAULT_DIAMETER_VOX
        for table, target in ((picks, above), (others, below)):
            spots = spots_of(tomogram.name, table, diameter)
            target += [(spot.score - (limit if limit == limit else 0.0), spot) for spot in spots]
    above.sort(key=lambda pair: -pair[1].score)
    below.sort(key=lambda pair: -pair[0])
    best, rest = [spot for _, spot in above[:crops]], sorted(above[crops:], key=lambda pair: -pair[0])
    half = crops - crops // 2
    kept, lost = [spot for _, spot in rest[-half:]], [spot for _, spot in below[:half]]
    left = [spot for _, spot in below[half:]]
    return groups_of([
        ("Best picks", f"The best of {plural(len(above), 'pick')}.", best, "There are no picks."),
        ("Borderline, just picked", "The picks nearest to the threshold.", kept,
         "All picks are shown above." if above else "There are no picks."),
        ("Borderline, just rejected", "The candidates nearest to the threshold, below it.", lost,
         "No candidate scores below the threshold."),
        ("Rejected", f"Some of {plural(len(left), 'other candidate')}, from the best to the worst.",
         [left[i] for i in spread(len(left), crops)], "There are no others.")], opener)


def _slices(run: PickRun, rows: Sequence[TomogramRow], opener: Tomograms) -> List[Tuple[str, Any]]:
    """Return one plane of a few tomograms: outliers first, then from the fewest to the most picks."""
    order = sorted((i for i, row in enumerate(rows) if not row.is_failed), key=lambda i: rows[i].n_picks)
    odd = [i for i in order if rows[i].remarks][:SHOWN_SLICES // 2]
    usual = [i for i in order if i not in odd]
    chosen = odd + [usual[i] for i in spread(len(usual), SHOWN_SLICES - len(odd))]
    shown = []
    for i in chosen:
        one = run.tomograms[i]
        if one.name in opener.missing or not one.place.path:
            continue
        volume = opener(one.name)
        plane = choose_planes(volume.shape_zyx[0], [one.picks], 1)
        style = PictureStyle(planes=plane, voxel_size_ang=volume.voxel_size_ang, bare=True,
                             diameters_ang={c.id: c.diameter_ang for c in run.classes}, looks=_looks(run))
        shown.append((f"{one.name}, z = {plane[0]}: {plural(rows[i].n_picks, 'pick')} in all",
                      slices_with_picks(volume.data_zyx, one.picks, style=style)))
        release_pages(volume.data_zyx)
    return shown


def _looks(run: PickRun) -> Dict[int, Tuple[str, str]]:
    """Return colour and dashes of each class, the same in all pictures."""
    return {one.id: CLASS_LOOKS[i % len(CLASS_LOOKS)] for i, one in enumerate(run.classes)}


def _legend(run: PickRun) -> List[Tuple[str, str, str]]:
    """Return name, colour and dashes of each class for the legend of the slices."""
    return [(one.name, colour, DASHES[dashes]) for one, (colour, dashes) in zip(run.classes, _looks(run).values())]


def _counts(run: PickRun, rows: Sequence[TomogramRow]) -> Chart:
    """Return the chart of the picks per tomogram."""
    done = [row for row in rows if not row.is_failed]
    counts = np.array([row.counts for row in done], int).reshape(len(done), len(run.classes))
    odd = [i for i, row in enumerate(done) if row.remarks]
    figure = counts_figure([row.name for row in done], counts, [one.name for one in run.classes], odd)
    return chart("Picks per tomogram", "Tomograms that are unlike the others are marked.", figure, True,
                 f"Picks in {plural(len(done), 'tomogram')}")


def _cells(row: TomogramRow) -> List[str]:
    """Return a row of the table of tomograms."""
    if row.is_failed:
        return [row.name, *["-"] * (len(row.counts) or 1), "-", "-", "-", duration(row.seconds), "; ".join(row.remarks)]
    return [row.name, *map(str, row.counts), str(row.n_candidates), number(row.score), number(row.depth, 2),
            duration(row.seconds), "; ".join(row.remarks)]


def _total(done: Sequence[TomogramRow]) -> List[str]:
    """Return the last row of the table of tomograms; none for a single tomogram."""
    if len(done) < 2:
        return []
    seconds = [row.seconds for row in done if row.seconds is not None]
    return ["all", *(str(sum(column)) for column in zip(*(row.counts for row in done))),
            str(sum(row.n_candidates for row in done)), "", "", duration(sum(seconds)) if seconds else "-", ""]

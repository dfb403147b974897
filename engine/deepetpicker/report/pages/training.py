"""The page of a training: what to think of the model, how it got there, what it finds, what went in."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from deepetpicker.config import TrainOptions
from deepetpicker.evaluation import match_by_distance
from deepetpicker.io.classes import ParticleClass
from deepetpicker.report import score_histogram, training_figure
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
from deepetpicker.report.pages.facts import model_facts, option_facts, place_cells, run_facts, said_of_missing
from deepetpicker.report.pages.markup import Chart, chart, duration, number, plural, render
from deepetpicker.report.rounds import Round, rounds_figure, rounds_of_file
from deepetpicker.report.sources import HeldOut, Place, TrainingRun

GRADES = {"good": "The model is good", "doubtful": "The model is doubtful", "not usable": "The model is not usable"}
ROLES = {"training": "training", "validation": "validation", "both": "training; a slab for validation"}
CHOSEN = {"picks": "has the lowest loss among those with the best picks on the held-out part",
          "voxels": "has the best voxels on the held-out part",
          "last": "is the last one, because the held-out part cannot choose"}
REFITTED = "Then it went on with that part, too: the network that picks has seen it, and no figure here is its own."
PARTIAL = ("Many particles are not annotated: a pick that hits nothing annotated may well be right, so that recall "
           "counts, and precision and F1 say little.")


def training_page(run: TrainingRun, crops: int, names: Optional[Mapping[str, str]] = None) -> str:
    """Return the page of a training as HTML text.

    Parameters
    ----------
    run : TrainingRun
        May still be running.
    crops : int
        Crops in each group of a contact sheet; 0 leaves the sheets out.
    names : mapping of str to str, optional
        What model files, by their paths, are called.
    """
    picks, training = _picks(run), run.card.training if run.card else {}
    classes: Sequence[ParticleClass] = run.card.classes if run.card else ()
    opener = Tomograms({name: (place.path, place.voxel_size_ang) for name, place in run.places.items()})
    judged = [_judged(run, one, picks.get(one.id, {})) for one in classes] if run.held_out else []
    sheets = [(one.name, one.groups(run.places, opener, crops)) for one in judged] if crops else []
    return render("training.html.jinja", {
        "name": " and ".join(one.name for one in classes) or run.name, "subtitle": _subtitle(run),
        "verdict": _verdict(run), "warnings": _warnings(run), "partial": PARTIAL if run.is_partial else "",
        "tiles": _tiles(run, picks), "classes": [_class_row(run, one, picks.get(one.id, {})) for one in classes],
        "rounds": _rounds(run, names), "refitted": REFITTED if run.card and run.card.is_refitted else "",
        "charts": _charts(run, judged), "sheets": sheets, "rings": rings(), "width": width(), "edge": EDGE_DIAMETERS,
        "absent": said_of_missing(opener), "items": _items(run), "model": model_facts(run.card),
        "options": option_facts(TrainOptions(), run.manifest.get("options") or training.get("options") or {}),
        "run": run_facts(run.manifest)})


def _picks(run: TrainingRun) -> Dict[int, Mapping[str, Any]]:
    """Return how well each class was picked on the held-out part, by id."""
    found = (run.manifest.get("outputs") or {}).get("classes") or (run.card.training.get("picks") if run.card else [])
    return {int(one["class_id"]): one for one in found or []}


def _subtitle(run: TrainingRun) -> str:
    """Return one sentence that says what was trained on what."""
    items = run.manifest.get("items") or (run.card.training.get("items") if run.card else None) or []
    if not run.card:
        return (f"The training has not ended: {plural(len(run.rows), 'epoch')} so far. The same command goes on from "
                "the last whole epoch.")
    model = f"{run.model}, made {run.card.created.replace('T', ' ') or 'some time'}"
    if not items:
        return f"The model {model}."
    count = sum(int(item.get("particles") or 0) for item in items)
    return (f"{plural(count, 'particle')} in {plural(len(items), 'tomogram')}, at {run.card.voxel_size_ang:.4g} Å per "
            f"voxel. The model is {model}.")


def _verdict(run: TrainingRun) -> Dict[str, Any]:
    """Return the verdict with its heading; empty for a model that has none."""
    found = (run.manifest.get("outputs") or {}).get("verdict") or (run.card.training.get("verdict") if run.card else {})
    if not found:
        return {}
    grade, reasons = str(found.get("grade", "")), found.get("reasons") or []
    figures = str(found.get("text", "")).partition(": ")[2] if not reasons else ""
    return {"look": grade.replace(" ", "-"), "heading": GRADES.get(grade, f"Verdict: {grade}"), "reasons": [
        {key: str(one.get(key, "")).rstrip(".") for key in ("cause", "found", "advice")} for one in reasons],
        "figures": figures[:1].upper() + figures[1:]}


def _warnings(run: TrainingRun) -> List[str]:
    """Return the warnings of the run that the verdict does not repeat."""
    told = {str(one.get("found")) for one in ((run.manifest.get("outputs") or {}).get("verdict") or {}).get(
        "reasons", [])}
    every = run.manifest.get("warnings") or (run.card.warnings if run.card else [])
    return [text for text in every if text not in told]


def _tiles(run: TrainingRun, picks: Mapping[int, Mapping[str, Any]]) -> List[Tuple[str, str, str]]:
    """Return the headline numbers."""
    if not run.card:
        return []
    judged = [one for one in picks.values() if one.get("n_true")]
    held = plural(sum(int(one["n_true"]) for one in judged), "held-out particle")
    shown = [("recall", "recall")] if run.is_partial else [
        ("f1", "F1 of the picks"), ("precision", "precision"), ("recall", "recall")]
    held += " at its threshold" if run.is_partial else ""
    tiles = [(name, number(float(np.mean([one[key] for one in judged]))), held if key == shown[0][0] else "")
             for key, name in shown] if judged else []
    training = run.card.training
    epochs = int(training.get("epochs") or len(run.card.validation))
    if "kept_epoch" in training:
        tiles.append(("kept epoch", f"{training['kept_epoch']}", f"of 0 to {epochs - 1}"))
    if run.manifest.get("seconds"):
        tiles.append(("time", duration(run.manifest["seconds"]), plural(epochs, "epoch")))
    return tiles


def _class_row(run: TrainingRun, one: ParticleClass, score: Mapping[str, Any]) -> List[str]:
    """Return what is known of a class as cells."""
    assert run.card is not None
    voxel, counted = run.card.voxel_size_ang, run.card.training.get("particles") or {}
    held = score.get("n_true")
    known = ("recall",) if run.is_partial else ("f1", "precision", "recall", "average_precision")
    figures = [number(score.get(key)) if held and key in known else "-"
               for key in ("f1", "precision", "recall", "average_precision")]
    return [f"{one.name} ({one.id})", f"{one.diameter_ang:.4g} Å, {one.diameter_ang / voxel:.1f} voxels",
            str(counted.get(str(one.id), "-")), str("-" if held is None else held), *figures,
            number(run.card.thresholds[one.id])]


def _rounds(run: TrainingRun, names: Optional[Mapping[str, str]]) -> Dict[str, Any]:
    """Return the models that went on from each other up to this one, as cells and a chart; empty for a first one."""
    rounds = rounds_of_file(run.model, names)
    if len(rounds) < 2:
        return {}
    caption = ("Filled: a round on its own held-out part. Open, with an arrow: the model it started from, on the same "
               "particles.")
    return {"cells": [_round_cells(one) for one in rounds], "partial": any(one.is_partial for one in rounds),
            "chart": chart("Rounds", caption, rounds_figure(rounds, ("f1", "labels")), True,
                           "; ".join(map(str, rounds)))}


def _round_cells(one: Round) -> List[str]:
    """Return what is known of a round as cells."""
    after = one.f1 if one.after is None else one.after
    change = one.after - one.before if one.after is not None and one.before is not None else None
    nothing = one.particles is None
    return [f"{one.number}: {one.name}", "-" if nothing else str(one.particles), "-" if nothing else str(one.negatives),
            "-" if nothing else str(one.boxes), str(one.n_true or "-"), number(one.recall),
            number(one.before), number(after), "-" if change is None else f"{change:+.3f}",
            ", ".join(f"{name} {value:.3f}" for name, value in one.thresholds.items()) or "-"]


class _Judged:
    """The candidates of one class in the held-out part, matched with what is annotated there."""

    def __init__(self, one: ParticleClass, threshold: float, matched: List[Tuple[HeldOut, np.ndarray, np.ndarray]]
                 ) -> None:
        self.one, self.name, self.threshold, self.matched = one, one.name, threshold, matched

    def scores(self) -> Tuple[np.ndarray, np.ndarray]:
        """Return the scores of the candidates that hit, and of the others."""
        hit = [held.found.scores[is_hit] for held, is_hit, _ in self.matched]
        other = [held.found.scores[~is_hit] for held, is_hit, _ in self.matched]
        return np.concatenate([np.zeros(0), *hit]), np.concatenate([np.zeros(0), *other])

    def groups(self, places: Mapping[str, Place], opener: Tomograms, crops: int) -> List[Group]:
        """Return the contact sheets: found, doubtful, false, missed."""
        hits: List[Spot] = []
        false: List[Spot] = []
        missed: List[Spot] = []
        for held, is_hit, is_found in self.matched:
            voxel = places.get(held.name, Place()).voxel_size_ang
            diameter = self.one.diameter_ang / voxel if voxel else 20.0
            spots = spots_of(held.name, held.found, diameter)
            picked = held.found.scores >= self.threshold
            hits += [spot for spot, good, above in zip(spots, is_hit, picked) if good and above]
            false += [spot for spot, good, above in zip(spots, is_hit, picked) if above and not good]
            missed += spots_of(held.name, held.truth.select(~is_found), diameter)
        hits.sort(key=lambda spot: -spot.score)
        false.sort(key=lambda spot: -spot.score)
        best, rest = hits[:crops], hits[crops:]
        return groups_of([
            ("Found, best scores", f"The best of {plural(len(hits), 'hit')}.", best, "Not one particle was found."),
            ("Found, nearest to the threshold", f"Hits that score just above {self.threshold:.3f}.", rest[-crops:],
             "All hits are shown above." if hits else "Not one particle was found."),
            ("Picked, but nothing is annotated there", f"{plural(len(false), 'pick')}, best scores first: false, or "
             "particles that nobody annotated.", false[:crops], "None: every pick hits an annotated particle."
             if hits else "None: there are no picks."),
            ("Annotated, but not picked", f"{len(missed)} missed: hard ones, or annotations that are off.",
             [missed[i] for i in spread(len(missed), crops)], "None: every annotated particle was picked.")], opener)


def _judged(run: TrainingRun, one: ParticleClass, score: Mapping[str, Any]) -> _Judged:
    """Return the candidates of a class matched with what is annotated: above the threshold first, then the others."""
    assert run.card is not None
    threshold = float(score.get("threshold") or run.card.thresholds[one.id])
    matched = []
    for held in run.held_out:
        mine = HeldOut(held.name, held.found.select(held.found.class_ids == one.id).sorted_by_score(),
                       held.truth.select(held.truth.class_ids == one.id))
        voxel = run.places.get(held.name, Place()).voxel_size_ang or run.card.voxel_size_ang
        radius = one.diameter_ang / voxel / 2
        picked = mine.found.select(mine.found.scores >= threshold)
        first = match_by_distance(mine.truth, picked, radius)
        every = match_by_distance(mine.truth, mine.found, radius)
        is_hit = np.concatenate([first.is_hit, every.is_hit[len(picked):]])
        matched.append((mine, is_hit, first.is_found))
    return _Judged(one, threshold, matched)


def _charts(run: TrainingRun, judged: Sequence[_Judged]) -> List[Chart]:
    """Return the curves, and the scores of each class on the held-out part."""
    rows = [{name: cell for name, cell in row.items() if cell not in ("", None)} for row in run.rows]
    why = CHOSEN.get(str(run.card.training.get("chosen_by")), "") if run.card else ""
    kept = f"the epoch that is kept; it {why}" if why else "the best epoch so far"
    shown = [chart("Epochs", f"Loss, and how well the held-out part is picked. The dotted line is {kept}.",
                   training_figure(rows, run.is_partial), True,
                   f"Loss and scores over {plural(len(rows), 'epoch')}")]
    for one in judged:
        hit, other = one.scores()
        caption = "Candidates in the held-out part, at any score."
        shown.append(chart(f"Scores of {one.name}", caption, score_histogram(
            hit, other, one.threshold, ("hits", "nothing annotated there"))))
    return shown


def _items(run: TrainingRun) -> List[List[str]]:
    """Return the tomograms as cells."""
    items = run.manifest.get("items") or (run.card.training.get("items") if run.card else None) or []
    return [[str(item.get("name", "")), ROLES.get(str(item.get("role")), str(item.get("role", ""))),
             str(item.get("particles", "-")), *place_cells(run.places.get(str(item.get("name")), Place()),
                                                           str(item.get("tomogram") or ""))] for item in items]

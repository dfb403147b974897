"""Score picks of any number of tomograms against their truth."""

from __future__ import annotations

import logging
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from deepetpicker.config import EvaluateOptions, from_mapping, read_params
from deepetpicker.errors import DeepETPickerError, InputError
from deepetpicker.evaluation import measures
from deepetpicker.evaluation.classes import matched_classes
from deepetpicker.evaluation.curves import Hits, ScoreCurve, curve_of, hits_of, together
from deepetpicker.evaluation.pairing import EvaluationItem, PathLike, items_from_folders, items_from_params
from deepetpicker.evaluation.reliability import Reliability, reliability
from deepetpicker.evaluation.results import EvaluationReport, TomogramResult
from deepetpicker.evaluation.tomogram import Setting, evaluate_tomogram, warn
from deepetpicker.io.classes import classes_from_params, read_classes
from deepetpicker.io.manifest import Manifest

log = logging.getLogger(__name__)

HOLLOW_SHARE = 0.05

Params = Union[PathLike, Mapping[str, Any], None]


def evaluate(truth: PathLike = "", picks: PathLike = "", options: Optional[EvaluateOptions] = None,
             params: Params = None) -> EvaluationReport:
    """Score picks against known positions.

    Parameters
    ----------
    truth, picks : path
        Folders whose tables are paired by name; not needed when ``params`` lists items.
    options : EvaluateOptions, optional
        Hit rule, radius (angstrom), threshold and so on; default: the options in ``params``, else the defaults.
    params : path or mapping, optional
        A params.json or its content: ``items`` (``name``, ``truth``, ``picks``, ``candidates``, ``tomogram``,
        ``instances``, ``voxel_size``) replaces the folders, ``classes`` replaces classes.json, ``class_map`` says which
        class of the picks is which of the truth (``1: 0, 2: 1``).

    Returns
    -------
    EvaluationReport
        A tomogram whose files cannot be used is in ``failed``; the others are evaluated.

    Raises
    ------
    InputError
        If nothing can be evaluated: no pair of tables, no radius for the distance rule, damaged files only.
    """
    content = params if isinstance(params, Mapping) else read_params(str(params)) if params else {}
    if options is None:
        options = from_mapping(EvaluateOptions, content.get("options") or {})
    manifest = Manifest("evaluate", options.to_dict())
    items, setting = _prepare(truth, picks, options, content, manifest)
    tomograms: List[TomogramResult] = []
    for item in items:
        _evaluate_item(item, setting, manifest, tomograms)
    if not tomograms:
        raise InputError(f"no tomogram could be evaluated; {manifest.items[0]['name']}: {manifest.items[0]['reason']}")
    return _summarise(tomograms, setting, manifest)


def _prepare(truth: PathLike, picks: PathLike, options: EvaluateOptions, content: Mapping[str, Any],
             manifest: Manifest) -> Tuple[List[EvaluationItem], Setting]:
    """Return the items and what holds for all of them."""
    items, classes, voxel_size_ang = items_from_params(content), classes_from_params(content), 0.0
    if items and (truth or picks):
        warn(manifest, "the parameter file lists items, so the folders of truth and picks are not used")
    if not items:
        if not truth or not picks:
            raise InputError("expected a folder of true particles and one of picks, or a parameter file with items: "
                             "give --truth DIR and --picks DIR, or --params FILE")
        items, left_out = items_from_folders(truth, picks)
        for text in left_out:
            warn(manifest, text)
        known, voxel_size_ang = read_classes(truth)
        classes = classes or known
    for item in items:
        if not item.picks:
            warn(manifest, f"{item.name}: no picks, all its particles count as missed; leave it out of the truth if it "
                 "was not picked")
    trained = [item.name for item in items if item.seen == "training"]
    if trained:
        warn(manifest, f"the model was trained on {len(trained)} of these {len(items)} tomograms "
             f"({', '.join(trained)}): the figures are better than on new tomograms")
    match = matched_classes(items, classes, picks, content)
    for text in match.warnings:
        warn(manifest, text)
    return items, Setting(options, {c.id: c for c in match.classes}, voxel_size_ang, match.of_picks)


def _evaluate_item(item: EvaluationItem, setting: Setting, manifest: Manifest,
                   tomograms: List[TomogramResult]) -> None:
    """Add the result of one tomogram, or record why there is none."""
    start = time.monotonic()
    try:
        result = evaluate_tomogram(item, setting, manifest)
    except DeepETPickerError as error:
        log.error("%s: %s", item.name, error)
        manifest.add_item(item.name, "failed", str(error))
        return
    tomograms.append(result)
    manifest.add_item(item.name, "done", seconds=round(time.monotonic() - start, 3), rule=result.rule,
                      truth=item.truth, picks=item.picks, n_truth=len(result.truth), n_picks=len(result.picks),
                      n_hits=result.match.tp)


def _summarise(tomograms: Sequence[TomogramResult], setting: Setting, manifest: Manifest) -> EvaluationReport:
    """Return the report over the tomograms that could be evaluated."""
    beta = setting.options.beta
    names = _class_names(tomograms, setting)
    confusion = np.sum([measures.confusion_matrix(t.truth.class_ids, t.picks.class_ids, t.match, list(names))
                        for t in tomograms], axis=0)
    curve = curve_of(together(Hits(t.scored.scores, t.adds_hit, len(t.truth)) for t in tomograms), beta)
    _warn_of_all(tomograms, curve, manifest)
    hits = {number: _class_hits(number, tomograms) for number in names}
    trust = {number: reliability(own.scores, own.adds_hit) for number, own in hits.items()}
    per_class = tuple(_class_row(number, name, row, curve_of(hits[number], beta), trust[number])
                      for (number, name), row in zip(names.items(), measures.class_metrics(confusion, beta)))
    overall = {**_localisation(tomograms, beta),
               "macro_F1": measures.macro_f1(per_class),
               "average_precision": curve.average_precision,
               "calibration_error": reliability(*together(hits.values())[:2]).error,
               **_counts(tomograms, curve, beta)}
    return EvaluationReport(
        overall, {t.name: _tomogram_row(t, beta) for t in tomograms}, per_class, confusion, tuple(names), names,
        {c.id: c.diameter_ang for c in setting.classes.values() if c.diameter_ang > 0}, curve,
        {metric: curve.best(metric) for metric in ("F1", "Fbeta")}, tuple(tomograms), setting.options.to_dict(),
        tuple(manifest.warnings), {i["name"]: i["reason"] for i in manifest.items if i["status"] == "failed"}, manifest,
        {names[number]: one for number, one in trust.items()})


def _warn_of_all(tomograms: Sequence[TomogramResult], curve: ScoreCurve, manifest: Manifest) -> None:
    """Warn of what keeps the figures of all tomograms from saying what they seem to say."""
    if any(len(t.scored) for t in tomograms) and not len(curve):
        warn(manifest, "the picks have no scores, so there are no curves and no best threshold")
    hollow, masked = sum(t.n_hollow for t in tomograms), sum(len(t.truth) for t in tomograms if t.rule == "mask")
    if hollow > HOLLOW_SHARE * masked:
        warn(manifest, f"the centres of {hollow} of {masked} particles lie outside their own instance mask (hollow "
             "particles?): by the mask rule even a perfect pick of them is no hit; consider the distance rule")


def _counts(tomograms: Sequence[TomogramResult], curve: ScoreCurve, beta: float) -> Dict[str, Any]:
    """Return how much there was of what, and how sure the ratios of all tomograms are."""
    counts = np.array([[t.match.tp, t.match.fp, t.match.fn] for t in tomograms])
    return {"beta": beta, "n_tomograms": len(tomograms), "n_truth": curve.n_truth,
            "n_picks": sum(len(t.picks) for t in tomograms),
            "confidence_over": "tomograms" if len(tomograms) > 1 else "particles",
            "confidence_95": measures.bootstrap_intervals(counts, beta)}


def _tomogram_row(one: TomogramResult, beta: float) -> Dict[str, Any]:
    """Return the metrics of one tomogram, by which rule they are, and whether the model had seen it."""
    return {"rule": one.rule, **({"seen": one.seen} if one.seen else {}),
            **measures.localisation_metrics(one.match, beta, one.voxel_size_ang)}


def _localisation(tomograms: Sequence[TomogramResult], beta: float) -> Dict[str, Any]:
    """Return counts, ratios and mean distances over all tomograms."""
    tp, fp, fn = (sum(getattr(t.match, n) for t in tomograms) for n in ("tp", "fp", "fn"))
    distances_vox = np.concatenate([t.match.distances_vox for t in tomograms])
    distances_ang = np.concatenate([t.match.distances_vox * (t.voxel_size_ang or np.nan) for t in tomograms])
    return {"TP": tp, "FP": fp, "FN": fn, **{n: float(v) for n, v in measures.ratios(tp, fp, fn, beta).items()},
            "AD_vox": float(distances_vox.mean()) if tp else float("nan"),
            "AD_ang": float(distances_ang.mean()) if tp else float("nan")}


def _class_row(number: int, name: str, row: Dict[str, float], curve: ScoreCurve, trust: Reliability) -> Dict[str, Any]:
    """Return the metrics of one class, with what its own scores say."""
    return {"id": number, "name": name, **row, "average_precision": curve.average_precision,
            "best_threshold": curve.best("F1")["threshold"], "best_F1": curve.best("F1")["value"],
            "calibration_error": trust.error}


def _class_hits(number: int, tomograms: Sequence[TomogramResult]) -> Hits:
    """Return the hits of the picks of one class on its own particles."""
    chosen = [one.scored.class_ids == number for one in tomograms]
    return hits_of((one.candidates.restrict(one.truth.class_ids == number, keep), one.scored.scores[keep])
                   for one, keep in zip(tomograms, chosen))


def _class_names(tomograms: Sequence[TomogramResult], setting: Setting) -> Dict[int, str]:
    """Return the name of every class that is listed or occurs, by ascending id."""
    tables = [table for t in tomograms for table in (t.truth, t.scored, t.picks)]
    found = {int(c) for table in tables for c in table.class_ids} | set(setting.classes)
    named: Dict[int, str] = {}
    for table in reversed(tables):
        named.update(table.class_names)
    named.update({c.id: c.name for c in setting.classes.values()})
    return {c: named.get(c) or f"class {c}" for c in sorted(found)}

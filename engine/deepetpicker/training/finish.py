"""The end of a training: the model with its card, the manifest, and the verdict."""

from __future__ import annotations

import datetime
import logging
import statistics
import sys
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np
import torch

from deepetpicker import __version__
from deepetpicker.calibration import scores_are
from deepetpicker.evaluation.thresholds import ClassScore
from deepetpicker.io.manifest import Manifest, read_manifest
from deepetpicker.io.modelcard import ModelCard
from deepetpicker.network.modelfile import save_model
from deepetpicker.network.resunet import ResUNet3D
from deepetpicker.preparation.normalise import QUANTILES
from deepetpicker.sampling.holdout import uses
from deepetpicker.training.job import Job
from deepetpicker.training.rounds import looked_of
from deepetpicker.training.seen import seen, with_scores
from deepetpicker.training.stages.refit import Refit
from deepetpicker.training.validation import BORDER, FLOOR
from deepetpicker.training.verdict import Change, Evidence, doubts, judge

log = logging.getLogger(__name__)


def finish(job: Job, best: Mapping[str, Any], curve: List[Dict[str, float]], manifest: Manifest,
           refit: Optional[Refit] = None) -> Dict[str, Any]:
    """Write the model file and the manifest, and say what to think of them; return the manifest.

    Parameters
    ----------
    job : Job
        The run.
    best : mapping
        The kept epoch, from ``EpochEnd.best``.
    curve : list of dict
        Metrics of every epoch.
    manifest : Manifest
        With inputs and warnings.
    refit : Refit, optional
        What went on with the held-out particles; its network is the one that picks where it is no worse.
    """
    is_refitted = refit is not None and refit.is_kept
    network = ResUNet3D(job.network.options)
    network.load_state_dict(refit.weights if refit and is_refitted else best["weights"])
    if refit and not is_refitted:
        manifest.warn(f"the refit is left out: {refit}")
    picks = [ClassScore(**one) for one in best["picks"]]
    for text in doubts(picks, job.gathered.classes, job.gathered.n_particles, job.validator.is_unknown):
        if text not in manifest.warnings:
            log.warning("%s: %s", job.run.model.stem, text)
        manifest.warn(text)
    change = job.origin.change(best.get("looked", ()), job.validator) if job.origin else None
    mistaken = job.validator.taken_for([looked_of(one) for one in best.get("looked", ())])
    card = make_card(job, best, curve, manifest.warnings)
    verdict = judge(_evidence(job, picks, curve, change, mistaken, is_refitted, card.intensity))
    card.training["verdict"] = verdict.to_dict()
    if job.origin:
        card.training.update(job.origin.to_dict(change))
        manifest.outputs.update(job.origin.to_dict(change))
    if job.found:
        card.training["found"] = job.found
        manifest.outputs["found"] = job.found
    if refit:
        card.training["refit"] = manifest.outputs["refit"] = refit.to_dict()
    if is_refitted:
        card.training["tomograms"] = [t.name for t in job.whole]
    save_model(job.run.model, network, card, judged=best["weights"] if is_refitted else None)
    for item, facts in zip(job.gathered.items, card.training["items"]):
        manifest.add_item(status="done", tomogram=item.tomogram, **facts)
    row, speed = curve[int(best["epoch"])], statistics.median(r["patches_per_second"] for r in curve)
    manifest.outputs.update(model=str(job.run.model), metrics=str(job.run.metrics), folder=str(job.run.path),
                            kept_epoch=int(best["epoch"]), chosen_by=job.chosen_by, threshold=best["threshold"],
                            sha256=job.run.digests(),
                            classes=card.training["picks"], f_alpha=row["f_alpha"], pick_f1=row["pick_f1"],
                            epochs=len(curve), patches_per_second=round(speed, 4), verdict=verdict.to_dict())
    job.run.write_held_out(best.get("looked", ()), job.gathered, card)
    manifest.write(job.run.manifest)
    job.run.clean()
    for one, score in zip(card.classes, picks):
        log.info("%s: class %d (%s): pick F1 %.3f, precision %.3f, recall %.3f on %d held-out particles, at its "
                 "threshold %.3g; %s", job.run.model.stem, one.id, one.name, score.f1, score.precision, score.recall,
                 score.n_true, score.threshold, scores_are(one.calibration))
    log.info("%s: kept epoch %d of 0 to %d, chosen by %s (pick F1 %.3f, voxel F1 %.3f on the held-out part); %.3g "
             "patches per second", job.run.model, int(best["epoch"]), len(curve) - 1, job.chosen_by, row["pick_f1"],
             row["voxel_f1"], speed)
    level = logging.INFO if verdict.grade == "good" else logging.WARNING
    log.log(level, "%s: verdict: %s", job.run.model.stem, verdict)
    return read_manifest(job.run.manifest)


def _evidence(job: Job, picks: Sequence[ClassScore], curve: Sequence[Mapping[str, float]],
              change: Optional[Change], mistaken: Mapping[str, np.ndarray], is_refitted: bool,
              intensity: Mapping[str, float]) -> Evidence:
    """Return what the verdict rests on; intensity is that of the new card."""
    ours, started = ([float(one[str(p)]) for p in QUANTILES if str(p) in one]
                     for one in (intensity, job.origin.card.intensity if job.origin else {}))
    steps = len(curve) * job.length // job.options.batch
    return Evidence(picks, job.gathered.classes, job.gathered.n_particles, curve, steps, job.misfits,
                    job.validator.is_unknown, ours, started, change, mistaken, is_refitted)


def make_card(job: Job, best: Mapping[str, Any], curve: List[Dict[str, float]],
              warnings: Sequence[str] = ()) -> ModelCard:
    """Return the model card of a trained network.

    Parameters
    ----------
    job : Job
        The run.
    best : mapping
        The kept epoch, from ``EpochEnd.best``.
    curve : list of dict
        Metrics of every epoch.
    warnings : sequence of str
        What a user of the model should know.
    """
    options, gathered = job.options, job.gathered
    quantiles = torch.tensor([t.source.intensity.quantiles for t in job.train], dtype=torch.float64).mean(0).tolist()
    classes = with_scores(gathered.classes, best)
    return ModelCard(
        network=job.network.options.to_dict(), classes=classes, voxel_size_ang=gathered.voxel_size_ang,
        patch_vox=options.patch, border_vox=min(BORDER, (options.patch - 8) // 2), label=options.label,
        normalisation="robust mean and deviation of the tomogram", threshold=best["threshold"], score_floor=FLOOR,
        intensity={str(p): round(q, 4) for p, q in zip(QUANTILES, quantiles)},
        training={"tomograms": [t.name for t in job.train], "validation": [t.name for t in job.validation],
                  "options": options.to_dict(), "epochs": len(curve), "kept_epoch": int(best["epoch"]),
                  "chosen_by": job.chosen_by, "particles": {str(c): n for c, n in gathered.n_particles.items()},
                  "items": uses(gathered, job.train, job.validation),
                  "seen": seen(gathered, [*job.train, *job.validation], not job.rule.is_unknown),
                  "picks": [{"name": c.name, **one} for c, one in zip(classes, best["picks"])]},
        validation=curve, seed=options.seed, version=__version__,
        created=datetime.datetime.now().isoformat(timespec="seconds"),
        notes={"python": sys.version.split()[0], "torch": torch.__version__}, warnings=list(warnings))

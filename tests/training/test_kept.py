"""Which epoch is kept: the held-out picks choose, as far as their number can tell, and then the loss."""

from __future__ import annotations

import numpy as np
import pytest

from deepetpicker.training.loop.kept import is_better, key_of, standard_error


def kept_of(scores, losses, n_particles=60, by="picks", alphas=None):
    """Return which of some epochs is kept in the end."""
    kept, at, best = None, -1, 0.0
    for epoch, (f1, loss) in enumerate(zip(scores, losses)):
        key = key_of(epoch, {"f_alpha": (alphas or scores)[epoch], "val_loss": loss}, f1, by)
        best = max(best, f1)
        if kept is None or is_better(key, kept, by, best, n_particles):
            kept, at = key, epoch
    return at


@pytest.mark.parametrize(("scores", "losses", "kept"), [
    ([0.5, 0.9, 0.98], [0.5, 0.3, 0.2], 2),
    ([0.982, 0.966, 0.967], [0.33, 0.31, 0.23], 2),  # a lucky early epoch
    ([0.982, 0.967, 0.93], [0.33, 0.23, 0.20], 1),  # the last is worse by more than luck
    ([0.93, 0.982, 0.981], [0.20, 0.33, 0.34], 1),  # a low loss is nothing without picks
    ([0.98, 0.98, 0.98], [0.30, 0.20, 0.25], 1),  # learnt by heart in the end
    ([0.0, 0.0], [0.9, 0.8], 1),
    ([1.0, 1.0], [0.2, 0.3], 0)])
def test_the_lowest_loss_among_the_best_picks_is_kept(scores, losses, kept):
    assert kept_of(scores, losses) == kept


def test_few_particles_tell_less_than_many():
    scores, losses = [0.95, 0.90], [0.3, 0.2]
    assert kept_of(scores, losses, n_particles=10) == 1
    assert kept_of(scores, losses, n_particles=1000) == 0


def test_what_is_kept_does_not_fall_behind_the_best_whatever_the_order():
    rng = np.random.default_rng(0)
    for _ in range(200):
        scores, losses = rng.uniform(0.6, 1.0, 10), rng.uniform(0.1, 0.5, 10)
        kept = kept_of(list(scores), list(losses))
        assert scores[kept] >= scores.max() - standard_error(scores.max(), 60)


def test_voxels_choose_when_asked_for():
    assert kept_of([1.0, 0.5], [0.2, 0.3], by="voxels", alphas=[0.3, 0.4]) == 1
    assert kept_of([0.5, 1.0], [0.2, 0.3], by="voxels", alphas=[0.4, 0.4]) == 0  # of equals the lower loss


def test_the_last_is_kept_where_nothing_can_choose():
    assert kept_of([1.0, 0.9, 0.8], [0.1, 0.2, 0.3], by="last") == 2


@pytest.mark.parametrize(("share", "n", "error"), [(1.0, 60, 0.016), (0.5, 60, 0.064), (0.0, 60, 0.016),
                                                   (1.0, 5, 0.13)])
def test_the_error_of_a_share_is_never_nothing(share, n, error):
    assert standard_error(share, n) == pytest.approx(error, rel=0.05)

"""Of how many tomograms it is measured how far particles stand out: a training of many does not wait for all."""

from __future__ import annotations

import pytest

from deepetpicker.sampling.gather import telling


@pytest.mark.parametrize(("counts", "chosen"), [
    ([], []), ([0, 0], []), ([0, 7], [1]),
    ([5, 90, 40, 80], [1, 3, 2]),                 # three are always looked into
    ([10, 3, 4, 2, 9], [0, 4, 2]),                # 23 particles
    ([1] * 30, list(range(8))),                   # clicks here and there: no more than eight
    ([6, 5, 4, 3, 2, 1], [0, 1, 2, 3, 4]),        # 20 with the fifth
])
def test_those_with_the_most_particles_are_looked_into_until_they_tell(counts, chosen):
    assert telling(counts) == chosen

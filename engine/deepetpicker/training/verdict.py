"""What the held-out particles say about a trained model: for each class whether its picks can be trusted."""

from __future__ import annotations

from deepetpicker.io.modelcard import ClassCard


def no_particles(one: ClassCard) -> str:
    """Return the warning for a class that is listed but has no particle at all."""
    return (f"class {one.id} ({one.name}): no particles: the model will never find it; label some, or leave the class "
            "out")


def not_judged(one: ClassCard, n_known: int) -> str:
    """Return the warning for a class of which no particle is held out.

    Parameters
    ----------
    one : ClassCard
        The class.
    n_known : int
        Its particles, all of them trained on.
    """
    return (f"class {one.id} ({one.name}): no particle is held out to judge its picks by ({n_known} trained on): label "
            "more, best in another tomogram, and look at its picks before you use them")

"""Pictures of picks and results, as matplotlib figures without global state: for files, HTML pages and Tk windows.

``matplotlib`` is loaded when the first picture is made, SciPy when the first slice is smoothed; PyTorch never.
"""

from __future__ import annotations

from deepetpicker.report.charts import (
                                         curve_figure,
                                         distance_figure,
                                         score_histogram,
                                         training_figure,
                                         z_profile_figure,
)
from deepetpicker.report.slices import PictureStyle, choose_planes, orthogonal_views, slices_with_picks

__all__ = ["PictureStyle", "choose_planes", "curve_figure", "distance_figure", "orthogonal_views",
           "score_histogram", "slices_with_picks", "training_figure", "z_profile_figure"]

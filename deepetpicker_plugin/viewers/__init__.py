"""Viewers of the plugin.

Scipion puts viewers of equal right in the order of the names exported here. Those of whole sets of coordinates begin
with Z, so that the viewers of other plugins stay before them there; for the plugin's own protocols they are the only
ones.
"""

import deepetpicker_plugin.viewers.columns  # noqa: F401  what Scipion's tables show
from deepetpicker_plugin.viewers.registered import (
    DeepETPickerEvaluationViewer,
    DeepETPickerPicksViewer as ZDeepETPickerPicksViewer,
    DeepETPickerScoresViewer as ZDeepETPickerScoresViewer,
    DeepETPickerTrainingViewer,
)

__all__ = ["DeepETPickerEvaluationViewer", "DeepETPickerTrainingViewer", "ZDeepETPickerPicksViewer",
           "ZDeepETPickerScoresViewer"]

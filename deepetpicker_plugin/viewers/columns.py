"""The columns that Scipion's tables show of the plugin's own sets."""

from __future__ import annotations

from pwem.viewers import MODE, MODE_MD, ORDER, VISIBLE, DataViewer

from deepetpicker_plugin.objects import SetOfFailedTomograms

FAILED_COLUMNS = "id _tsId _failure _filename _samplingRate"

DataViewer.registerConfig(SetOfFailedTomograms, config={MODE: MODE_MD, ORDER: FAILED_COLUMNS, VISIBLE: FAILED_COLUMNS})

"""The protocols of the plugin."""

from deepetpicker_plugin.protocols.protocol_annotate import ProtDeepETPickerAnnotate
from deepetpicker_plugin.protocols.protocol_check import ProtDeepETPickerCheck
from deepetpicker_plugin.protocols.protocol_compare import ProtDeepETPickerCompare
from deepetpicker_plugin.protocols.protocol_evaluate import ProtDeepETPickerEvaluate
from deepetpicker_plugin.protocols.protocol_import_model import ProtDeepETPickerImportModel
from deepetpicker_plugin.protocols.protocol_pick import ProtDeepETPickerPick
from deepetpicker_plugin.protocols.protocol_propose import ProtDeepETPickerPropose
from deepetpicker_plugin.protocols.protocol_refine import ProtDeepETPickerRefine
from deepetpicker_plugin.protocols.protocol_review import ProtDeepETPickerReview
from deepetpicker_plugin.protocols.protocol_simulate import ProtDeepETPickerSimulate
from deepetpicker_plugin.protocols.protocol_threshold import ProtDeepETPickerThreshold
from deepetpicker_plugin.protocols.protocol_train import ProtDeepETPickerTrain

__all__ = ["ProtDeepETPickerAnnotate", "ProtDeepETPickerCheck", "ProtDeepETPickerCompare", "ProtDeepETPickerEvaluate",
           "ProtDeepETPickerImportModel", "ProtDeepETPickerPick", "ProtDeepETPickerPropose", "ProtDeepETPickerRefine",
           "ProtDeepETPickerReview", "ProtDeepETPickerSimulate", "ProtDeepETPickerThreshold", "ProtDeepETPickerTrain"]

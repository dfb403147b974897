"""The model card: what a model file says about itself, readable without torch."""

from deepetpicker.io.modelcard.card import FORMAT_VERSION, RECALL_COUNTS, ClassCard, ModelCard
from deepetpicker.io.modelcard.header import JUDGED, METADATA_KEY, read_card, read_header
from deepetpicker.io.modelcard.shown import format_info, info

__all__ = ["FORMAT_VERSION", "JUDGED", "METADATA_KEY", "RECALL_COUNTS", "ClassCard", "ModelCard", "format_info", "info",
           "read_card", "read_header"]

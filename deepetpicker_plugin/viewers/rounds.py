"""The rounds of a model in a project: the trainings that went on from each other."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, Iterator, List, Optional

from deepetpicker.errors import DeepETPickerError
from deepetpicker.report.rounds import Round, origin_of
from deepetpicker_plugin.objects import DeepETPickerModel


def roundsOf(protocol: Any, project: Any) -> List[Round]:
    """Return the rounds that lead to the model of a training or an import, oldest first.

    Where a model came into the project from elsewhere, what its card says of its origin is the first. A training that
    has no model yet is the last, as running or, when it does not run, not at all.
    """
    found: List[Round] = []
    for maker in _makers(protocol, project):
        model, name = getattr(maker, "model", None), str(maker.getRunName())
        start = _startOf(maker)
        if model is not None:
            try:
                card = model.getCard()
            except DeepETPickerError:  # its file is gone: the others are shown
                card = None
            found.append(Round.of(card, name) if card is not None else Round(0, name))
            origin = origin_of(card) if card is not None else None
            if start is None and origin is not None:
                found.append(origin)
        elif maker.isActive():
            found.append(Round(0, name, is_running=True))
    return _numbered(found[::-1])


def namesOfModels(protocol: Any, project: Any) -> Dict[str, str]:
    """Return what the project window calls the protocols that lead to the model of one, by their model files."""
    return {one.model.getFileName(): str(one.getRunName()) for one in _makers(protocol, project)
            if getattr(one, "model", None) is not None}


def _makers(protocol: Any, project: Any) -> Iterator[Any]:
    """Yield the protocols whose models went on from each other, the newest first."""
    seen = set()
    while protocol is not None and protocol.getObjId() not in seen:
        seen.add(protocol.getObjId())
        yield protocol
        protocol = makerOf(_startOf(protocol), project)


def _startOf(protocol: Any) -> Optional[DeepETPickerModel]:
    """Return the model that a protocol started from; None without one."""
    return protocol.getStartModel() if hasattr(protocol, "getStartModel") else None


def makerOf(model: Optional[DeepETPickerModel], project: Any) -> Any:
    """Return the protocol that made a model; None when there is none."""
    if model is None or model.getObjParentId() is None:
        return None
    return project.getProtocol(int(model.getObjParentId()))


def _numbered(rounds: List[Round]) -> List[Round]:
    """Return rounds, oldest first, with numbers where a card could not say them."""
    numbered: List[Round] = []
    for one in rounds:
        before = numbered[-1].number if numbered else 0
        numbered.append(one if one.number else dataclasses.replace(one, number=before + 1))
    return numbered

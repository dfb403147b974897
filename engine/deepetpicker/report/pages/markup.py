"""What all pages share: the templates, numbers as text, and pictures as parts of the page.

A page is one file: charts are inline SVG, pictures are data in their addresses, nothing is fetched and no script runs.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import html
import io
import pathlib
import re
from typing import TYPE_CHECKING, Any, Mapping

import numpy as np

from deepetpicker import __version__
from deepetpicker.report import charts

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.figure import Figure

SLICE_DPI = 170
QUALITY = 86
NBSP = "\u00a0"


def render(template: str, values: Mapping[str, Any]) -> str:
    """Return the text of a page.

    Parameters
    ----------
    template : str
        File name of a template beside this module; it escapes whatever is not marked as safe.
    values : mapping
        What the template shows; a name that it lacks is an error.
    """
    return _environment().get_template(template).render(version=__version__, **values)


@functools.lru_cache(maxsize=None)
def _environment() -> Environment:
    """Return what reads templates: it compiles each once."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(pathlib.Path(__file__).parent), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(number=number, jpeg=jpeg)
    return environment


def number(value: Any, digits: int = 3) -> str:
    """Return a number with a fixed number of digits, a dash for None and NaN."""
    return "-" if value is None or value != value else f"{value:.{digits}f}"


def duration(seconds: Any) -> str:
    """Return a time in words: ``4.8 s``, ``12 min``, ``3.4 h``; a dash when it is not known."""
    if seconds is None or seconds != seconds:
        return "-"
    if seconds < 90:
        return f"{seconds:.1f}{NBSP}s"
    return f"{seconds / 60:.0f}{NBSP}min" if seconds < 5400 else f"{seconds / 3600:.1f}{NBSP}h"


def plural(count: int, word: str) -> str:
    """Return a number with its word: ``1 tomogram``, ``2 tomograms``."""
    return f"{count} {word}" + ("" if count == 1 else "s")


def svg(figure: Figure, label: str) -> str:
    """Return a chart as inline SVG whose ink follows the page's text colour.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The chart.
    label : str
        What it says to those who cannot see it; two charts of a page must differ in it.
    """
    from matplotlib import rc_context

    figure.patch.set_alpha(0)
    stream = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(stream, format="svg")
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text[text.index("<svg"):], flags=re.DOTALL)
    spoken = html.escape(label).replace("\\", r"\\")
    text = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', rf'<svg viewBox="\1" role="img" aria-label="{spoken}">', text,
                  count=1)
    return re.sub(charts.INK, "currentColor", text, flags=re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart of a page: heading, caption, inline SVG, and whether it takes the whole width."""

    title: str
    caption: str
    svg: str
    is_broad: bool = False


def chart(title: str, caption: str, figure: Figure, is_broad: bool = False, spoken: str = "") -> Chart:
    """Return a chart; spoken is what it says to those who cannot see it, by default its title."""
    return Chart(title, caption, svg(figure, spoken or title), is_broad)


def jpeg(figure: Figure) -> str:
    """Return a picture as base64 text of a JPEG image."""
    stream = io.BytesIO()
    figure.savefig(stream, format="jpeg", dpi=SLICE_DPI, pil_kwargs={"quality": QUALITY, "subsampling": 0})
    return base64.b64encode(stream.getvalue()).decode("ascii")


def grey_jpeg(greys: np.ndarray) -> str:
    """Return greys (H, W) uint8, top row first, as base64 text of a JPEG image."""
    from matplotlib.image import imsave

    stream = io.BytesIO()
    imsave(stream, greys, cmap="gray", vmin=0, vmax=255, format="jpeg", pil_kwargs={"quality": QUALITY})
    return base64.b64encode(stream.getvalue()).decode("ascii")

"""An evaluation as one self-contained HTML page: tables, charts and pictures, for screen, phone and paper."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import pathlib
import re
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

from deepetpicker import __version__
from deepetpicker.errors import DeepETPickerError
from deepetpicker.evaluation.measures import distance_histogram
from deepetpicker.evaluation.pairing import PathLike
from deepetpicker.evaluation.results import EvaluationReport, TomogramResult
from deepetpicker.io.atomic import atomic_output, write_text
from deepetpicker.io.volumes import open_volume
from deepetpicker.report import (
    PictureStyle,
    charts,
    choose_planes,
    curve_figure,
    distance_figure,
    score_histogram,
    slices,
    slices_with_picks,
    z_profile_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_TOMOGRAMS = 3
PLANES = 4
SLICE_DPI = 170
COUNTS = ("particles", "picks", "hits", "false pos.", "missed")


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A picture of the report.

    Parameters
    ----------
    title : str
        Heading; pictures in a row with the same heading are grouped.
    caption : str
        Below the picture.
    figure : matplotlib.figure.Figure
        What to show; becomes a JPEG image.
    """

    title: str
    caption: str
    figure: Figure


def write_report(report: EvaluationReport, out_html: PathLike, pictures: Optional[Sequence[Picture]] = None) -> None:
    """Write an evaluation as one HTML file that needs no other file and no network.

    Parameters
    ----------
    report : EvaluationReport
        What ``evaluate`` returned.
    out_html : path
        File to write.
    pictures : sequence of Picture, optional
        Pictures at the end; default: :func:`report_pictures`.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    shown = report_pictures(report) if pictures is None else pictures
    write_text(out_html, page(report, shown))


def report_pictures(report: EvaluationReport, limit: int = SHOWN_TOMOGRAMS) -> List[Picture]:
    """Return slices with hits, false positives and misses of some tomograms whose volume can be read.

    Parameters
    ----------
    report : EvaluationReport
        What ``evaluate`` returned.
    limit : int
        At most so many tomograms: evenly chosen from the poorest to the best F1, both included.
    """
    return [picture for one in _shown(report, limit) for picture in _slices(one, report)]


def write_slices(report: EvaluationReport, folder: PathLike, limit: int = SHOWN_TOMOGRAMS) -> Dict[str, str]:
    """Write one PNG picture per tomogram with its picks, hits and misses on a few slices.

    Parameters
    ----------
    report : EvaluationReport
        What ``evaluate`` returned.
    folder : path
        Where ``slices_1.png`` and so on are written.
    limit : int
        At most so many tomograms, chosen as for :func:`report_pictures`.

    Returns
    -------
    dict
        Tomogram name to the picture's path.
    """
    paths = {}
    for number, one in enumerate(_shown(report, limit), 1):
        try:
            volume = open_volume(one.tomogram, one.voxel_size_ang, one.name)
        except DeepETPickerError:
            continue
        style = PictureStyle(voxel_size_ang=one.voxel_size_ang, diameters_ang=report.diameters_ang,
                             planes=tuple(choose_planes(volume.shape_zyx[0], [one.truth, one.picks], PLANES)))
        figure = slices_with_picks(volume.data_zyx, one.picks, one.truth, one.match, style)
        target = pathlib.Path(folder) / f"slices_{number}.png"
        with atomic_output(target) as temporary:
            figure.savefig(temporary, dpi=SLICE_DPI, format="png")
        paths[one.name] = str(target)
    return paths


def _shown(report: EvaluationReport, limit: int) -> List[TomogramResult]:
    """Return at most limit tomograms that can be read, from the poorest to the best F1."""
    usable = [t for t in report.tomograms if t.tomogram]
    usable.sort(key=lambda t: (np.nan_to_num(report.per_tomogram[t.name]["F1"]), t.name))
    if len(usable) > limit:
        usable = [usable[i] for i in np.linspace(0, len(usable) - 1, limit).round().astype(int)]
    return usable


def page(report: EvaluationReport, pictures: Sequence[Picture] = ()) -> str:
    """Return the HTML text of the report."""
    parts = [_header(report), _notes(report), _tiles(report), _tomogram_table(report), _class_tables(report),
             _threshold_table(report), _charts(report), _pictures(pictures), _footer(report)]
    title = html.escape(f"Evaluation of picks, F1 {_number(report.overall['F1'])}")
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<meta name="color-scheme" content="light dark"><style>{_CSS}</style></head>\n<body><main>\n'
            + "\n".join(part for part in parts if part) + "\n</main></body></html>\n")


def _slices(one: TomogramResult, report: EvaluationReport) -> List[Picture]:
    """Return pictures of a few planes of one tomogram; none when it cannot be read any more."""
    try:
        volume = open_volume(one.tomogram, one.voxel_size_ang, one.name)
    except DeepETPickerError:
        return []
    style = PictureStyle(voxel_size_ang=one.voxel_size_ang, diameters_ang=report.diameters_ang, bare=True)
    planes = choose_planes(volume.shape_zyx[0], [one.truth, one.picks], PLANES)
    title = f"{one.name}: {one.match.tp} hits, {one.match.fp} false positives, {one.match.fn} misses"
    return [Picture(title, f"z = {plane}", slices_with_picks(volume.data_zyx, one.picks, one.truth, one.match,
                                                             dataclasses.replace(style, planes=(plane,))))
            for plane in planes]


def _header(report: EvaluationReport) -> str:
    """Return the heading and one line that says what was compared how."""
    total, options = report.overall, report.options
    rules = sorted({t.rule for t in report.tomograms})
    how = {"mask": "a hit lies inside the particle's instance mask", "distance": "a hit lies within "
           + (f"{options['radius_angstrom']:g} Å" if options.get("radius_angstrom") else "half the particle's diameter")
           + " of the centre"}
    threshold = f", picks scoring at least {options['threshold']:g}" if options.get("threshold") else ""
    many = "tomogram" if total["n_tomograms"] == 1 else "tomograms"
    text = (f"{total['n_picks']} picks against {total['n_truth']} true particles in {total['n_tomograms']} {many}"
            f"{threshold}; {' or '.join(how[r] for r in rules)}.")
    return f"<header><h1>Evaluation of picks</h1><p>{html.escape(text)}</p></header>"


def _notes(report: EvaluationReport) -> str:
    """Return warnings and failed tomograms as a box."""
    lines = [f"<li><b>failed</b> {html.escape(name)}: {html.escape(reason)}</li>"
             for name, reason in report.failed.items()]
    lines += [f"<li>{html.escape(text)}</li>" for text in report.warnings]
    return f'<section class="notes"><h2>Please note</h2><ul>{"".join(lines)}</ul></section>' if lines else ""


def _tiles(report: EvaluationReport) -> str:
    """Return the headline numbers."""
    total, ends = report.overall, report.overall["confidence_95"]
    beta = f"F{total['beta']:g}"
    tiles = []
    for key, name in (("F1", "F1"), ("precision", "precision"), ("recall", "recall"), ("Fbeta", beta)):
        low, high = ends[key]
        tiles.append((name, _number(total[key]), f"{_number(low)} to {_number(high)}"))
    angstrom = f"voxels, {_number(total['AD_ang'], 1)} Å" if total["AD_ang"] == total["AD_ang"] else "voxels"
    tiles.append(("distance to centre", _number(total["AD_vox"], 2), angstrom))
    if len(report.per_class) > 1:
        tiles.append(("macro F1", _number(total["macro_F1"]), f"{len(report.per_class)} classes"))
    cells = "".join(f'<div class="tile"><span>{html.escape(a)}</span><b>{html.escape(b)}</b><small>{html.escape(c)}'
                    "</small></div>" for a, b, c in tiles)
    return (f'<section><div class="tiles">{cells}</div><p class="fine">Small figures under precision, recall and F: '
            f"95 % intervals, bootstrap over {html.escape(total['confidence_over'])}.</p></section>")


def _tomogram_table(report: EvaluationReport) -> str:
    """Return localisation per tomogram as a table."""
    beta = f"F{report.overall['beta']:g}"
    head = ["tomogram", "F1", "precision", "recall", beta, "distance [voxels]", "[Å]", *COUNTS]

    def cells(row: Mapping[str, Any]) -> List[str]:
        return [*_ratios(row), _number(row["AD_vox"], 2), _number(row["AD_ang"], 1), *_counts(row)]

    rows = [[name, *cells(row)] for name, row in report.per_tomogram.items()]
    return f"<section><h2>Localisation</h2>{_table(head, rows, ['all', *cells(report.overall)])}</section>"


def _class_tables(report: EvaluationReport) -> str:
    """Return metrics per class and the confusion matrix."""
    if not report.per_class:
        return ""
    beta = f"F{report.overall['beta']:g}"
    head = ["class", "F1", "precision", "recall", beta, "average precision", "best threshold", "F1 there", *COUNTS]
    rows = [[row["name"], *_ratios(row), _number(row["average_precision"]), _number(row["best_threshold"]),
             _number(row["best_F1"]), *_counts(row)] for row in report.per_class]
    return (f'<section><h2>Classes</h2>{_table(head, rows)}<p class="fine">A pick that hits a particle of another '
            "class is a false positive of its own class and a miss of the other. Average precision and best threshold "
            f"look at the picks and particles of the class alone.</p>{_confusion(report)}</section>")


def _confusion(report: EvaluationReport) -> str:
    """Return the confusion matrix as a table shaded by the share of the row."""
    labels = [report.class_names[c] for c in report.class_ids]
    shares = report.confusion / np.maximum(report.confusion.sum(axis=1, keepdims=True), 1)
    corner = len(labels)
    head = "".join(f'<th scope="col">{html.escape(n)}</th>' for n in [*labels, "missed"])
    body = ""
    for i, name in enumerate([*labels, "background"]):
        cells = "".join("<td></td>" if i == j == corner else
                        f'<td style="--share:{shares[i, j]:.3f}" class="{"good" if i == j else "bad"}">'
                        f"{report.confusion[i, j]}</td>" for j in range(corner + 1))
        body += f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>'
    return ('<h3>Confusion</h3><div class="wide narrow"><table class="confusion"><thead><tr>'
            f"<th>true ↓ picked as →</th>{head}</tr></thead><tbody>{body}</tbody></table></div>")


def _threshold_table(report: EvaluationReport) -> str:
    """Return the best thresholds as a table."""
    if not len(report.curve):
        return ""
    names = {"F1": "F1", "Fbeta": f"F{report.overall['beta']:g}"}
    rows = [[f"best {names[m]}", f"{b['threshold']:.4g}", _number(b["value"]), _number(b["precision"]),
             _number(b["recall"])] for m, b in report.best_threshold.items()]
    return ("<section><h2>Score threshold</h2>"
            + _table(["for the", "keep scores from", "value", "precision", "recall"], rows)
            + f'<p class="fine">Average precision {_number(report.curve.average_precision)}. A threshold chosen on '
            "these tomograms flatters them: use it on others.</p></section>")


def _charts(report: EvaluationReport) -> str:
    """Return the charts as inline SVG."""
    everything = [t.scored.scores for t in report.tomograms]
    scores, hits = np.concatenate(everything), np.concatenate([t.adds_hit for t in report.tomograms])
    threshold = report.options.get("threshold") or float("nan")
    voxels = {t.voxel_size_ang for t in report.tomograms}
    voxel_size_ang = voxels.pop() if len(voxels) == 1 else 0.0
    drawn = (("Precision and recall", "Grey lines: equal F1.", curve_figure(report.curve, ("precision_recall",),
                                                                            threshold)),
             ("Over the score threshold", "Picks at the threshold are kept.", curve_figure(report.curve, ("threshold",),
                                                                                          threshold)),
             ("Scores", "Picks at any score; of several hits on a particle the best counts.",
              score_histogram(scores[hits], scores[~hits], threshold)),
             ("Distance of hits", "To the true centre.", distance_figure(distance_histogram(report.distances_vox),
                                                                         voxel_size_ang)),
             ("Depth", "Missing wedge, ice and borders show here.", z_profile_figure(report.z_profile())))
    cells = "".join(f'<figure class="chart">{_svg(figure, title)}<figcaption><b>{title}.</b> {caption}</figcaption>'
                    "</figure>" for title, caption, figure in drawn)
    return f'<section><h2>Curves</h2><div class="charts">{cells}</div></section>'


def _pictures(pictures: Sequence[Picture]) -> str:
    """Return the pictures, grouped by title, with the legend of their marks."""
    if not pictures:
        return ""
    groups: List[str] = []
    for index, picture in enumerate(pictures):
        if not index or pictures[index - 1].title != picture.title:
            groups.append(f'</div><h3>{html.escape(picture.title)}</h3><div class="slices">')
        caption = f"{picture.title.split(':')[0]}, {picture.caption}"
        groups.append(f'<figure><img src="data:image/jpeg;base64,{_jpeg(picture.figure)}" alt="{html.escape(caption)}">'
                      f"<figcaption>{html.escape(picture.caption)}</figcaption></figure>")
    marks = (("hit", slices.HIT, "", ""), ("hit, other class", slices.OTHER_CLASS, "7 2 1 2", ""),
             ("false positive", slices.FALSE_POSITIVE, "", "M7 7l6 6M13 7l-6 6"), ("miss", slices.MISS, "4 2.5", ""))
    legend = "".join(
        '<span class="mark"><svg viewBox="0 0 20 20" width="20" height="20" aria-hidden="true"><rect width="20" '
        f'height="20" rx="4" fill="#666"/><circle cx="10" cy="10" r="7" fill="none" stroke="{colour}" stroke-width="2" '
        f'stroke-dasharray="{dashes}"/><path d="{cross}" stroke="{colour}" stroke-width="1.6"/></svg>{name}</span>'
        for name, colour, dashes, cross in marks)
    body = "".join(groups)[len("</div>"):]
    return (f'<section><h2>Slices</h2><p class="legend">{legend}</p>{body}</div><p class="fine">Circles '
            "shrink with the distance of the particle's centre from the plane. x to the right, y up.</p></section>")


def _footer(report: EvaluationReport) -> str:
    """Return the options in force and the version."""
    options = ", ".join(f"{name} {value}" for name, value in report.options.items())
    return f"<footer><p>deepetpicker {html.escape(__version__)}. Options: {html.escape(options)}.</p></footer>"


def _counts(row: Mapping[str, Any]) -> List[str]:
    """Return the numbers of particles, picks, hits, false positives and misses of a row as text."""
    tp, fp, fn = row["TP"], row["FP"], row["FN"]
    return [str(n) for n in (tp + fn, tp + fp, tp, fp, fn)]


def _ratios(row: Mapping[str, Any]) -> List[str]:
    """Return F1, precision, recall and Fbeta of a row as text."""
    return [_number(row[name]) for name in ("F1", "precision", "recall", "Fbeta")]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], last: Sequence[str] = ()) -> str:
    """Return an HTML table that scrolls sideways where it is too wide; ``last`` is a row of totals."""
    top = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    lines = ["".join(f'<th scope="row">{html.escape(cell)}</th>' if i == 0 else f"<td>{html.escape(cell)}</td>"
                     for i, cell in enumerate(row)) for row in [*rows, *([last] if last else [])]]
    foot = f"<tfoot><tr>{lines.pop()}</tr></tfoot>" if last else ""
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody>{foot}</table></div>'


def _number(value: float, digits: int = 3) -> str:
    """Return a number with a fixed number of digits, a dash for NaN."""
    return "-" if value != value else f"{value:.{digits}f}"


def _svg(figure: Figure, label: str) -> str:
    """Return a chart as inline SVG whose ink follows the page's text colour."""
    from matplotlib import rc_context

    figure.patch.set_alpha(0)
    stream = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(stream, format="svg")
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text[text.index("<svg"):], flags=re.DOTALL)
    text = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>',
                  rf'<svg viewBox="\1" role="img" aria-label="{html.escape(label)}">', text, count=1)
    return re.sub(charts.INK, "currentColor", text, flags=re.IGNORECASE)


def _jpeg(figure: Figure) -> str:
    """Return a picture as base64 text of a JPEG image."""
    stream = io.BytesIO()
    figure.savefig(stream, format="jpeg", dpi=SLICE_DPI, pil_kwargs={"quality": 86, "subsampling": 0})
    return base64.b64encode(stream.getvalue()).decode("ascii")


_CSS = """
:root{--page:#fff;--ink:#24292f;--soft:#57606a;--line:#d8dee4;--card:#f6f8fa;--good:0,114,178;--bad:213,94,0;--note:#fff8e5}
@media (prefers-color-scheme:dark){:root{--page:#15181d;--ink:#e3e7ec;--soft:#9aa4b0;--line:#343b44;--card:#1d2229;
--good:86,180,233;--bad:255,120,50;--note:#2e2814}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:72rem;margin:0 auto;padding:1.5rem 1rem 3rem}
h1{font-size:1.7rem;margin:.2rem 0;letter-spacing:-.01em}h2{font-size:1.2rem;margin:2.2rem 0 .7rem}
h3{font-size:1rem;margin:1.4rem 0 .5rem}
header p,.fine,figcaption,footer{color:var(--soft)}.fine,figcaption,footer{font-size:.85rem}
.notes{background:var(--note);border-left:4px solid #e69f00;border-radius:6px;padding:.1rem 1rem .5rem;margin-top:1rem}
.notes h2{font-size:1rem;margin:.6rem 0 .2rem}.notes ul{margin:.2rem 0;padding-left:1.1rem;overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.7rem;margin-top:1.2rem}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.7rem .9rem;display:flex;
flex-direction:column}
.tile span,.tile small{color:var(--soft);font-size:.82rem}.tile b{font-size:1.45rem;font-weight:600;line-height:1.3}
.wide{overflow-x:auto;border:1px solid var(--line);border-radius:8px}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.4rem .7rem;text-align:right;white-space:nowrap;border-top:1px solid var(--line)}
thead th{border-top:0;color:var(--soft);font-weight:500;background:var(--card)}
.narrow{width:fit-content;max-width:100%}
th:first-child{text-align:left;position:sticky;left:0;background:var(--page)}
thead th:first-child{background:var(--card)}
tbody th{font-weight:500}tfoot th,tfoot td{font-weight:700;border-top:2px solid var(--line)}
.confusion{width:auto}.confusion td{min-width:5rem}
.confusion .good{background:rgba(var(--good),calc(var(--share)*.55))}
.confusion .bad{background:rgba(var(--bad),calc(var(--share)*.55))}
figure{margin:0}.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(26rem,100%),1fr));gap:1.6rem 2rem}
.chart svg{width:100%;height:auto;display:block}.chart svg text{font-family:inherit!important}
.slices{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(26rem,100%),1fr));gap:.9rem}
.slices img{width:100%;height:auto;display:block;border-radius:6px}
.legend{display:flex;flex-wrap:wrap;gap:.4rem 1.2rem;margin:.3rem 0}
.mark{display:inline-flex;align-items:center;gap:.4rem}
footer{margin-top:3rem;border-top:1px solid var(--line);overflow-wrap:anywhere}
@media print{:root{--page:#fff;--ink:#000;--soft:#444;--line:#bbb;--card:#f4f4f4;--note:#fff8e5}
main{max-width:none;padding:0}body{font-size:10pt;print-color-adjust:exact;-webkit-print-color-adjust:exact}
table{font-size:8pt}th,td{padding:.2rem .35rem}.wide{overflow:visible}figure,.tile,tr,.notes{break-inside:avoid}
h2,h3{break-after:avoid}.charts{grid-template-columns:1fr 1fr}.slices{grid-template-columns:1fr 1fr}}
"""

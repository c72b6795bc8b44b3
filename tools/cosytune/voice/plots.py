"""Numbers -> plots as inline SVG, in the colours and fonts of the page around them.

matplotlib draws; what it draws in one of the marker colours below becomes a CSS variable, so that one plot serves
light and dark pages. No user's text goes into a plot: a font without Japanese would show boxes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

_MARKERS = {"#010203": "ink", "#020304": "grid", "#030405": "train", "#040506": "cv", "#050607": "tuned"}
_COLOUR = {name: marker for marker, name in _MARKERS.items()}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cosytune",  # the same plot, the same ids: two runs give one report
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": _COLOUR["ink"],
    "axes.labelcolor": _COLOUR["ink"],
    "axes.edgecolor": _COLOUR["grid"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _COLOUR["grid"],
    "grid.linewidth": 0.6,
    "xtick.color": _COLOUR["ink"],
    "ytick.color": _COLOUR["ink"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
Points = Sequence[tuple[float, float]]


def losses(name: str, train: Points, cv: Points, chosen: float | None) -> str:
    """(update, loss) of training and cross-validation, and the update that was chosen -> SVG.

    `name`, here and below, is unique on the page: ids inside the SVG begin with it.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(5.6, 3.0)
        if train:
            axes.plot(*zip(*train, strict=True), color=_COLOUR["train"], linewidth=1.4, label="train")
        if cv:
            axes.plot(*zip(*cv, strict=True), color=_COLOUR["cv"], linewidth=2, marker="o", markersize=4.5, label="cv")
        if chosen is not None:
            axes.axvline(chosen, color=_COLOUR["tuned"], linewidth=1.4, linestyle=(0, (4, 3)), label="chosen")
        axes.set_xlabel("update")
        axes.set_ylabel("loss")
        axes.margins(x=0.03, y=0.08)
        axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.1)
        return _svg(name, figure)


def histogram(name: str, values: Sequence[float], label: str, marked: Mapping[str, float]) -> str:
    """Counts of `values`; `marked` draws a dashed line at each of up to two named values -> SVG."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(5.6, 2.7)
        axes.hist(values, bins=_bins(values), color=_COLOUR["train"], edgecolor="none", rwidth=0.9)
        for (what, value), colour in zip(marked.items(), ("cv", "tuned"), strict=False):
            axes.axvline(value, color=_COLOUR[colour], linewidth=1.4, linestyle=(0, (4, 3)), label=what)
        axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.1)
        axes.set_xlabel(label)
        axes.set_ylabel("clips")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.grid(visible=False, axis="x")
        return _svg(name, figure)


def mel(
    name: str, spectrogram: NDArray[np.float32], frames_per_s: float, longest_s: float, limits: tuple[float, float]
) -> str:
    """A mel spectrogram, float32 [frames, bins] of log amplitude -> SVG with the image inside.

    `longest_s` and `limits` are shared by the plots that stand side by side: the same length is the same width, the
    same loudness the same colour.
    """
    with mpl.rc_context(_STYLE | {"axes.grid": False, "font.size": 10}):
        figure, axes = _figure(4.0, 1.9)
        duration_s = len(spectrogram) / frames_per_s
        axes.imshow(
            spectrogram.T,
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=limits[0],
            vmax=limits[1],
            extent=(0, duration_s, 0, spectrogram.shape[1]),
            interpolation="none",  # the values themselves: the browser scales them
        )
        axes.set_xlim(0, longest_s)
        axes.set_xlabel("s")
        axes.set_ylabel("mel bin")
        axes.set_yticks([40, 80])  # no 0: it would touch that of the time axis
        axes.xaxis.get_major_locator().set_params(nbins=5)
        return _svg(name, figure)


def _figure(width_in: float, height_in: float) -> tuple[Figure, Any]:
    """A figure of its own, known to no window system and to no global state."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    return figure, figure.subplots()


def _bins(values: Sequence[float]) -> NDArray[np.float64]:
    """At most 25 bins over at least one second or one LUFS: values that are nearly equal should look so."""
    middle, width = (min(values) + max(values)) / 2, max(1.0, max(values) - min(values))
    count = min(25, max(11, int(np.sqrt(len(values)) * 2)))
    edges = np.linspace(middle - width / 2, middle + width / 2, count + 1)
    edges[0], edges[-1] = min(edges[0], *values), max(edges[-1], *values)  # rounding would lose the outermost clips
    return edges


def _svg(name: str, figure: Figure) -> str:
    """The SVG element alone, scalable, its marker colours replaced; it says nothing to a screen reader.

    The page labels it: an `aria-label` there can hold any language.
    """
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*|<defs>\s*<style.*?</style>\s*</defs>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r" font-family: [^;]*;", "", text).replace("xlink:href", "href")
    for marker, colour in _MARKERS.items():
        text = text.replace(marker, f"var(--{colour})")
    view = re.search(r'viewBox="([^"]+)"', text)
    assert view is not None
    body = text[text.index(">") + 1 :]
    return f'<svg viewBox="{view[1]}" aria-hidden="true">{_own_ids(name, body)}'


def _own_ids(name: str, body: str) -> str:
    """Several plots share one page: only the ids that something points at stay, with the plot's name before them."""
    pointed = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in pointed else "", body)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)

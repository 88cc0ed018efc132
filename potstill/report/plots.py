"""Plots of the report as inline SVG: no script, no network, colours from the page's CSS variables.

What enters: numbers and label texts. What leaves: `Markup` whose every text was escaped here. Colours are classes
(`c1`, `c2`, …), so one drawing serves light, dark and print. Each plot has a title and a description for screen
readers, and the page shows its numbers in a table or caption as well. Drawings are 460 units wide so that their
13-unit text stays readable when a phone shrinks them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from markupsafe import Markup, escape

WIDTH = 460.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 48.0, 12.0, 12.0, 40.0

Point = tuple[float, float]


def histogram(series: Mapping[str, Sequence[float]], *, title: str, x_title: str, bins: int = 24) -> Markup:
    """Share of rows by value, one outline a series. The last bin also holds what lies beyond the 99th percentile."""
    values = sorted(value for item in series.values() for value in item)
    if not values:
        return Markup("")
    top = max(1.0, float(values[min(len(values) - 1, int(0.99 * len(values)))]))
    step = max(1.0, math.ceil(top / bins)) if top >= bins else top / bins
    count = max(1, math.ceil(top / step))
    outlines = {}
    for name, item in series.items():
        shares = [0.0] * count
        for value in item:
            shares[min(count - 1, int(value // step))] += 1 / max(1, len(item))
        outlines[name] = [(i * step, shares[i]) for i in range(count)] + [(count * step, shares[-1])]
    peak = max(share for points in outlines.values() for _, share in points)
    plot = _Axes(0, count * step, 0, peak * 1.08 or 1.0, x_title, "share of rows", percent_y=True)
    drawn = []
    for i, points in enumerate(outlines.values()):
        steps = [f"M{plot.x(points[0][0]):.1f} {plot.y(0):.1f}"]
        for (_, y), (x_next, _) in pairwise(points):
            steps.append(f"V{plot.y(y):.1f}H{plot.x(x_next):.1f}")
        steps.append(f"V{plot.y(0):.1f}")
        drawn.append(Markup('<path class="line c{0} fill" d="{1}"/>').format(i + 1, "".join(steps)))
    return plot.draw(title, drawn, list(series))


def lines(series: Mapping[str, Sequence[Point]], *, title: str, x_title: str, y_title: str) -> Markup:
    """Lines over a shared x axis, with a mark at each point."""
    points = [point for item in series.values() for point in item]
    if not points:
        return Markup("")
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = min(0.0, *ys), max(ys)
    plot = _Axes(min(xs), max(xs), low, high + 0.08 * (high - low or 1.0), x_title, y_title)
    drawn = []
    for i, item in enumerate(series.values()):
        path = "".join(f"{'L' if j else 'M'}{plot.x(x):.1f} {plot.y(y):.1f}" for j, (x, y) in enumerate(item))
        drawn.append(Markup('<path class="line c{0}" d="{1}"/>').format(i + 1, path))
        if len(item) <= 40:
            drawn += [
                Markup(
                    '<circle class="mark c{0}" cx="{1:.1f}" cy="{2:.1f}" r="3"><title>{3:g}, {4:.4g}</title></circle>'
                ).format(i + 1, plot.x(x), plot.y(y), x, y)
                for x, y in item
            ]
    return plot.draw(title, drawn, list(series))


def scatter(
    points: Sequence[tuple[float, float, str]], *, front: Sequence[int], title: str, x_title: str, y_title: str
) -> Markup:
    """Points (x, y, name) with a line through those on the front, and the names of these beside them."""
    xs, ys = [x for x, _, _ in points], [y for _, y, _ in points]
    room = 0.08 * (max(ys) - min(ys) or 1.0)
    plot = _Axes(0.0, 1.05 * max(xs), min(ys) - room, max(ys) + room, x_title, y_title)
    steps = "".join(f"{'L' if j else 'M'}{plot.x(xs[i]):.1f} {plot.y(ys[i]):.1f}" for j, i in enumerate(front))
    drawn = [Markup('<path class="line c1" d="{0}"/>').format(steps)]
    drawn += [
        Markup(
            '<circle class="mark c{0}" cx="{1:.1f}" cy="{2:.1f}" r="4"><title>{3}: {4:.4g}, {5:.4g}</title></circle>'
        ).format(1 if i in front else 2, plot.x(x), plot.y(y), name, x, y)
        for i, (x, y, name) in enumerate(points)
    ]
    return plot.draw(title, drawn, [])


def reliability(series: Mapping[str, Sequence[tuple[float, float, int]]], *, title: str) -> Markup:
    """Accuracy against confidence: (mean confidence, accuracy, rows) a bin; on the diagonal it means what it says."""
    plot = _Axes(0, 1, 0, 1, "confidence", "accuracy", percent_x=True, percent_y=True)
    diagonal = f"M{plot.x(0):.1f} {plot.y(0):.1f}L{plot.x(1):.1f} {plot.y(1):.1f}"
    drawn = [Markup('<path class="guide" d="{0}"/>').format(diagonal)]
    for i, bins in enumerate(series.values()):
        most = max((rows for _, _, rows in bins), default=1)
        path = "".join(f"{'L' if j else 'M'}{plot.x(x):.1f} {plot.y(y):.1f}" for j, (x, y, _) in enumerate(bins))
        drawn.append(Markup('<path class="line c{0}" d="{1}"/>').format(i + 1, path))
        drawn += [
            Markup(
                '<circle class="mark c{0}" cx="{1:.1f}" cy="{2:.1f}" r="{3:.1f}">'
                "<title>confidence {4:.0%}: {5:.0%} right, {6} rows</title></circle>"
            ).format(i + 1, plot.x(x), plot.y(y), 2.5 + 5 * math.sqrt(rows / most), x, y, rows)
            for x, y, rows in bins
        ]
    return plot.draw(title, drawn, list(series))


def heat(counts: Sequence[Sequence[int]], rows: Sequence[str], columns: Sequence[str], *, title: str) -> Markup:
    """A matrix too large for a table: a square a cell, darker for a larger share of its row; names on hover."""
    size = WIDTH / max(1, len(columns))
    height = size * len(rows)
    cells = []
    for i, row in enumerate(counts):
        total = sum(row) or 1
        for j, count in enumerate(row):
            if count:
                cells.append(
                    Markup(
                        '<rect class="cell" x="{0:.2f}" y="{1:.2f}" width="{2:.2f}" height="{2:.2f}"'
                        ' fill-opacity="{3:.3f}"><title>{4} → {5}: {6}</title></rect>'
                    ).format(j * size, i * size, size, 0.08 + 0.92 * count / total, rows[i], columns[j], count)
                )
    return Markup(
        '<svg viewBox="0 0 {0:.0f} {1:.0f}" role="img" class="plot heat"><title>{2}</title>'
        '<rect class="frame" width="{0:.0f}" height="{1:.0f}"/>{3}</svg>'
    ).format(WIDTH, height, title, Markup("").join(cells))


class _Axes:
    """A frame with axes: data coordinates to drawing coordinates."""

    def __init__(
        self,
        x_low: float,
        x_high: float,
        y_low: float,
        y_high: float,
        x_title: str,
        y_title: str,
        *,
        percent_x: bool = False,
        percent_y: bool = False,
        height: float = 250.0,
    ):
        self.x_low, self.x_high = _span(x_low, x_high)
        self.y_low, self.y_high = _span(y_low, y_high)
        self.x_title, self.y_title = x_title, y_title
        self.percent_x, self.percent_y, self.height = percent_x, percent_y, height

    def x(self, value: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (value - self.x_low) / (self.x_high - self.x_low)

    def y(self, value: float) -> float:
        inner = self.height - _TOP - _BOTTOM
        return self.height - _BOTTOM - inner * (value - self.y_low) / (self.y_high - self.y_low)

    def draw(self, title: str, drawn: Sequence[Markup], names: Sequence[str]) -> Markup:
        """The finished SVG; a legend is added when there is more than one series."""
        parts = []
        for value in _ticks(self.y_low, self.y_high):
            y = self.y(value)
            parts.append(
                Markup(
                    '<path class="grid" d="M{0} {1:.1f}H{2}"/><text x="{3}" y="{4:.1f}" class="end">{5}</text>'
                ).format(_LEFT, y, WIDTH - _RIGHT, _LEFT - 6, y + 4, _tick(value, self.percent_y))
            )
        base = self.height - _BOTTOM
        for value in _ticks(self.x_low, self.x_high):
            parts.append(
                Markup('<text x="{0:.1f}" y="{1:.1f}" class="middle">{2}</text>').format(
                    self.x(value), base + 17, _tick(value, self.percent_x)
                )
            )
        parts.append(Markup('<path class="axis" d="M{0} {1:.1f}H{2}"/>').format(_LEFT, base, WIDTH - _RIGHT))
        parts.append(
            Markup('<text x="{0}" y="{1:.1f}" class="end muted">{2}</text>').format(
                WIDTH - _RIGHT, self.height - 4, self.x_title
            )
        )
        svg = Markup(
            '<svg viewBox="0 0 {0:.0f} {1:.0f}" role="img" class="plot"><title>{2}</title><desc>{3}</desc>{4}{5}</svg>'
        ).format(
            WIDTH,
            self.height,
            title,
            f"{self.y_title} over {self.x_title}" + (f": {', '.join(names)}" if names else ""),
            Markup("").join(parts),
            Markup("").join(drawn),
        )
        keys = Markup("").join(
            Markup('<span class="key c{0}">{1}</span>').format(i + 1, name) for i, name in enumerate(names)
        )
        legend = Markup('<span class="legend">{0}</span>').format(keys) if len(names) > 1 else Markup("")
        return Markup(
            '<figure><figcaption><b>{0}</b> <span class="muted">{1}</span>{2}</figcaption>{3}</figure>'
        ).format(escape(title), self.y_title, legend, svg)


def _span(low: float, high: float) -> tuple[float, float]:
    """A range that has a length: values that are as good as equal get one unit."""
    return (low, high) if high - low > 1e-9 * max(1.0, abs(low), abs(high)) else (low, low + max(1.0, abs(low)))


def _ticks(low: float, high: float) -> list[float]:
    """About five round values between low and high."""
    span = high - low
    step = 10.0 ** math.floor(math.log10(span / 4))
    step *= next((k for k in (1, 2, 5) if span / (step * k) <= 5.5), 10)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _tick(value: float, percent: bool) -> str:
    if percent:
        return f"{100 * value:g}%"
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e6 else f"{value:g}"

"""A small chart in SVG: axes, lines, marks and whiskers, coloured by CSS classes of the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

Point = tuple[float, float]

_SHAPES: dict[str, Callable[[float, float, float], str]] = {
    "hybrid": lambda x, y, r: (
        f'<path d="M{x:.1f} {y - 1.3 * r:.1f}L{x + 1.3 * r:.1f} {y:.1f}L{x:.1f}'
        f' {y + 1.3 * r:.1f}L{x - 1.3 * r:.1f} {y:.1f}Z"'
    ),
    "sparse": lambda x, y, r: (
        f'<rect x="{x - r:.1f}" y="{y - r:.1f}" width="{2 * r:.1f}" height="{2 * r:.1f}"'
    ),
}
_SHAPES |= {"above": _SHAPES["hybrid"], "below": _SHAPES["sparse"]}


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values to pixels: `low` to `start`, `high` to `end`; by their logarithm with `log`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(at)
        share = 0.5 if high == low else (at - low) / (high - low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values inside the scale, about five."""
        if self.log:
            return _log_ticks(self.low, self.high)
        step = _round_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(i * step, 10) for i in range(first, last + 1)]


@dataclass(slots=True)
class Chart:
    """A chart under construction; coordinates given to its methods are values, not pixels.

    `kind` arguments are classes of the page that give the colour, and the shape of marks, so that
    nothing is told by colour alone. `label` says in words what the chart shows.
    """

    label: str
    x: Scale
    y: Scale
    width: float
    height: float
    _parts: list[str] = field(default_factory=list)

    def axes(self, x_title: str, y_title: str) -> None:
        """Grid lines and numbers on both axes, and their titles."""
        left, bottom = self.x.start, self.y.start
        for value in self.x.ticks():
            at = self.x(value)
            self._add(f'<path class="grid" d="M{at:.1f} {bottom:.1f}V{self.y.end:.1f}"/>')
            self._text(at, bottom + 16, _number(value), "middle")
        for value in self.y.ticks():
            at = self.y(value)
            self._add(f'<path class="grid" d="M{left:.1f} {at:.1f}H{self.x.end:.1f}"/>')
            self._text(left - 7, at + 4, _number(value), "end")
        self._text((left + self.x.end) / 2, bottom + 34, x_title, "middle", "title")
        self._text(left - 7, self.y.end - 10, y_title, "start", "title")

    def row(self, y: float, text: str) -> None:
        """A name at the left of a horizontal line, for charts whose rows are names."""
        at = self.y(y)
        self._text(self.x.start - 10, at + 4, text, "end")

    def band(self, y: float) -> None:
        """A line across the chart between two rows."""
        at = self.y(y)
        self._add(f'<path class="grid" d="M{self.x.start:.1f} {at:.1f}H{self.x.end:.1f}"/>')

    def x_axis(self, title: str) -> None:
        for value in self.x.ticks():
            at = self.x(value)
            self._add(f'<path class="grid" d="M{at:.1f} {self.y.start:.1f}V{self.y.end:.1f}"/>')
            self._text(at, self.y.start + 16, _number(value), "middle")
        self._text((self.x.start + self.x.end) / 2, self.y.start + 34, title, "middle", "title")

    def line(self, points: Sequence[Point], kind: str) -> None:
        steps = "L".join(f"{self.x(px):.1f} {self.y(py):.1f}" for px, py in points)
        self._add(f'<path class="line {kind}" d="M{steps}"/>')

    def diagonal(self) -> None:
        """Where x and y are equal."""
        low, high = max(self.x.low, self.y.low), min(self.x.high, self.y.high)
        self._add(
            f'<path class="equal" d="M{self.x(low):.1f} {self.y(low):.1f}'
            f'L{self.x(high):.1f} {self.y(high):.1f}"/>'
        )

    def mark(self, x: float, y: float, kind: str, tip: str = "", *, radius: float = 4.5) -> None:
        px, py = self.x(x), self.y(y)
        shape = _SHAPES.get(kind)
        body = (
            shape(px, py, radius * 0.9)
            if shape
            else f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{radius:g}"'
        )
        tip = f"<title>{escape(tip)}</title>" if tip else ""
        self._add(f'{body} class="mark {kind}">{tip}</{body[1:].split(" ", 1)[0]}>')

    def bar(self, x: tuple[float, float], y: tuple[float, float], kind: str, tip: str = "") -> None:
        """A filled rectangle from (x[0], y[0]) to (x[1], y[1])."""
        left, right = sorted((self.x(x[0]), self.x(x[1])))
        top, bottom = sorted((self.y(y[0]), self.y(y[1])))
        tip = f"<title>{escape(tip)}</title>" if tip else ""
        self._add(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}"'
            f' height="{bottom - top:.1f}" class="mark {kind}">{tip}</rect>'
        )

    def whisker(self, x: tuple[float, float], y: tuple[float, float], kind: str) -> None:
        """A line from (x[0], y[0]) to (x[1], y[1]): an interval."""
        self._add(
            f'<path class="whisker {kind}" d="M{self.x(x[0]):.1f} {self.y(y[0]):.1f}'
            f'L{self.x(x[1]):.1f} {self.y(y[1]):.1f}"/>'
        )

    def note(self, x: float, y: float, text: str, kind: str) -> None:
        """Words to the right of a mark."""
        self._text(self.x(x) + 9, self.y(y) + 4, text, "start", f"name {kind}")

    def svg(self) -> str:
        return (
            f'<svg viewBox="0 0 {self.width:g} {self.height:g}" role="img"'
            f' aria-label="{escape(self.label, quote=True)}">{"".join(self._parts)}</svg>'
        )

    def _add(self, part: str) -> None:
        self._parts.append(part)

    def _text(self, x: float, y: float, text: str, anchor: str, kind: str = "tick") -> None:
        self._add(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">'
            f"{escape(text)}</text>"
        )


def span(values: Sequence[float], *, padding: float = 0.08) -> tuple[float, float]:
    """A range around `values` with some room, inside 0 to 1 where they are."""
    low, high = min(values), max(values)
    room = padding * (high - low) or 0.05
    return (
        max(0.0, low - room) if low >= 0 else low - room,
        min(1.0, high + room) if high <= 1 else high + room,
    )


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step)) if step > 0 else 0.1
    return next((power * m for m in (1, 2, 2.5, 5) if power * m >= step), power * 10)


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1,) if len(powers) > 4 else (1, 2, 5)
    return [s * 10.0**p for p in powers for s in steps if low <= s * 10.0**p <= high]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"

"""Small multiples as an SVG: a grid of line charts which share their colours, and in each column the horizontal scale.

    panel = Panel("p99, ms", {"point-read": [(1, 0.3), (64, 2.1)]}, logarithmic_x=True, logarithmic_y=True)
    path.write_text(svg("Title", "a line below it", [[panel, ...], ...]))

Vertical scales begin at zero, unless they are logarithmic.
"""

import math
from dataclasses import dataclass, field

COLOURS = ["#b7410e", "#2f6f9f", "#5a8f3c", "#8a5fa8", "#b08c1a", "#607080", "#c2557a", "#3a9a97"]
WIDTH, HEIGHT = 250, 150
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 30, 34


@dataclass
class Panel:
    title: str
    lines: dict
    x_title: str = ""
    logarithmic_x: bool = False
    logarithmic_y: bool = False
    marks: bool = True
    ticks_x: list = field(default_factory=list)
    text: object = None


def short(value):
    """A number in few characters: 1.5k, 20M, 0.25."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{letter}"
    return f"{value:.3g}"


def steps(low, high):
    """About four round numbers that cover low..high."""
    if high <= low:
        high = low + 1
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(times for times in (1, 2, 5, 10) if (high - low) / (step * times) <= 5)
    first = math.floor(low / step)
    ticks = [first * step]
    while ticks[-1] < high - step * 1e-9:
        ticks.append((first + len(ticks)) * step)
    return ticks


def decades(low, high):
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    every = max(1, math.ceil((last - first) / 5))
    return [10.0**power for power in range(first, max(last, first + 1) + every, every)]


def chart(panel, left, top, colours):
    points = [point for line in panel.lines.values() for point in line]
    yield f'<text x="{left}" y="{top + 14}" font-weight="bold">{panel.title}</text>'
    if not points:
        yield f'<text x="{left + LEFT}" y="{top + 70}" fill="#666">not measured</text>'
        return
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    ticks_x = panel.ticks_x or (decades(min(xs), max(xs)) if panel.logarithmic_x else steps(min(xs), max(xs)))
    is_logarithmic = panel.logarithmic_y and min(ys) > 0
    ticks_y = decades(min(ys), max(ys)) if is_logarithmic else steps(0, max(ys) or 1)
    x0, y0 = left + LEFT, top + TOP
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM + 20

    def place(value, ticks, logarithmic):
        scale = math.log10 if logarithmic else float
        low, high = scale(ticks[0]), scale(ticks[-1])
        return (scale(value) - low) / (high - low) if high > low else 0.5

    ends_x = [min([*ticks_x, *xs]), max([*ticks_x, *xs])]
    at_x = lambda value: x0 + place(value, ends_x, panel.logarithmic_x) * inner_width
    at_y = lambda value: y0 + (1 - place(value, ticks_y, is_logarithmic)) * inner_height
    for tick in ticks_y:
        yield f'<path d="M{x0} {at_y(tick):.1f}h{inner_width}" stroke="#ddd"/>'
        yield f'<text x="{x0 - 6}" y="{at_y(tick) + 4:.1f}" text-anchor="end" font-size="10">{(panel.text or short)(tick)}</text>'
    for tick in ticks_x:
        yield f'<path d="M{at_x(tick):.1f} {y0 + inner_height}v4" stroke="#888"/>'
        yield f'<text x="{at_x(tick):.1f}" y="{y0 + inner_height + 15}" text-anchor="middle" font-size="10">{short(tick)}</text>'
    yield f'<text x="{x0 + inner_width / 2}" y="{y0 + inner_height + 29}" text-anchor="middle" font-size="10" fill="#666">{panel.x_title}</text>'
    for name, line in panel.lines.items():
        shown = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in line)
        yield f'<polyline points="{shown}" fill="none" stroke="{colours[name]}" stroke-width="1.8" stroke-linejoin="round"/>'
        if panel.marks:
            for x, y in line:
                yield f'<circle cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="2.6" fill="{colours[name]}"/>'


def svg(title, below, rows):
    """All panels. Names of lines are explained once, at the top."""
    names = list(dict.fromkeys(name for row in rows for panel in row for name in panel.lines))
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}
    columns = max(len(row) for row in rows)
    width, begin, row_height = 32 + columns * (WIDTH + 12), 88, HEIGHT + 36
    height = begin + row_height * len(rows)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="12" fill="#222">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="16" y="26" font-size="16" font-weight="bold">{title}</text>',
        f'<text x="16" y="45" fill="#666">{below}</text>',
    ]
    x = 16
    for name in names:
        out.append(f'<path d="M{x} 63h18" stroke="{colours[name]}" stroke-width="3"/>')
        out.append(f'<text x="{x + 24}" y="67">{name}</text>')
        x += 44 + 7 * len(name)
    for number, row in enumerate(rows):
        for column, panel in enumerate(row):
            out += chart(panel, 16 + column * (WIDTH + 12), begin + number * row_height, colours)
    return "\n".join([*out, "</svg>", ""])

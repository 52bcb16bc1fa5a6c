"""Artifacts as points: what each lost, over its size, beside the limit. SVG as wide as its page. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from converters.html_parts import text
from converters.report import Row

__all__ = ["drop_plot"]

WIDTH, HEIGHT = 400, 290  # in the drawing's own units: small enough that its text can be read at the width of a phone
UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
LEFT, RIGHT, TOP, BOTTOM = 58, 392, 12, 246
FONT, LETTER = 12, 6.4  # a label's height and the mean width of its letters
SHAPES = {  # of each target, around (0, 0); the shape tells it where the color cannot
    "onnx": "<circle r=5 />",
    "tflite": "<rect x=-4.5 y=-4.5 width=9 height=9 />",
    "coreml": "<path d='M0 -6L6 5H-6Z' />",
}
Box = tuple[float, float, float, float]  # left, top, right, bottom


def drop_plot(rows: Sequence[Row], limit: float) -> str:
    """``bytes`` to the right, ``drop`` upwards; nothing for fewer than one artifact that was measured."""
    shown = [row for row in rows if row.bytes and row.drop is not None and math.isfinite(row.drop)]
    if not shown:
        return ""
    sizes, drops = [float(row.bytes or 0) for row in shown], [float(row.drop or 0) for row in shown]
    unit, name = next(((size, name) for size, name in UNITS if max(sizes) >= size), (1.0, "bytes"))
    most = 1.08 * max(sizes)
    low, high = min(0.0, *drops), max(1.25 * limit, 1.15 * max(drops), 1e-4)
    low -= 0.08 * (high - low)  # a mark on the lowest line is seen whole

    def x(size: float) -> float:
        return LEFT + size / most * (RIGHT - LEFT)

    def y(drop: float) -> float:
        return BOTTOM - (drop - low) / (high - low) * (BOTTOM - TOP)

    parts = [f"<path class=axis d='M{LEFT} {TOP}V{BOTTOM}H{RIGHT}' />"]
    for size in _ticks(0, most / unit):
        at = x(size * unit)
        parts.append(f"<text x={at:.1f} y={BOTTOM + 16} text-anchor=middle>{size:g}</text>")
    for drop in _ticks(low, high):
        parts.append(f"<path class=grid d='M{LEFT} {y(drop):.1f}H{RIGHT}' />")
        parts.append(f"<text x={LEFT - 6} y={y(drop) + 4:.1f} text-anchor=end>{drop:g}</text>")
    parts += [
        f"<text x={(LEFT + RIGHT) / 2} y={HEIGHT - 8} text-anchor=middle>size, {name}</text>",
        f"<text transform='translate(12 {(TOP + BOTTOM) / 2}) rotate(-90)' text-anchor=middle>lost</text>",
        f"<path class=limit d='M{LEFT} {y(limit):.1f}H{RIGHT}' />",
        f"<text class=limit x={RIGHT} y={y(limit) - 5:.1f} text-anchor=end>limit {limit:g}</text>",
    ]
    marks = [(x(size), y(drop)) for size, drop in zip(sizes, drops, strict=True)]
    taken: list[Box] = [(cx - 6, cy - 6, cx + 6, cy + 6) for cx, cy in marks]
    taken.append((RIGHT - LETTER * 12, y(limit) - FONT - 5, RIGHT, y(limit) + 2))
    for row, (cx, cy) in zip(shown, marks, strict=True):
        label = f"{row.target} {row.precision}"
        box = next((box for box in _places(cx, cy, len(label) * LETTER) if _is_free(box, taken)), None)
        told = f"{label}: {row.bytes or 0:,} bytes, lost {row.drop or 0:+.4f}"
        kind = row.target + ("" if row.status == "ok" else " out")
        parts.append(
            f"<g class='mark {kind}' transform='translate({cx:.1f} {cy:.1f})'>"
            f"<title>{text(told)}</title>{SHAPES[row.target]}</g>"
        )
        if box is None:  # no place is left: the mark's title and the table have it
            continue
        taken.append(box)
        middle = (box[1] + box[3]) / 2
        if abs(middle - cy) > FONT:
            edge = box[0] - 1 if box[0] > cx else box[2] + 1
            parts.append(f"<path class=grid d='M{cx:.1f} {cy:.1f}L{edge:.1f} {middle:.1f}' />")
        parts.append(f"<text x={box[0]:.1f} y={middle + 4:.1f}>{text(label)}</text>")
    return (
        f"<figure><svg viewBox='0 0 {WIDTH} {HEIGHT}' font-size={FONT} role=img aria-labelledby=plot>{''.join(parts)}"
        "</svg><figcaption id=plot>What each artifact lost on the evaluation rows, over its size: lower and further "
        "left is better, below 0 is gained. Hollow marks are not in the bundle. The numbers are the table's."
        "</figcaption></figure>"
    )


def _ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between the two."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= rough * 0.999)
    return [round(index * step, 12) for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _places(cx: float, cy: float, width: float) -> Iterator[Box]:
    """Where a mark's label may stand, the nearest first, on either side."""
    for away in range(9):
        for shift in (away * FONT, -away * FONT) if away else (0,):
            for left in (cx + 9, cx - 9 - width):
                yield (left, cy + shift - FONT / 2, left + width, cy + shift + FONT / 2)


def _is_free(box: Box, taken: Sequence[Box]) -> bool:
    inside = box[0] >= LEFT + 2 and box[2] <= WIDTH and box[1] >= 0 and box[3] <= BOTTOM - 1
    return inside and not any(
        box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in taken
    )

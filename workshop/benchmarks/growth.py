"""What `dvc repro` from nothing takes at several sizes of the dataset, as a table and a plot; `incremental` runs it."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workshop.benchmarks import measure
from workshop.benchmarks.pipeline import Project, require_all

LIMITS = {"ms an image, dearest / cheapest": 1.15, "MB of the largest process": 600, "KB more an image": 1}
"""What is promised, at most; a KB is 1,000 bytes."""
COLOURS = {"folder": "#1f77b4", "zip": "#d95f02"}
WIDTH, HEIGHT, LEFT, TOP = 420, 260, 60, 40
"""Of a panel, and where its axes begin in it, in SVG units."""


@dataclass(frozen=True)
class Point:
    """A cold `dvc repro` of so many images.

    Attributes:
        images: how many.
        taken: what it took.
    """

    images: int
    taken: measure.Taken

    @property
    def ms(self) -> float:
        """Milliseconds an image."""
        return 1000 * self.taken.seconds / self.images


def grow(folder: Path, made: Path, sizes: Sequence[int], layout: str) -> Iterator[Point]:
    """A run at each size, in a project that is removed afterwards; `made` holds the photographs of the largest."""
    for images in sizes:
        project = Project(folder / f"{layout}-{images}", images, made, layout)
        point = Point(images, project.run(["dvc", "repro"]))
        require_all(project.folder / "data/packed", images)
        shutil.rmtree(project.folder)
        print(f"{layout}, {images} images: {point.taken.seconds:.1f} s", file=sys.stderr, flush=True)
        yield point


def table(layout: str, points: Sequence[Point]) -> Iterator[str]:
    """A line a size, and what follows from them."""
    yield f"{f'{layout}, cold, images':24}{'seconds':>10}{'ms/image':>10}{'peak MiB':>10}  of"
    for point in points:
        taken = point.taken
        yield f"{point.images:<24}{taken.seconds:10.2f}{point.ms:10.3f}{taken.peak_mib:10.0f}  {taken.largest}"
    yield from (measure.judged(f"{layout}: {name}", value, LIMITS[name]) for name, value in figures(points).items())


def figures(points: Sequence[Point]) -> dict[str, float]:
    """The names of LIMITS with what was measured; more memory an image is the slope of the line of least squares."""
    images, costs = [point.images for point in points], [point.ms for point in points]
    peaks = [point.taken.peak_mib * 2**20 for point in points]
    slope = np.polyfit(images, peaks, 1)[0] if len(points) > 1 else 0.0
    return dict(zip(LIMITS, (max(costs) / min(costs), max(peaks) / 1e6, slope / 1e3), strict=True))


def draw(found: dict[str, list[Point]], path: Path) -> None:
    """Write an SVG to `path`: milliseconds an image and MiB of the largest process over the images of each layout."""
    panels = (
        panel("ms an image", {name: [(p.images, p.ms) for p in points] for name, points in found.items()}),
        panel(
            "MiB, largest process", {n: [(p.images, p.taken.peak_mib) for p in points] for n, points in found.items()}
        ),
    )
    shown = "\n".join(f'<g transform="translate({WIDTH * i} 0)">\n{lines}\n</g>' for i, lines in enumerate(panels))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {HEIGHT}" font-family="sans-serif"'
    text = f'{head} font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n{shown}\n</svg>\n'
    path.write_text(text, encoding="utf-8", newline="\n")


def panel(title: str, lines: dict[str, list[tuple[int, float]]]) -> str:
    """SVG elements: images along a logarithmic axis, `title` upwards from 0, a line a layout."""
    sizes = sorted({images for line in lines.values() for images, _ in line})
    most = max(value for line in lines.values() for _, value in line)
    step = next(step for e in range(-4, 7) for step in (10.0**e, 2 * 10.0**e, 5 * 10.0**e) if 5 * step >= most)
    top = 5 * step
    right, bottom = WIDTH - LEFT, HEIGHT - TOP

    def place(images: int, value: float) -> tuple[float, float]:
        share = np.log(images / sizes[0]) / max(np.log(sizes[-1] / sizes[0]), 1e-9)
        return round(LEFT + share * (right - LEFT), 1), round(bottom - value / top * (bottom - TOP), 1)

    def words(x: float, y: float, text: str, anchor: str = "middle", colour: str = "black") -> str:
        return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}">{text}</text>'

    drawn = [words(LEFT, TOP - 18, title, "start"), words((LEFT + right) / 2, bottom + 32, "images")]
    drawn += [words(place(size, 0)[0], bottom + 16, f"{size:,}") for size in sizes]
    for value in step * np.arange(6):
        y = place(sizes[0], value)[1]
        drawn.append(f'<line x1="{LEFT}" x2="{right}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        drawn.append(words(LEFT - 6, y + 4, f"{value:g}", "end"))
    for number, (name, line) in enumerate(lines.items()):
        places = [place(*point) for point in line]
        corners = " ".join(f"{x},{y}" for x, y in places)
        drawn.append(f'<polyline points="{corners}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        drawn += [f'<circle cx="{x}" cy="{y}" r="3" fill="{COLOURS[name]}"/>' for x, y in places]
        drawn.append(words(right - 60 * number, TOP - 18, name, "end", COLOURS[name]))
    return "\n".join(drawn)

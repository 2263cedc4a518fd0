"""The verdict on a comparison: what happened and whether it matters, as data; and the words that every output uses."""

from dataclasses import dataclass

import polars as pl

from imagepack.compare import gates
from imagepack.compare.words import DRIFTED, changed_findings, plural, widest_drift

MATTERS = {
    "test_changed": ("{} image of test changed", "{} images of test changed"),
    "class_removed": ("{} class gone", "{} classes gone"),
    "leakage": ("{} image of val or test leaks from train", "{} images of val or test leak from train"),
    "invalid_increase": ("{} more image rejected", "{} more images rejected"),
    "group_split": ("{} group in several splits", "{} groups in several splits"),
    "label_conflict": ("{} image new under two labels", "{} images new under two labels"),
}
"""Rules of gates.RULES that make a change matter, as drift does: the words for one image or class, and for several."""


@dataclass(frozen=True)
class Verdict:
    """What a comparison comes to.

    Attributes:
        images: how many images A and B have together.
        differ: how many of them differ.
        other_packs: whether the packs differ.
        something_else: whether anything beside images and packs differs, such as code, params or metrics.
        broken: the rules that make it matter, and how many images, classes or features break each.
        drifted: what has drifted, a key of words.DRIFTED; None where nothing has.
        drift_tested: whether enough images came or went to test for drift.
        splits_known: whether both versions have a pack.
        cells: how many cells of tables differ.
    """

    images: int
    differ: int
    other_packs: bool
    something_else: bool
    broken: dict[str, int]
    drifted: str | None
    drift_tested: bool
    splits_known: bool
    cells: int = 0

    @property
    def matters(self) -> bool:
        """Whether someone should look before going on."""
        return bool(self.broken)


def judge(summary: dict, changes: pl.DataFrame) -> Verdict:
    """Return the verdict on a comparison.

    Args:
        summary: as imagepack/compare/schema.json has it.
        changes: a row each.
    """
    images = sum(summary["counts"].values())
    pipeline = summary["pipeline"]
    others = (
        pipeline["stages"],
        pipeline["packages"],
        summary["metrics"],
        *summary["status"].values(),
        summary["columns"],
    )
    failures = gates.check(summary, changes, [*MATTERS, "drift"])
    return Verdict(
        images=images,
        differ=images - summary["counts"]["unchanged"],
        other_packs=bool(pipeline["packed_changed"]),
        something_else=any(others) or any(changed_findings(summary)),
        broken={failure.rule: failure.count for failure in failures if failure.count},  # 0: it could not be checked
        drifted=widest_drift(summary["drift"]),
        drift_tested=bool(summary["drift"]["tests"]),
        splits_known=summary["a"]["packed"] and summary["b"]["packed"],
        cells=sum(column["changed"] for column in summary["columns"]),
    )


UNKNOWN_SPLITS = "splits are unknown, a version has no pack"


def opening(verdict: Verdict) -> str:
    """Return what happened: a whole sentence where it does not matter; else one that `reasons` complete."""
    if verdict.differ:
        happened = f"{verdict.differ} of {plural(verdict.images, 'image')} differ{'s' * (verdict.differ == 1)}"
    else:
        happened = f"the same {plural(verdict.images, 'image')}"
        if verdict.cells:
            happened += f", but {plural(verdict.cells, 'cell')} of tables differ{'s' * (verdict.cells == 1)}"
        elif verdict.other_packs:
            happened += ", but other packs"
    if verdict.matters:
        return f"{happened}, and it matters:"
    if not (verdict.differ or verdict.other_packs or verdict.something_else):
        return f"nothing changed: {happened}{', labels and splits' * verdict.splits_known}."
    splits = "test as before, no new leakage" if verdict.splits_known else UNKNOWN_SPLITS
    return f"{happened}; {splits}, {'no drift' if verdict.drift_tested else 'drift not tested'}."


def reasons(verdict: Verdict) -> list[str]:
    """Return why it matters, without any name from outside; nothing where it does not matter."""
    if not verdict.matters:
        return []
    why = [
        DRIFTED[verdict.drifted] if rule == "drift" else MATTERS[rule][count != 1].format(count)
        for rule, count in verdict.broken.items()
    ]
    return why + [UNKNOWN_SPLITS] * (not verdict.splits_known)


def sentence(verdict: Verdict) -> str:
    """Return the whole verdict as one sentence."""
    why = "; ".join(reasons(verdict))
    return f"{opening(verdict)} {why}." if why else opening(verdict)

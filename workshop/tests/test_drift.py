"""Drift is found and named where it is, and hardly ever where there is none, whatever two versions share."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Workspace, add_pictures, picture, save
from jsonschema import Draft202012Validator
from PIL import ImageEnhance
from scipy.stats import binom, ks_2samp, kstwobign

from imagepack.compare import drift as module
from imagepack.compare.drift import ALPHA, LEAST_EFFECT, drift

SCHEMA = json.loads((Path(module.__file__).parent / "schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA["properties"]["drift"])
CLASSES = [f"class{number}" for number in range(8)]


def images(count: int, seed: int, classes: list[str] = CLASSES, **columns) -> pl.DataFrame:
    """A manifest of images of one distribution: some features skewed, some with few values; `columns` replace."""
    rng = np.random.default_rng(seed)
    noise = rng.bytes(32 * count).hex()
    drawn = {
        "path": [f"{seed}/{number}.jpg" for number in range(count)],
        "label": rng.choice(classes, count) if count else [],
        "width": rng.choice(np.array([240, 320, 640, 1024], "i4"), count, p=[0.1, 0.2, 0.6, 0.1]),
        "height": rng.choice(np.array([240, 480, 768], "i4"), count),
        "orientation": np.ones(count, "i1"),
        "pixel_hash": [f"{seed:016x}{number:016x}" for number in range(count)],
        "perceptual_hash": [noise[start : start + 64] for start in range(0, len(noise), 64)],
        "brightness": rng.normal(120, 30, count).astype("f4"),
        "contrast": rng.integers(20, 80, count).astype("f4"),
        "saturation": np.where(rng.random(count) < 0.4, 0, rng.gamma(2, 20, count)).astype("f4"),
        "sharpness": rng.lognormal(5, 1.5, count).astype("f4"),
        "status": ["accepted"] * count,
    }
    return pl.DataFrame(drawn | columns).with_columns(pl.col("path", "label", "pixel_hash", "status").cast(pl.String))


def matched(a: pl.DataFrame, b: pl.DataFrame) -> pl.DataFrame:
    """Pairs: images with the same path are the same."""
    left = a.select("path", pixels_a="pixel_hash", label_a="label").with_row_index("row_a")
    right = b.select("path", pixels_b="pixel_hash", label_b="label").with_row_index("row_b")
    both = left.join(right, on="path", how="full")
    kind = (
        pl.when(pl.col("row_a").is_null())
        .then(pl.lit("added"))
        .when(pl.col("row_b").is_null())
        .then(pl.lit("removed"))
        .when(pl.col("pixels_a") != pl.col("pixels_b"))
        .then(pl.lit("edited"))
        .when(pl.col("label_a") != pl.col("label_b"))
        .then(pl.lit("relabelled"))
        .otherwise(pl.lit("unchanged"))
    )
    return both.select("row_a", "row_b", kind=kind)


def compared(a: pl.DataFrame, b: pl.DataFrame, novelty: bool = False) -> dict:
    """What `drift` says, in accordance with the schema, and able to become JSON."""
    found = drift(a, b, matched(a, b), novelty)
    VALIDATOR.validate(found)
    json.dumps(found, allow_nan=False)
    return found


def alarms(found: dict) -> set[tuple[str, str, str | None]]:
    """Feature, scope and class of what drifted."""
    named = {(test["feature"], test["scope"], test["class"]) for test in found["features"] if test["drifted"]}
    assert found["drifted"] == bool(named)
    return named


def the(found: dict, feature: str, scope: str) -> dict:
    """The one test of this feature and scope."""
    (test,) = (test for test in found["features"] if (test["feature"], test["scope"]) == (feature, scope))
    return test


def two_versions(shared: int, removed: int, added: int, seed: int, **columns) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Of which all images are draws of one distribution."""
    pool = images(shared + removed + added, seed, **columns)
    return pool[: shared + removed], pl.concat([pool[:shared], pool[shared + removed :]])


SIZES = [  # shared, removed, added
    (0, 100, 100),
    (0, 30, 1000),
    (900, 100, 100),
    (900, 0, 100),
    (100, 900, 20),
    (4950, 50, 50),
    (990, 10, 40),
]


@pytest.mark.slow
def test_where_nothing_drifts_a_comparison_raises_any_alarm_with_the_claimed_chance(monkeypatch: pytest.MonkeyPatch):
    """However small the effect, and in whatever feature, scope and class."""
    monkeypatch.setattr(module, "LEAST_EFFECT", 0)
    falsely, comparisons = 0, 0
    for sizes in SIZES:
        for seed in range(50):
            a, b = two_versions(*sizes, seed, classes=CLASSES[: 2 + seed % 7])
            falsely += drift(a, b, matched(a, b))["drifted"]
            comparisons += 1
    assert falsely <= binom.ppf(0.999, comparisons, ALPHA)


@pytest.mark.slow
@pytest.mark.parametrize(("shared", "changed"), [(0, 300), (900, 100), (4950, 50)])
def test_p_is_what_it_says_and_not_larger_because_images_are_shared(shared: int, changed: int):
    """Of 200 comparisons without drift, a twentieth have a p below 0.05; none would if A and B were independent."""
    comparisons = 200
    below = {"brightness": 0, "sharpness": 0, "class": 0, "independent": 0}
    for seed in range(comparisons):
        a, b = two_versions(shared, changed, changed, seed)
        found = drift(a, b, matched(a, b))
        for feature in ("brightness", "sharpness", "class"):
            below[feature] += the(found, feature, "all")["p"] <= 0.05
        below["independent"] += ks_2samp(a["brightness"], b["brightness"], method="asymp").pvalue <= 0.05
    low, high = binom.ppf([0.0005, 0.9995], comparisons, [0.03, 0.05])  # whole numbers of images: a little below 0.05
    assert all(low <= below[feature] <= high for feature in ("brightness", "sharpness", "class"))
    assert (below["independent"] == 0) == (shared > 0)


@pytest.mark.slow
def test_relabelling_at_random_raises_no_more_alarms_than_claimed():
    comparisons = 200
    below = 0
    for seed in range(comparisons):
        a = images(2000, seed)
        drawn_anew = images(2000, 1000 + seed)["label"]
        b = a.with_columns(label=pl.when(pl.int_range(pl.len()) < 200).then(drawn_anew).otherwise("label"))
        below += the(drift(a, b, matched(a, b)), "class", "all")["p"] <= 0.05
    assert binom.ppf(0.0005, comparisons, 0.03) <= below <= binom.ppf(0.9995, comparisons, 0.05)


@pytest.mark.slow
def test_a_fixed_threshold_of_the_population_stability_index_alarms_on_chance_alone():
    def index(a: np.ndarray, b: np.ndarray) -> float:
        edges = np.quantile(a, np.linspace(0, 1, 11)[1:-1])
        p, q = (np.maximum(np.bincount(np.searchsorted(edges, x), minlength=10) / len(x), 1e-4) for x in (a, b))
        return float(((p - q) * np.log(p / q)).sum())

    by_index = by_test = 0
    for seed in range(50):
        a, b = two_versions(0, 100, 100, seed)
        by_index += index(a["brightness"].to_numpy(), b["brightness"].to_numpy()) > 0.1
        by_test += compared(a, b)["drifted"]
    assert by_index > 35
    assert by_test <= binom.ppf(0.999, 50, ALPHA)


def test_darker_images_that_came_are_named_with_what_they_are_and_nothing_else():
    a = images(2000, 1)
    b = pl.concat([a, images(100, 2).with_columns(pl.col("brightness") - 40)])
    found = compared(a, b)
    assert alarms(found) == {("brightness", "added", None)}
    test = the(found, "brightness", "added")
    assert (test["n_a"], test["n_b"]) == (2000, 100)
    assert test["b"]["median"] == pytest.approx(80, abs=10)
    assert test["a"]["p5"] == pytest.approx(120 - 1.645 * 30, abs=5)
    assert the(found, "brightness", "all")["p_adjusted"] <= ALPHA  # true, but of 5 % of the images
    assert the(found, "brightness", "all")["effect"] < LEAST_EFFECT
    assert found["features"][0]["scope"] == "all"


def test_blur_in_one_class_is_found_where_the_whole_hardly_changes():
    a = images(4000, 1, classes=[f"class{number:02}" for number in range(40)])
    blurry = pl.col("label") == "class07"
    b = a.with_columns(
        sharpness=pl.when(blurry).then(pl.col("sharpness") / 8).otherwise("sharpness"),
        pixel_hash=pl.when(blurry).then("blurred" + pl.col("pixel_hash")).otherwise("pixel_hash"),
    )
    assert alarms(compared(a, b)) == {("sharpness", "class", "class07")}


def test_another_mix_of_classes_is_found():
    a = images(1000, 1)
    b = pl.concat([a, images(400, 2, classes=["class3"])])
    found = compared(a, b)
    assert {("class", "all", None), ("class", "added", None)} == alarms(found)
    test = the(found, "class", "all")
    assert test["a"] is None
    assert test["effect"] == pytest.approx(400 / 1400 * 7 / 8, abs=0.01)


def test_relabelling_in_one_direction_is_a_drift_of_the_mix():
    a = images(1000, 1, classes=["cat", "dog"])
    b = a.with_columns(label=pl.when(pl.int_range(pl.len()) < 300).then(pl.lit("dog")).otherwise("label"))
    assert alarms(compared(a, b)) == {("class", "all", None)}


def test_other_sizes_are_found_and_turned_ones_are_the_same():
    a = images(1000, 1, classes=["cat"])
    fresh = images(1000, 2, classes=["cat"])
    larger = fresh.with_columns(pl.col("width", "height") * 2)
    assert alarms(compared(a, larger)) == {("size", "all", None), ("size", "class", "cat")}
    turned = fresh.with_columns(width="height", height="width", orientation=pl.lit(6, pl.Int8))
    assert alarms(compared(a, turned)) == set()
    not_said = turned.with_columns(orientation=pl.lit(1, pl.Int8))
    assert alarms(compared(a, not_said)) == {("aspect", "all", None), ("aspect", "class", "cat")}


def test_edits_of_all_images_are_a_drift_although_each_stayed():
    a = images(500, 1)
    b = a.with_columns(pl.col("brightness") + 30, pixel_hash="edited" + pl.col("pixel_hash"))
    found = compared(a, b)
    assert ("brightness", "all", None) in alarms(found)
    assert {feature for feature, *_ in alarms(found)} == {"brightness"}
    assert "added" not in {test["scope"] for test in found["features"]}
    assert [test["feature"] for test in found["features"]].count("class") == 0  # all kept their labels


def test_identical_versions_need_no_test():
    a = images(300, 1)
    found = compared(a, a[::-1])
    assert (found["tests"], found["drifted"], found["features"], found["novelty"]) == (0, False, [], None)
    assert [d["feature"] for d in found["distributions"]] == [*module.FEATURES, "class"]
    assert all(d["a"] == d["b"] and sum(d["a"]) == 300 and sum(d["added"]) == 0 for d in found["distributions"])


def test_exchanged_versions_have_the_same_effects():
    a = images(1500, 1)
    kept = a[200:].with_columns(label=pl.when(pl.int_range(pl.len()) < 90).then(pl.lit("class1")).otherwise("label"))
    b = pl.concat([kept, images(350, 2).with_columns(pl.col("brightness") - 20)])
    there, back = compared(a, b), compared(b, a)

    def mirrored(found: dict, n_a: str, n_b: str, p_a: str, p_b: str) -> list[tuple]:
        kept = [test for test in found["features"] if test["scope"] != "added"]
        exact = ("feature", "scope", "class", "effect", "p", n_a, n_b, p_a, p_b)
        return [tuple(test[key] for key in exact) for test in kept]

    assert len(mirrored(there, "n_a", "n_b", "a", "b")) >= 7
    assert mirrored(there, "n_a", "n_b", "a", "b") == mirrored(back, "n_b", "n_a", "b", "a")
    assert (the(there, "size", "added")["n_b"], the(back, "size", "added")["n_b"]) == (350, 200)


def test_the_effect_is_the_distance_of_the_two_distributions():
    a, b = two_versions(300, 200, 100, 1)
    found = compared(a, b)
    for feature in ("brightness", "contrast", "saturation", "sharpness"):
        assert the(found, feature, "all")["effect"] == pytest.approx(ks_2samp(a[feature], b[feature]).statistic)
        with_kept = ks_2samp(a[feature][:300], b[feature][300:]).statistic
        assert the(found, feature, "added")["effect"] == pytest.approx(with_kept)


def test_with_nothing_shared_it_is_the_test_of_kolmogorov_and_smirnov():
    a, b = images(500, 1), images(400, 2)
    for feature in ("brightness", "saturation"):
        expected = kstwobign.sf(ks_2samp(a[feature], b[feature]).statistic * (500 * 400 / 900) ** 0.5)
        assert the(compared(a, b), feature, "all")["p"] == pytest.approx(expected)


def test_the_order_of_rows_changes_nothing():
    a, b = two_versions(500, 100, 100, 1)
    shuffled = b.sample(fraction=1, shuffle=True, seed=1)
    assert compared(a, shuffled) == compared(a, b) == compared(a, b)


def test_rejected_images_do_not_count():
    a = images(1000, 1)
    dark = images(400, 2, brightness=np.zeros(400, "f4"), status=["rejected"] * 400)
    assert compared(a, pl.concat([a, dark]))["tests"] == 0
    was_rejected = a.with_columns(
        status=pl.when(pl.int_range(pl.len()) < 300).then(pl.lit("rejected")).otherwise("status")
    )
    found = compared(was_rejected, a)
    assert (the(found, "size", "all")["n_a"], the(found, "size", "all")["n_b"]) == (700, 1000)
    assert {test["scope"] for test in found["features"]} == {"all"}  # they are accepted now, but did not come
    assert compared(dark, a)["tests"] == 0


@pytest.mark.parametrize("count", [0, 1, 2, 300])
def test_empty_versions_and_single_images_are_no_drift(count: int):
    for one, other in ((images(0, 1), images(count, 2)), (images(count, 2), images(1, 1)), (images(count, 2),) * 2):
        found = compared(one, other, novelty=True)
        assert (found["tests"], found["drifted"]) == (0, False)


def test_a_class_of_one_image_is_no_obstacle():
    a = pl.concat([images(400, 1), images(1, 3, classes=["rare"])])
    b = pl.concat([images(400, 2), images(1, 4, classes=["rare"])])
    found = compared(a, b)
    assert not found["drifted"]
    assert found["tests"] == 6 * (1 + len(CLASSES)) + 1


def test_unknown_measures_are_left_out():
    a, b = images(400, 1), images(400, 2)
    unknown = {"brightness": pl.lit(None), "contrast": pl.lit(float("nan"), pl.Float32), "width": pl.lit(0, pl.Int32)}
    a, b = a.with_columns(**unknown), b.with_columns(sharpness=pl.when(pl.int_range(pl.len()) < 100).then("sharpness"))
    found = compared(a, b)
    assert not found["drifted"]
    shown = {test["feature"]: test["n_b"] for test in found["features"]}
    assert shown == {"saturation": 400, "sharpness": 100, "class": 400}
    both_unknown = compared(a, b.with_columns(**unknown))
    assert [d["feature"] for d in both_unknown["distributions"]] == ["saturation", "sharpness", "class"]


def test_histograms_hold_every_image_whatever_lies_outside_their_edges():
    a, b = two_versions(500, 100, 200, 1)
    b = b.with_columns(sharpness=pl.when(pl.int_range(pl.len()) == 0).then(1e9).otherwise("sharpness").cast(pl.Float32))
    for shown in compared(a, b)["distributions"]:
        assert (sum(shown["a"]), sum(shown["b"]), sum(shown["added"])) == (600, 700, 200)
        if shown["feature"] != "class":
            assert len(shown["edges"]) == len(shown["a"]) + 1
            assert (np.diff(shown["edges"]) > 0).all()
            assert shown["edges"][-1] < 1e8
        else:
            assert len(shown["categories"]) == len(shown["a"])


def test_of_many_classes_the_rarest_are_drawn_as_one():
    a = pl.concat([images(100 - number // 2, number, classes=[f"class{number}"]) for number in range(80)])
    (shown,) = (d for d in compared(a, a)["distributions"] if d["feature"] == "class")
    assert shown["categories"][0] in ("class0", "class1")
    assert shown["categories"][50:] == ["30 other classes"]
    assert sum(shown["a"]) == len(a)


def test_at_most_1000_classes_are_listed_and_no_test_of_the_whole_is_missing():
    a = images(30_000, 1, classes=[f"class{number}" for number in range(600)])
    b = images(30_000, 2, classes=[f"class{number}" for number in range(600)])
    found = compared(a, b.with_columns(pl.col("brightness") + 100, pl.col("sharpness") + 1e5))
    assert len(found["features"]) == 1000
    assert [test["scope"] for test in found["features"][:8]] == ["all"] * 7 + ["class"]
    effects = [test["effect"] for test in found["features"][7:]]
    assert effects == sorted(effects, reverse=True)


def test_images_that_came_and_look_like_one_of_a_are_named():
    a = images(50, 1)
    came = images(10, 2)

    def off(digest: str, bits: int) -> str:
        return f"{int(digest, 16) ^ ((1 << bits) - 1):064x}"

    like = [off(a["perceptual_hash"][7], 3), a["perceptual_hash"][9], off(a["perceptual_hash"][9], 40)]
    like += [like[0], *came["perceptual_hash"].to_list()[4:]]
    came = came.with_columns(perceptual_hash=pl.Series(like))
    found = compared(a, pl.concat([a[10:], came]), novelty=True)["novelty"]
    assert found == {
        "added": 10,
        "alike": 3,
        "pairs": [
            {"path_a": "1/9.jpg", "path_b": "2/1.jpg", "distance": 0},
            {"path_a": "1/7.jpg", "path_b": "2/0.jpg", "distance": 3},
            {"path_a": "1/7.jpg", "path_b": "2/3.jpg", "distance": 3},
        ],
    }


def test_real_pictures_darker_ones_drift_and_a_copy_saved_again_is_no_news(workspace: Workspace):
    add_pictures(workspace.raw, 40)
    a = workspace.validate()
    for number in range(100, 125):
        save(workspace.raw / f"cat/img{number}.png", ImageEnhance.Brightness(picture(number)).enhance(0.4))
    save(workspace.raw / "cat/again.jpg", picture(3), quality=90)
    found = compared(a, workspace.validate(), novelty=True)
    assert {("brightness", "added", None), ("brightness", "all", None)} <= alarms(found)
    assert found["novelty"]["added"] == 26
    assert [(pair["path_a"], pair["path_b"]) for pair in found["novelty"]["pairs"]] == [
        ("cat/img3.png", "cat/again.jpg")
    ]

"""params.yaml: what ships states the defaults, and every fault is named at once, in words."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, template_only

import imagepack
from imagepack.engine.params import defaults, load
from imagepack.errors import InputError
from stages.pack import Pack, Split
from stages.preprocess import Preprocess

SHIPPED = REPOSITORY / "params.yaml"
ABOVE = re.compile(r"^ +# .*?([\d.]+) to ([\d.]+).*\n +(\w+): [\d.]+$", re.MULTILINE)
"""A comment with a range, and the key below it."""
RANGES = [(name, low, high) for low, high, name in ABOVE.findall(SHIPPED.read_text(encoding="utf-8"))]
KNOBS = [
    field for field in dataclasses.fields(imagepack.Augment) if field.name != "ops"
]  # functions have no place here


def dumped(sections: dict) -> dict:
    """As YAML has them."""
    return {name: section.model_dump() for name, section in sections.items()}


def read(folder: Path, text: str) -> dict:
    """Load `text` as params.yaml."""
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    return load(folder / "params.yaml")


def faults(folder: Path, text: str) -> list[str]:
    """The faults that are reported of `text`, a line each."""
    with pytest.raises(InputError) as error:
        read(folder, text)
    title, *lines = str(error.value).split("\n  ")
    assert title == f"{folder / 'params.yaml'} is not valid:"
    return lines


@template_only
def test_the_shipped_file_states_every_default():
    assert yaml.safe_load(SHIPPED.read_text(encoding="utf-8")) == defaults()
    assert dumped(load(SHIPPED)) == defaults()


@template_only
def test_every_key_of_the_shipped_file_is_explained():
    """By a comment above it, above a key before it in its section, or above the section."""
    explained: dict[int, bool] = {}  # by indentation
    for line in filter(str.strip, SHIPPED.read_text(encoding="utf-8").splitlines()[1:]):
        depth = len(line) - len(line.lstrip())
        explained = {above: value for above, value in explained.items() if above <= depth}
        if line.lstrip().startswith("#"):
            explained[depth] = True
        elif line.endswith(":"):
            explained[depth + 2] = explained.get(depth, False)
        else:
            assert explained[depth], f"no comment explains {line!r}"


@pytest.mark.parametrize(("name", "low", "high"), RANGES)
def test_the_ranges_in_the_comments_are_those_that_are_checked(name: str, low: str, high: str, tmp_path: Path):
    (section,) = (key for key, values in yaml.safe_load(SHIPPED.read_text(encoding="utf-8")).items() if name in values)
    for outside in (int(float(low) - 1), int(high) + 1):
        fault = f"{section}.{name}: must be between {low} and {high}, is {outside}"
        assert faults(tmp_path, f"{section}: {{{name}: {outside}}}") == [fault]
    for inside in (low, high):
        assert read(tmp_path, f"{section}: {{{name}: {inside}}}")


def test_all_faults_are_reported_at_once_and_in_words(tmp_path: Path):
    with pytest.raises(InputError) as error:
        read(tmp_path, "preprocess: {size: 0, sise: 64}\nvalidate: {min_side: 0}\naugment: {erese: 1}\n")
    assert str(error.value).split("\n") == [
        f"{tmp_path / 'params.yaml'} is not valid:",
        "  preprocess.size: must be between 8 and 8192, is 0",
        "  preprocess.sise: no such key (did you mean size?)",
        "  validate.min_side: must be between 1 and 65536, is 0",
        "  augment.erese: no such key (did you mean erase?)",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('preprocess: {size: "128"}', "preprocess.size: must be an integer, is '128'"),
        ("preprocess: {size: true}", "preprocess.size: must be an integer, is True"),
        ("preprocess: {size: 64.0}", "preprocess.size: must be an integer, is 64.0"),
        ("augment: {hflip: true}", "augment.hflip: must be a number, is True"),
        ("augment: {hflip: .inf}", "augment.hflip: must be between 0 and 1, is inf"),
        ("augment: {hflip: .nan}", "augment.hflip: must be between 0 and 1, is nan"),
        ("preprocess: {fit: squash}", "preprocess.fit: must be 'crop', 'pad' or 'stretch', is 'squash'"),
        ('preprocess: {fit: "no"}', "preprocess.fit: must be 'crop', 'pad' or 'stretch', is 'no'"),
        (
            "validate: {levels: {too_small: fatal}}",
            "validate.levels.too_small: must be 'error', 'warning', 'info' or 'ignore', is 'fatal'",
        ),
        ("pack: {split: {train: 0.9}}", "pack.split: train, val and test must add up to 1, not 1.1"),
        ("pack: {split: {train: 1.5}}", "pack.split.train: must be between 0 and 1, is 1.5"),
        ("preprocess: {background: [0, 0]}", "preprocess.background: must have 3 values, is [0, 0]"),
        ("preprocess: {background: [0, 0, 0, 0]}", "preprocess.background: must have 3 values, is [0, 0, 0, 0]"),
        ("preprocess: {background: white}", "preprocess.background: must be a list, is 'white'"),
        (
            "preprocess: {background: [0, 0, 256]}",
            "preprocess.background.2: must be less than or equal to 255, is 256",
        ),
        ("preproces: {}", "preproces: no such key (did you mean preprocess?)"),
        ("preprocess: {7: 8}", "preprocess.7: no such key (known: size, fit, mode, background, layout)"),
        ("preprocess:", "preprocess: must hold keys such as `size:`, is None"),
        ("validate: {levels: error}", "validate.levels: must hold keys such as `non_portable_name:`, is 'error'"),
    ],
)
def test_a_fault_names_the_key_what_it_must_be_and_what_it_is(text: str, fault: str, tmp_path: Path):
    assert faults(tmp_path, text) == [fault]


@pytest.mark.parametrize(
    ("text", "key", "python", "dvc"),
    [
        ("pack: {split: {by: no}}", "pack.split.by", "False", "'no'"),
        ("validate: {levels: {too_small: off}}", "validate.levels.too_small", "False", "'off'"),
        ("preprocess: {background: [0, 0, yes]}", "preprocess.background.2", "True", "'yes'"),
        ("augment: {hflip: 1e-3}", "augment.hflip", "'1e-3'", "0.001"),
        ("preprocess: {size: 0200}", "preprocess.size", "128", "200"),
        ("preprocess: {size: 0o200}", "preprocess.size", "'0o200'", "128"),
        ("preprocess: {size: 2:08}", "preprocess.size", "128", "'2:08'"),
    ],
)
def test_a_value_that_dvc_reads_differently_is_refused_by_name_with_the_fix(
    text: str, key: str, python: str, dvc: str, tmp_path: Path
):
    assert faults(tmp_path, text) == [
        f"{key}: is {python} to Python and {dvc} to DVC; "
        "quote it if it is text, write 0.001 for 1e-3, true or false for yes and no"
    ]


def test_a_key_that_dvc_reads_differently_is_refused(tmp_path: Path):
    assert "preprocess: the key 'no' means something else to DVC; quote it" in faults(tmp_path, "preprocess: {no: 1}")


@pytest.mark.parametrize("text", ["preprocess: [", "\tpreprocess: 1", "preprocess: {size: 8, size: 9}", "a: 1\n---\n"])
def test_what_is_not_yaml_is_refused_with_the_place(text: str, tmp_path: Path):
    with pytest.raises(InputError, match=r"params\.yaml is not YAML: (?s:.)*line 1, column \d"):
        read(tmp_path, text)


@pytest.mark.parametrize("text", ["", "# all commented out", "preprocess", "- preprocess"])
def test_a_file_without_sections_is_refused(text: str, tmp_path: Path):
    with pytest.raises(InputError, match=r"must hold sections such as `preprocess:`$"):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("{}", {}),
        ("preprocess: {size: 64}", {"preprocess": Preprocess(size=64)}),
        ("preprocess: {}\npack: {split: {by: folder}}", {"pack": Pack(split=Split(by="folder"))}),
        ("\ufeffpreprocess: {size: 64}", {"preprocess": Preprocess(size=64)}),
    ],
    ids=["nothing", "one key", "a nested key", "written by Notepad, with a byte order mark"],
)
def test_what_is_missing_takes_its_default(text: str, params: dict, tmp_path: Path):
    given = {name: section.model_dump() for name, section in params.items()}
    assert dumped(read(tmp_path, text)) == defaults() | given


def test_sections_of_your_own_are_left_alone(tmp_path: Path):
    text = "lr: 1e-3\nmodel: {epochs: 3, no: 4}\nevaluate: 1\n7: 8\npreprocess: {size: 64}"
    assert dumped(read(tmp_path, text)) == defaults() | {"preprocess": Preprocess(size=64).model_dump()}
    assert faults(tmp_path, "lr: 1\npreproces: {}\naugments: {}") == [
        "preproces: no such key (did you mean preprocess?)",
        "augments: no such key (did you mean augment?)",
    ]


def test_a_whole_number_will_do_where_a_fraction_may_stand(tmp_path: Path):
    assert read(tmp_path, "augment: {rotate: 15}")["augment"].rotate == 15


@pytest.mark.parametrize("fractions", [(0.7, 0.2, 0.1), (0.1, 0.2, 0.7), (1, 0, 0), (0.34, 0.33, 0.33)])
def test_fractions_may_add_up_to_one_but_for_rounding(fractions: tuple, tmp_path: Path):
    train, val, test = fractions
    split = read(tmp_path, f"pack: {{split: {{train: {train}, val: {val}, test: {test}}}}}")["pack"].split
    assert (split.train, split.val, split.test) == fractions


def test_section_augment_has_the_names_and_defaults_of_the_class_that_applies_it():
    assert defaults()["augment"] == {knob.name: knob.default for knob in KNOBS}


@pytest.mark.parametrize("field", KNOBS, ids=lambda field: field.name)
def test_section_augment_has_the_ranges_of_the_class_that_applies_it(field: dataclasses.Field, tmp_path: Path):
    low, high = field.metadata["ge"], field.metadata["le"]
    for inside in (low, high):
        assert getattr(read(tmp_path, f"augment: {{{field.name}: {inside}}}")["augment"], field.name) == inside
        assert getattr(imagepack.Augment(**{field.name: inside}), field.name) == inside
    for outside in (low - 1, high + 1):
        fault = f"augment.{field.name}: must be between {low} and {high}, is {outside}"
        assert faults(tmp_path, f"augment: {{{field.name}: {outside}}}") == [fault]
        with pytest.raises(ValueError, match=field.name):
            imagepack.Augment(**{field.name: outside})


def run_validate(folder: Path) -> subprocess.CompletedProcess:
    """`python -m imagepack.engine validate a b c d` as DVC runs it, in `folder`."""
    command = [sys.executable, "-m", "imagepack.engine", "validate", "a", "b", "c", "d"]
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, cwd=folder, env=env, text=True, capture_output=True)


def test_a_stage_ends_with_the_faults_and_no_traceback(tmp_path: Path):
    (tmp_path / "params.yaml").write_text("preprocess: {size: 0, sise: 64}\n")
    done = run_validate(tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "validate: params.yaml is not valid:",
        "  preprocess.size: must be between 8 and 8192, is 0",
        "  preprocess.sise: no such key (did you mean size?)",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize("content", [None, "preprocess: {size: 64}".encode("utf-16")], ids=["missing", "UTF-16"])
def test_a_file_that_cannot_be_read_is_refused(content: bytes | None, tmp_path: Path):
    if content:
        (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(InputError, match=r"params\.yaml must be a text file in UTF-8, in the folder where you run"):
        load(tmp_path / "params.yaml")

"""Training with the real frameworks, in the environment of a training machine: the reader and they, no pipeline.

`.ci/run` makes that environment, .venv-training, and names its Python in TRAINING_PYTHON.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, Workspace, picture, save
from PIL import Image

from imagepack import Augment, PackedImages
from imagepack.reader.augment import normalise
from stages.preprocess import Preprocess
from stages.validate import Labels, Validate, validate

PYTHON = os.environ.get("TRAINING_PYTHON")
pytestmark = [pytest.mark.slow, pytest.mark.extra("frameworks")]

COLOURS = {"cat": "red", "dog": "blue"}
"""What a tiny model can tell the classes by."""
COUNT = 120
"""Images a class."""
THREADS = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
MODELS = {"PyTorch", "TensorFlow and Keras", "JAX and Grain", "Several GPUs"}
"""Sections of docs/training.md that train one."""
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")

TRAINING_MD = (REPOSITORY / "docs/training.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TRAINING_MD, flags=re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pack in data/packed: two classes in different colours."""
    workspace = Workspace(tmp_path_factory.mktemp("training"))
    workspace.packed = workspace.folder / "data/packed"
    for first, (label, colour) in enumerate(COLOURS.items()):
        tint = Image.new("RGB", (48, 40), colour)
        for number in range(first * COUNT, (first + 1) * COUNT):
            save(workspace.raw / label / f"img{number}.png", Image.blend(picture(number), tint, 0.4))
    packed = workspace.run(preprocessed=Preprocess(size=32))
    assert len(packed) == 2 * COUNT
    return workspace.folder


@pytest.fixture(scope="module")
def train(folder: Path) -> PackedImages:
    """What the scripts read, read here."""
    return PackedImages(folder / "data/packed").split("train")


def run(script: str, folder: Path, *launcher: str) -> str:
    """Run `script` in `folder` with the Python of the training environment; what it printed."""
    (folder / "train.py").write_text(script, encoding="utf-8")
    environment = os.environ | THREADS | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [PYTHON, *launcher, "train.py"], cwd=folder, env=environment, text=True, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_same(path: Path, expected: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """The batches that a script has saved, as {"images0": ..., "labels0": ..., "images1": ...}, are the `expected`."""
    with np.load(path) as saved:
        assert len(saved) == 2 * len(expected)
        for step, (images, labels) in enumerate(expected):
            for name, array in ((f"images{step}", images), (f"labels{step}", labels)):
                assert saved[name].dtype == array.dtype
                assert np.array_equal(saved[name], array), name


SAVE = """
import numpy as np

def save(name, batches):
    arrays = {}
    for step, (images, labels) in enumerate(batches):
        arrays |= {f"images{step}": np.asarray(images), f"labels{step}": np.asarray(labels)}
    np.savez(name, **arrays)
"""
"""The scripts' part of assert_same."""


@pytest.mark.parametrize("title", [title for title, text in SECTIONS.items() if "```python" in text])
def test_the_code_of_training_md_runs_and_its_models_learn(title: str, folder: Path):
    code = "\n".join(re.findall(r"```python\n(.*?)```", SECTIONS[title], flags=re.DOTALL))
    printed = run(code, folder, *(TORCHRUN if "$ torchrun" in SECTIONS[title] else ()))
    accuracies = [float(number) for number in re.findall(r"val accuracy: (.*)", printed)]
    assert bool(accuracies) == (title in MODELS)
    assert all(accuracy > 0.9 for accuracy in accuracies), accuracies


def test_the_regression_of_tables_md_runs_and_learns(tmp_path: Path):
    """On pictures whose brightness is the number, of a table."""
    workspace = Workspace(tmp_path)
    workspace.packed = tmp_path / "data/packed"
    shades = [number * 2 for number in range(COUNT)]
    for number, shade in enumerate(shades):
        save(
            workspace.raw / f"cell/{number}.png",
            Image.blend(picture(number), Image.new("RGB", (48, 40), (shade,) * 3), 0.8),
        )
    rows = "".join(f"cell/{number}.png,{shade / 255}\n" for number, shade in enumerate(shades))
    (workspace.raw / "metadata.csv").write_text(f"file_name,probability\n{rows}", encoding="utf-8")
    said = Labels(kind="numbers", column="probability")
    workspace.validate = lambda _=None: validate(
        workspace.raw, workspace.acknowledged, workspace.manifest, workspace.reports, Validate(blurry=0), labels=said
    )
    workspace.run(preprocessed=Preprocess(size=32, mode="L"))
    text = (REPOSITORY / "docs/tables.md").read_text(encoding="utf-8")
    *_, code = re.findall(r"```py\n(.*?)```", text, flags=re.DOTALL)
    errors = re.findall(r"error: (.*)", run(code.replace("range(5)", "range(40)"), tmp_path))
    assert len(errors) == 40
    assert float(errors[-1]) < 0.02


def test_targets_of_a_table_reach_tensorflow(tmp_path: Path):
    workspace = Workspace(tmp_path)
    workspace.packed = tmp_path / "data/packed"
    for number in range(8):
        save(workspace.raw / f"cell/{number}.png", picture(number))
    rows = "".join(f"cell/{number}.png,{number / 8},{number}\n" for number in range(8))
    (workspace.raw / "metadata.csv").write_text(f"file_name,one,two\n{rows}", encoding="utf-8")
    workspace.run(preprocessed=Preprocess(size=16))
    code = "from imagepack import PackedImages\nimport imagepack.tf\npacked = PackedImages('data/packed')\n"
    code += "for names in (['one'], ['one', 'two']):\n"
    code += "    images, targets = next(iter(imagepack.tf.dataset(packed.with_target(*names), 4)))\n"
    code += "    print(targets.dtype.name, targets.shape, sep=' ')\n"
    assert run(code, tmp_path).splitlines() == ["float32 (4,)", "float32 (4, 2)"]


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with packs of eight images, with several labels in data/multilabel and numbers in data/numbers."""
    workspace = Workspace(tmp_path_factory.mktemp("predicted"))
    for number in range(8):
        save(workspace.raw / f"cell/{number}.png", picture(number))
    rows = "".join(f"cell/{n}.png,{n % 2},{n // 4},{n / 8}\n" for n in range(8))
    (workspace.raw / "metadata.csv").write_text(f"file_name,cat,dog,size\n{rows}", encoding="utf-8")
    for kind, columns in (("multilabel", ["cat", "dog"]), ("numbers", ["size"])):
        said = Labels(kind=kind, column=columns)
        workspace.validate = lambda _=None, said=said: validate(
            workspace.raw,
            workspace.acknowledged,
            workspace.manifest,
            workspace.reports,
            Validate(blurry=0),
            labels=said,
        )
        workspace.packed = workspace.folder / "data" / kind
        workspace.run(preprocessed=Preprocess(size=16))
    return workspace.folder


@pytest.mark.parametrize("kind", ["multilabel", "numbers"])
def test_several_labels_and_numbers_reach_all_frameworks_as_float32(kind: str, predicted: Path):
    code = f"packed = PackedImages('data/{kind}')\n"
    run(SAVE + FRAMEWORKS.replace("PACKED", code), predicted)
    text = (REPOSITORY / "docs/tables.md").read_text(encoding="utf-8")
    of_docs = re.findall(r"```py\n(.*?)```", text, flags=re.DOTALL)[0]
    if kind == "multilabel":
        run(
            of_docs.replace("data/packed", f"data/{kind}").replace(
                "    ...", "    print(loss(labels * 2 - 1, labels))"
            ),
            predicted,
        )
    expected = list(PackedImages(predicted / "data" / kind).batches(3))
    assert expected[0][1].dtype == np.float32
    for name in ("loader", "data_loader", "tf", "grain", "grain_loader"):
        assert_same(predicted / f"{name}.npz", expected)
    of_column = PackedImages(predicted / "data" / kind).with_target("size")
    for name in ("grain_target", "data_loader_target"):
        assert_same(predicted / f"{name}.npz", list(of_column.batches(3)))


FRAMEWORKS = """
import grain.python as grain
import torch
from absl import flags
from torch.utils.data import DataLoader
import imagepack.tf
from imagepack import PackedImages
from imagepack.torch import Loader

flags.FLAGS.mark_as_parsed()
if __name__ == "__main__":
    PACKED
    save("loader.npz", ((images.permute(0, 2, 3, 1), labels) for images, labels in Loader(packed, 3)))
    save("data_loader.npz", DataLoader(packed, 3, num_workers=1))
    dataset = imagepack.tf.dataset(packed, 3)
    assert dataset.element_spec[1].shape.as_list() == [None, len(packed.classes)]
    save("tf.npz", dataset)
    save("grain.npz", grain.MapDataset.source(packed).batch(3))
    of_column = packed.with_target("size")
    save("grain_target.npz", grain.MapDataset.source(of_column).batch(3))
    save("data_loader_target.npz", DataLoader(of_column, 3))
    sampler = grain.IndexSampler(len(packed), grain.NoSharding(), shuffle=False, num_epochs=1)
    batched = [grain.Batch(3)]
    save("grain_loader.npz", grain.DataLoader(data_source=packed, sampler=sampler, operations=batched, worker_count=1))
    outputs = torch.zeros(len(packed), len(packed.classes))
    targets = torch.from_numpy(packed.targets)
    if packed.label_kind == "multilabel":
        loss = torch.nn.BCEWithLogitsLoss(pos_weight=torch.from_numpy(packed.pos_weight()))
    else:
        loss = torch.nn.MSELoss()
    assert loss(outputs, targets) > 0
"""


def test_the_opencv_of_training_md_writes_true_colours(folder: Path):
    run("\n".join(re.findall(r"```python\n(.*?)```", SECTIONS["OpenCV"], flags=re.DOTALL)), folder)
    image, _ = PackedImages(folder / "data/packed")[0]
    assert np.array_equal(np.asarray(Image.open(folder / "first.png")), image)


def test_imagepack_alone_imports_no_framework(folder: Path):
    printed = run("import sys, imagepack\nprint(*{name.split('.')[0] for name in sys.modules})", folder)
    assert not {"torch", "tensorflow", "jax", "grain", "cv2"} & set(printed.split())


def test_a_loader_gives_the_batches_as_channels_last_tensors(train: PackedImages, folder: Path):
    printed = run(
        SAVE
        + """
import torch
from imagepack import PackedImages
from imagepack.torch import Loader

loader = Loader(PackedImages("data/packed").split("train"), 50, shuffle=True, seed=3)
print(len(loader))
batches = [*loader, *loader]
save("loader.npz", ((images.permute(0, 2, 3, 1), labels) for images, labels in batches))
for images, labels in batches:
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert images.shape[1:] == (3, 32, 32)
    assert images.is_pinned() == labels.is_pinned() == torch.cuda.is_available()
""",
        folder,
    )
    epochs = [list(train.batches(50, shuffle=True, seed=3, epoch=epoch)) for epoch in (0, 1)]
    assert int(printed) == len(epochs[0])
    assert_same(folder / "loader.npz", epochs[0] + epochs[1])


def test_a_loader_normalises(train: PackedImages, folder: Path):
    run(
        SAVE
        + """
from imagepack import PackedImages
from imagepack.torch import Loader

packed = PackedImages("data/packed")
loader = Loader(packed.split("train"), 50, device="cpu", normalise=(packed.mean, packed.std))
save("normalised.npz", loader)
""",
        folder,
    )
    with np.load(folder / "normalised.npz") as saved:
        pixels = np.concatenate([saved[name] for name in saved if name.startswith("images")])
    expected = normalise(train.take(range(len(train))), train.mean, train.std)
    assert pixels.dtype == np.float32
    assert np.allclose(pixels, expected.transpose(0, 3, 1, 2), rtol=1e-6)
    assert np.abs(pixels.mean((0, 2, 3))).max() < 0.01
    assert np.abs(pixels.std((0, 2, 3)) - 1).max() < 0.01


def test_positions_reach_torch_and_tensorflow(train: PackedImages, folder: Path):
    run(
        """
import numpy as np
import imagepack.tf
from imagepack import PackedImages
from imagepack.torch import Loader

train = PackedImages("data/packed").split("train")
options = {"shuffle": True, "with_positions": True}
for made in (Loader(train, 50, **options), imagepack.tf.dataset(train, 50, **options)):
    seen = []
    for images, labels, positions in made:
        assert np.array_equal(np.asarray(labels), train.labels[np.asarray(positions)])
        seen += np.asarray(positions).tolist()
    assert sorted(seen) == list(range(len(train)))
""",
        folder,
    )


def test_a_loader_refuses_a_deviation_of_zero_and_other_channels(folder: Path):
    printed = run(
        """
from imagepack import PackedImages
from imagepack.torch import Loader

packed = PackedImages("data/packed")
for std in ((0.2, 0, 0.2), (0.2,)):
    try:
        Loader(packed, 8, normalise=(packed.mean, std))
    except ValueError as error:
        print(error)
""",
        folder,
    )
    assert printed.splitlines() == ["normalise takes 3 means and 3 standard deviations above 0"] * 2


def test_a_loader_resumes_in_the_middle_of_an_epoch(train: PackedImages, folder: Path):
    run(
        SAVE
        + """
import torch
from imagepack import Augment, PackedImages
from imagepack.torch import Loader

def loader():
    train = PackedImages("data/packed").split("train")
    return Loader(train, 20, shuffle=True, seed=1, epoch=4, augment=Augment())

first = loader()
for step, _ in enumerate(first):
    if step == 2:
        torch.save(first.state_dict(), "checkpoint.pt")
        break

second = loader()
second.load_state_dict(torch.load("checkpoint.pt"))
save("resumed.npz", ((images.permute(0, 2, 3, 1), labels) for _ in range(2) for images, labels in second))
""",
        folder,
    )
    epochs = [list(train.batches(20, shuffle=True, seed=1, epoch=epoch, augment=Augment())) for epoch in (4, 5)]
    assert_same(folder / "resumed.npz", epochs[0][3:] + epochs[1])


def test_a_loader_takes_its_rank_from_torch_distributed(train: PackedImages, folder: Path):
    run(
        SAVE
        + """
import torch
from imagepack import PackedImages
from imagepack.torch import Loader

torch.distributed.init_process_group("gloo")
loader = Loader(PackedImages("data/packed").split("train"), 16, shuffle=True)
save(f"rank{torch.distributed.get_rank()}.npz", ((images.permute(0, 2, 3, 1), labels) for images, labels in loader))
torch.distributed.destroy_process_group()
""",
        folder,
        *TORCHRUN,
    )
    ranks = [list(train.batches(16, shuffle=True, rank=rank, world_size=2)) for rank in (0, 1)]
    assert len(ranks[0]) == len(ranks[1])
    for rank, batches in enumerate(ranks):
        assert_same(folder / f"rank{rank}.npz", batches)
    seen = {image.tobytes() for batches in ranks for images, _ in batches for image in images}
    assert seen == {image.tobytes() for image in train.take(range(len(train)))}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_data_loader_gives_the_same_batches_with_any_workers(method: str, train: PackedImages, folder: Path):
    run(
        SAVE
        + f"""
from torch.utils.data import DataLoader
from imagepack import PackedImages

if __name__ == "__main__":
    train = PackedImages("data/packed").split("train")
    train[0]  # its files are open before workers are forked
    save("workers0.npz", DataLoader(train, 30))
    for workers in (1, 3):
        save(f"workers{{workers}}.npz", DataLoader(train, 30, num_workers=workers, multiprocessing_context="{method}"))
""",
        folder,
    )
    for workers in (0, 1, 3):
        assert_same(folder / f"workers{workers}.npz", list(train.batches(30)))


def test_a_tf_dataset_says_its_shapes_and_length(train: PackedImages, folder: Path):
    printed = run(
        """
import json
import imagepack.tf
from imagepack import PackedImages

train = PackedImages("data/packed").split("train")
for drop_last in (False, True):
    dataset = imagepack.tf.dataset(train, 50, drop_last=drop_last)
    specs = [(spec.shape.as_list(), spec.dtype.name) for spec in dataset.element_spec]
    print(json.dumps({"specs": specs, "steps": int(dataset.cardinality())}))
""",
        folder,
    )
    said = [json.loads(line) for line in printed.splitlines()]
    specs = [[[[rows, 32, 32, 3], "uint8"], [[rows], "int64"]] for rows in (None, 50)]
    steps = [-(-len(train) // 50), len(train) // 50]
    assert said == [{"specs": spec, "steps": count} for spec, count in zip(specs, steps, strict=True)]


def test_each_iteration_of_a_tf_dataset_is_a_new_epoch(train: PackedImages, folder: Path):
    run(
        SAVE
        + """
import imagepack.tf
from imagepack import PackedImages

dataset = imagepack.tf.dataset(PackedImages("data/packed").split("train"), 50, shuffle=True, seed=2, epoch=7)
save("tf.npz", [*dataset, *dataset])
""",
        folder,
    )
    epochs = [list(train.batches(50, shuffle=True, seed=2, epoch=epoch)) for epoch in (7, 8)]
    assert_same(folder / "tf.npz", epochs[0] + epochs[1])


def test_each_epoch_of_a_keras_fit_is_a_new_epoch(train: PackedImages, folder: Path):
    run(
        SAVE
        + """
import keras
import imagepack.tf
from imagepack import PackedImages

seen = []

class Watching(keras.Model):
    def train_step(self, batch):
        seen.append(batch)
        return {"loss": 0.0}

model = Watching()
model.compile(run_eagerly=True)
train = PackedImages("data/packed").split("train")
model.fit(imagepack.tf.dataset(train, 50, shuffle=True), epochs=3, shuffle=False)
save("keras.npz", seen)
""",
        folder,
    )
    epochs = [list(train.batches(50, shuffle=True, epoch=epoch)) for epoch in range(3)]
    assert_same(folder / "keras.npz", epochs[0] + epochs[1] + epochs[2])


def test_a_mirrored_strategy_shares_out_the_batches_of_a_tf_dataset(train: PackedImages, folder: Path):
    printed = run(
        """
import tensorflow as tf
import imagepack.tf
from imagepack import PackedImages

[cpu] = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
dataset = imagepack.tf.dataset(PackedImages("data/packed").split("train"), 50)
for images, labels in strategy.experimental_distribute_dataset(dataset):
    print(*(len(part) for part in strategy.experimental_local_results(labels)))
""",
        folder,
    )
    shares = [[int(number) for number in line.split()] for line in printed.splitlines()]
    assert shares[:-1] == [[25, 25]] * (len(train) // 50)
    assert sum(map(sum, shares)) == len(train)


def test_a_pack_is_a_grain_data_source(train: PackedImages, folder: Path):
    run(
        SAVE
        + """
import grain.python as grain
from absl import flags
from imagepack import PackedImages

flags.FLAGS.mark_as_parsed()  # Grain reads some of its own; in a program, absl.app.run(main) does it
if __name__ == "__main__":
    train = PackedImages("data/packed").split("train")
    assert isinstance(train, grain.RandomAccessDataSource)
    save("map.npz", grain.MapDataset.source(train).batch(30))
    for workers in (0, 2):
        sampler = grain.IndexSampler(len(train), grain.NoSharding(), shuffle=True, num_epochs=1, seed=0)
        loader = grain.DataLoader(
            data_source=train, sampler=sampler, operations=[grain.Batch(1)], worker_count=workers
        )
        save(f"grain{workers}.npz", loader)
""",
        folder,
    )
    assert_same(folder / "map.npz", list(train.batches(30)))
    expected = sorted((image.tobytes(), label) for image, label in train)
    for workers in (0, 2):
        with np.load(folder / f"grain{workers}.npz") as saved:
            pairs = [(saved[f"images{i}"].tobytes(), saved[f"labels{i}"].item()) for i in range(len(train))]
        assert sorted(pairs) == expected != pairs

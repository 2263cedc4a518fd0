"""Batches: every image once an epoch, in an order that no machine, worker or restart changes."""

import itertools
import json
import os
import pickle
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, Workspace, add_pictures, picture, save

from imagepack import Augment, Batches, PackedImages
from imagepack.reader.batches import window_sizes
from imagepack.reader.order import key, permute, uniform
from stages.pack import Pack
from stages.preprocess import Preprocess

COUNT = 50


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedImages:
    """50 images, 40 of them cats, in several shards."""
    workspace = Workspace(tmp_path_factory.mktemp("pack"))
    add_pictures(workspace.raw, 40, "cat")
    add_pictures(workspace.raw, COUNT - 40, "dog", first=100)
    return workspace.run(preprocessed=Preprocess(size=96), packed=Pack(shard_mib=1))


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> PackedImages:
    """50 images in a dozen shards, shuffled as where these have to be fetched."""
    workspace = Workspace(tmp_path_factory.mktemp("away"))
    add_pictures(workspace.raw, COUNT, "cat")
    away = workspace.run(preprocessed=Preprocess(size=256), packed=Pack(shard_mib=1))
    away.remote = True
    return away


@pytest.fixture(params=["here", "away"])
def either(request: pytest.FixtureRequest, packed: PackedImages, away: PackedImages) -> PackedImages:
    """Each of the two orders of a shuffle."""
    return packed if request.param == "here" else away


def sums(packed: PackedImages) -> dict[bytes, int]:
    """From an image's pixels to its position."""
    return {image.tobytes(): i for i, image in enumerate(packed.take(range(len(packed))))}


def order(batches: Batches, packed: PackedImages) -> list[int]:
    """The positions of the images of one epoch."""
    known = sums(packed)
    return [known[image.tobytes()] for images, _ in batches for image in images]


@pytest.mark.parametrize("prefetch", [0, 1, 2, 8])
def test_an_epoch_has_every_image_once_with_its_label(packed: PackedImages, prefetch: int):
    seen = []
    for images, labels in packed.batches(16, shuffle=True, prefetch=prefetch):
        assert (images.dtype, images.shape[1:], labels.dtype) == (np.uint8, packed.shape, np.int64)
        seen += zip((sums(packed)[image.tobytes()] for image in images), labels, strict=True)
    assert sorted(i for i, _ in seen) == list(range(COUNT))
    assert all(packed.labels[i] == label for i, label in seen)


@pytest.mark.parametrize("options", [{}, {"rank": 1, "world_size": 3}, {"prefetch": 0}])
def test_positions_say_which_images_a_batch_has(packed: PackedImages, options: dict):
    some = packed.subset(range(len(packed) - 1, 4, -2))
    for images, labels, positions in some.batches(7, shuffle=True, with_positions=True, **options):
        assert positions.dtype == np.int64
        assert np.array_equal(images, some.take(positions))
        assert np.array_equal(labels, some.labels[positions])


def test_the_last_batch_may_be_left_out(packed: PackedImages):
    for size, drop, wanted in ((16, False, [16, 16, 16, 2]), (16, True, [16, 16, 16]), (25, True, [25, 25])):
        batches = packed.batches(size, drop_last=drop)
        assert [len(labels) for _, labels in batches] == wanted
        assert len(batches) == len(wanted)


def test_the_order_depends_on_seed_and_epoch_alone(either: PackedImages):
    first = order(either.batches(7, shuffle=True, seed=1), either)
    assert sorted(first) == list(range(COUNT))
    assert first == order(either.batches(20, shuffle=True, seed=1, prefetch=0), either)
    assert first != order(either.batches(7, shuffle=True, seed=2), either)
    assert first != order(either.batches(7, shuffle=True, seed=1, epoch=1), either)
    assert order(either.batches(7), either) == list(range(COUNT))


def test_each_iteration_is_an_epoch_even_after_one_that_was_left(either: PackedImages):
    batches = either.batches(10, shuffle=True)
    epochs = [order(either.batches(10, shuffle=True, epoch=epoch), either) for epoch in range(3)]
    assert order(batches, either) == epochs[0]
    assert batches.epoch == 1
    next(iter(batches))
    assert batches.epoch == 1
    assert order(batches, either) == epochs[2]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("drop_last", [False, True])
def test_ranks_share_the_same_order_and_have_equal_steps(either: PackedImages, world_size: int, drop_last: bool):
    whole = order(either.batches(8, shuffle=True), either)
    ranks = [
        either.batches(8, shuffle=True, drop_last=drop_last, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    known = sums(either)
    steps = [[[known[image.tobytes()] for image in images] for images, _ in batches] for batches in ranks]
    assert {tuple(len(batch) for batch in rank) for rank in steps} == {tuple(len(batch) for batch in steps[0])}
    assert len(steps[0]) == len(ranks[0])
    together = [i for batches in zip(*steps, strict=True) for batch in batches for i in batch]
    if drop_last:
        assert together == whole[: COUNT // (8 * world_size) * 8 * world_size]
    else:  # filled up from the front
        assert together == (whole + whole)[: len(together)]
        assert COUNT <= len(together) < COUNT + world_size


def test_a_state_goes_on_where_it_was_saved_also_with_another_world_size(either: PackedImages):
    whole = [order(either.batches(5, shuffle=True, seed=3, epoch=epoch), either) for epoch in range(3)]
    running = either.batches(5, shuffle=True, seed=3)
    order(running, either)
    for _ in itertools.islice(running, 4):
        state = json.loads(json.dumps(running.state_dict()))  # as a checkpoint would hold it
    again = either.batches(5, shuffle=True)
    again.load_state_dict(state)
    assert order(again, either) == whole[1][20:]
    assert order(again, either) == whole[2]
    two = [either.batches(3, shuffle=True, rank=rank, world_size=2) for rank in range(2)]
    for batches in two:
        batches.load_state_dict(state)
    known = sums(either)
    pairs = zip(*two, strict=True)
    rest = [known[image.tobytes()] for pair in pairs for images, _ in pair for image in images]
    assert rest == whole[1][20:]


def test_a_state_counts_what_was_handed_out_and_not_what_was_made_ahead(packed: PackedImages):
    batches = packed.batches(5, shuffle=True, prefetch=6)
    for step, _ in enumerate(batches, 1):
        assert batches.state_dict()["samples"] == 5 * step % COUNT or step == 10
    assert (batches.epoch, batches.samples) == (1, 0)


def test_a_state_of_other_images_or_another_order_is_refused(packed: PackedImages, workspace: Workspace):
    state = packed.batches(5, shuffle=True).state_dict()
    add_pictures(workspace.raw, 20)
    other = workspace.run()
    for batches in (other.batches(5, shuffle=True), packed.split("train").batches(5, shuffle=True)):
        with pytest.raises(ValueError, match=r"this state is of other images \(dataset \w+\.\.\., these are"):
            batches.load_state_dict(state)
    with pytest.raises(ValueError, match="this state is of batches shuffled, these are as packed"):
        packed.batches(5).load_state_dict(state)
    with pytest.raises(ValueError, match="it must have dataset, order, seed, epoch, samples"):
        packed.batches(5).load_state_dict({"epoch": 3})


def test_windows_grow_at_the_start_and_shrink_at_the_end():
    assert window_sizes(400) == [4, 8, 16, 32, 64, 64, 64, 64, 42, 21, 11, 5, 4, 1]
    assert window_sizes(10) == [4, 4, 2]
    assert all(sum(window_sizes(shards)) == shards for shards in range(300))


@pytest.mark.parametrize("world_size", [1, 3])
def test_each_window_has_all_images_of_its_shards_and_no_others(away: PackedImages, world_size: int):
    """However many share the epoch, so that the first batch waits for four shards and no more."""
    starts = away.index.shard_starts
    ranks = [order(away.batches(1, shuffle=True, rank=r, world_size=world_size), away) for r in range(world_size)]
    images = [i for together in zip(*ranks, strict=True) for i in together][:COUNT]
    shards = (np.searchsorted(starts, images, "right") - 1).tolist()
    assert len(set(shards)) == len(starts) - 1 > 8  # three windows or more
    for size in window_sizes(len(starts) - 1):
        window = list(dict.fromkeys(shards))[:size]
        own = sum(int(starts[shard + 1] - starts[shard]) for shard in window)
        assert set(shards[:own]) == set(window)
        if size > 1:
            assert shards[:own] != sorted(shards[:own], key=window.index)  # mixed, not shard by shard
        shards = shards[own:]


def test_a_state_of_other_windows_is_refused(away: PackedImages):
    batches = away.batches(5, shuffle=True)
    state = batches.state_dict()
    assert state["order"] == "shuffled in windows of 4 to 64 shards"
    with pytest.raises(ValueError, match="of batches shuffled in windows, these are shuffled in windows of 4 to 64"):
        batches.load_state_dict(state | {"order": "shuffled in windows"})  # of 64 shards each, as it was at first


def test_ten_million_images_are_resumed_at_once():
    """Nothing is kept of the order, so there is nothing to make again."""
    total = 10_000_000
    last = permute(np.arange(total - 256, total), total, key(0, 5))
    assert len(set(last.tolist())) == 256
    assert last.min() < total / 10 < total * 9 / 10 < last.max()


@pytest.mark.parametrize("total", [1, 2, 3, 10, 255, 256, 257, 5000])
def test_a_permutation_has_every_position_once(total: int):
    assert sorted(permute(np.arange(total), total, key(1, 2)).tolist()) == list(range(total))


@pytest.mark.slow
def test_permutations_are_as_even_as_chance():
    """Of 4 things each of the 24 orders, and of 30 each at each place; within five or six standard deviations."""
    orders = Counter(tuple(permute(np.arange(4), 4, key(0, epoch)).tolist()) for epoch in range(600))
    assert len(orders) == 24
    assert all(abs(count - 25) < 5 * 25**0.5 for count in orders.values())
    counts = np.zeros((30, 30))
    for epoch in range(300):
        counts[np.arange(30), permute(np.arange(30), 30, key(7, epoch))] += 1
    assert np.abs(counts - 10).max() < 6 * 10**0.5


def test_the_order_is_the_same_on_every_machine_and_for_ever():
    assert permute(np.arange(8), 1000, key(0, 0)).tolist() == [600, 425, 273, 625, 465, 675, 41, 15]
    assert uniform(np.arange(2), key(1)).tolist() == [0.06242837934285628, 0.1981684415049022]


def test_weights_draw_with_replacement_and_reproducibly(packed: PackedImages):
    weights = packed.class_weights()
    batches = packed.batches(10, weights=weights, seed=4)
    labels = np.concatenate([labels for _ in range(40) for _, labels in batches])
    assert len(labels) == 40 * COUNT
    assert 850 < labels.sum() < 1150  # half of 2,000, give or take six standard deviations; a fifth are dogs
    again = packed.batches(25, weights=weights, seed=4, prefetch=0)
    assert np.array_equal(labels[:COUNT], np.concatenate([labels for _, labels in again]))
    only = np.zeros(COUNT)
    only[7] = 1
    assert set(order(packed.batches(10, weights=only), packed)) == {7}


@pytest.mark.parametrize("weights", [[1.0], np.full(COUNT, -1), np.zeros(COUNT), np.full(COUNT, np.nan)])
def test_weights_that_are_none_are_refused(packed: PackedImages, weights):
    with pytest.raises(ValueError, match="weights must be 50 numbers of 0 or more, one an image, not all 0"):
        packed.batches(10, weights=weights)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 0}, "at least 1 image"),
        ({"rank": 2, "world_size": 2}, "rank must be 0 to world_size - 1 = 1, is 2"),
        ({"epoch": -1}, "epoch must be 0 to"),
        ({"seed": 2**64}, "seed must be 0 to"),
        ({"size": 2.5}, "size must be a whole number, is 2.5"),
        ({"prefetch": -1}, "prefetch must be 0 or more"),
    ],
)
def test_impossible_batches_are_refused_at_once(packed: PackedImages, options: dict, words: str):
    with pytest.raises(ValueError, match=words):
        packed.batches(**{"size": 5} | options)


def test_augmentation_is_the_same_for_any_batch_size_and_number_of_threads(packed: PackedImages):
    augment = Augment()
    alone = [augment(packed[i][0], packed.ids[i].tobytes(), 5) for i in range(COUNT)]
    for options in ({"size": 9}, {"size": 20, "prefetch": 0}, {"size": 3, "prefetch": 7}):
        batched = [image for images, _ in packed.batches(epoch=5, augment=augment, **options) for image in images]
        assert np.array_equal(alone, batched)


def test_an_added_image_changes_no_others_augmentation(workspace: Workspace):
    add_pictures(workspace.raw, 10)
    augment = Augment()

    def augmented() -> dict[str, bytes]:
        packed = workspace.run()
        pixels = [image for images, _ in packed.batches(4, augment=augment) for image in images]
        return {packed.path(i): image.tobytes() for i, image in enumerate(pixels)}

    before = augmented()
    save(workspace.raw / "cat/img5 more.png", picture(77))
    assert before.items() < augmented().items()


@pytest.mark.parametrize("prefetch", [0, 3])
def test_what_somebody_still_has_is_never_overwritten_and_the_rest_is_used_again(packed: PackedImages, prefetch: int):
    batches = packed.batches(2, shuffle=True, prefetch=prefetch)
    kept, copies, places = [], [], set()
    for step, (images, _) in enumerate(itertools.chain(batches, batches)):
        places.add(images.ctypes.data)
        if step % 10 == 0:
            kept.append(memoryview(images[1:, ::2]) if step % 20 else images[0])
            copies.append(np.array(kept[-1]))
    assert all(np.array_equal(one, other) for one, other in zip(kept, copies, strict=True))
    threads = prefetch  # at most: each may hold for a moment what it has handed out
    assert len(places) <= len(kept) + prefetch + threads + 4 < COUNT // 2


def test_memory_is_given_back_and_the_state_goes_through_pickle(packed: PackedImages):
    batches = packed.batches(1, prefetch=2)
    kept = [images for images, _ in batches]
    assert len({images.ctypes.data for images in kept}) == COUNT
    again = pickle.loads(pickle.dumps(batches))
    assert again.state_dict() == batches.state_dict()
    del kept
    assert len(pickle.dumps(batches)) < 20_000


def test_threads_that_share_batches_get_whole_ones(packed: PackedImages):
    batches = packed.batches(4, shuffle=True, prefetch=0)
    known = sums(packed)

    def run(_: int) -> int:
        return sum(image.tobytes() in known for images, _ in batches for image in images)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(8))) == [COUNT] * 8


def test_the_state_is_that_of_the_iteration_that_began_last(packed: PackedImages):
    batches = packed.batches(8, shuffle=True)
    old, new = iter(batches), iter(batches)
    next(old), next(old), next(new), next(old)
    assert (batches.epoch, batches.samples) == (1, 8)
    list(new)
    next(old)
    assert (batches.epoch, batches.samples) == (2, 0)


def test_a_state_of_the_last_batch_is_the_next_epoch(packed: PackedImages):
    for drop_last, last in ((False, 4), (True, 3)):
        batches = packed.batches(16, shuffle=True, drop_last=drop_last)
        for _ in itertools.islice(batches, last):
            state = batches.state_dict()
        again = packed.batches(16, shuffle=True, drop_last=drop_last)
        again.load_state_dict(state)
        assert (again.epoch, again.samples) == (1, 0)


@pytest.mark.parametrize("wrong", [{"samples": -1}, {"samples": 1000}, {"epoch": -1}, {"samples": "3"}, {"seed": 1.5}])
def test_a_state_that_cannot_be_is_refused(packed: PackedImages, wrong: dict):
    batches = packed.batches(5)
    with pytest.raises(ValueError, match=r"no state of batches|must be a whole number"):
        batches.load_state_dict(batches.state_dict() | wrong)


def test_a_forked_child_is_told_that_an_iteration_is_not_its_own(packed: PackedImages):
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    code = (
        "import os, sys, imagepack\n"
        f"batches = iter(imagepack.PackedImages({str(packed._source.path)!r}).batches(1, prefetch=1))\n"
        "next(batches)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    try:\n"
        "        next(batches)\n"
        "    except RuntimeError as error:\n"
        "        os._exit(0 if 'begin one of your own' in str(error) else 2)\n"
        "    os._exit(1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, timeout=60)


def test_leaving_the_loop_ends_the_threads(packed: PackedImages):
    for _ in packed.batches(5, prefetch=4):
        break
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("imagepack")]


def test_no_images_are_no_batches(packed: PackedImages):
    nothing = packed.subset([])
    assert list(nothing.batches(5, shuffle=True)) == []
    assert len(nothing.batches(5)) == 0


def test_an_error_while_reading_ahead_reaches_the_caller(workspace: Workspace, tmp_path: Path):
    add_pictures(workspace.raw, 10)
    packed = workspace.run()
    for path in workspace.packed.glob("shards/*"):
        path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(Exception, match="is damaged"):
        list(packed.batches(2))

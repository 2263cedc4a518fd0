"""Compare every image of a pack with its checksum."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from imagepack.reader.format import PackError
from imagepack.reader.packed_images import Folder
from imagepack.reader.shards import Shards


def verify(source: Folder) -> Iterator[tuple[int, list[str]]]:
    """Check all shards, several at a time.

    Yields:
        For each shard in order how many images it has, and what is wrong, a line each: with the shard, or with a row
        of the pack and the file it came from.

    Raises:
        PackError: dataset.h5 cannot be read; google-crc32c is missing.
    """
    index, _ = source.read_index(require_shards=False)
    shards = Shards(index, source.shard, verify="always")

    def check(shard: int) -> tuple[int, list[str]]:
        start, stop = (int(row) for row in index.shard_starts[shard : shard + 2])
        try:
            bad = shards.bad_rows(shard)
        except PackError as error:
            return stop - start, [str(error)]
        name = index.shard_names[shard]
        return stop - start, [f"row {start + row}, {index.paths[start + row]}: damaged in {name}" for row in bad]

    with ThreadPoolExecutor() as pool:
        yield from pool.map(check, range(len(index.shard_names)))

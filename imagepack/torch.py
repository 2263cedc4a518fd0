"""Ready batches for PyTorch: in this process, without the workers that a DataLoader needs.

from imagepack import PackedImages
from imagepack.torch import Loader

train = PackedImages("data/packed").split("train")
for images, labels in Loader(train, 256, shuffle=True, device="cuda"):
    ...

A PackedImages is also a map dataset for torch.utils.data.DataLoader as it stands, for transforms of one's own that
work on single images.
"""

from collections.abc import Iterator

import numpy as np
import torch

from imagepack.reader.packed_images import PackedImages


class Loader:
    """Batches of a pack as tensors, an epoch an iteration: used like a DataLoader, it makes them like `batches`.

    It is a class, since PyTorch users ask a loader for its len() and, as torchdata's StatefulDataLoader has it, for its
    state_dict().

    Attributes:
        dataset: the PackedImages.
        batches: what `dataset.batches` returned; its `epoch` is that of the next iteration.
    """

    def __init__(
        self,
        dataset: PackedImages,
        size: int,
        *,
        device: torch.device | str | None = None,
        normalise: tuple[np.ndarray, np.ndarray] | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        **options,
    ) -> None:
        """Begin with epoch 0, or `epoch`.

        Args:
            dataset: what to load.
            size: images a batch, on this rank.
            device: where the tensors are to be; None leaves them in memory, pinned if there is a CUDA device.
            normalise: mean and standard deviation of each channel of pixels scaled to 0..1, (C,) each, as
                (dataset.mean, dataset.std): images become float32, (x / 255 - mean) / std, on the device.
            rank: of this process among those that share an epoch; None asks torch.distributed, if it is initialised.
            world_size: how many they are; likewise.
            options: of PackedImages.batches: shuffle, seed, epoch, augment, drop_last, weights, prefetch,
                with_positions.

        Raises:
            ValueError: a number out of its range.
        """
        shared = torch.distributed.is_available() and torch.distributed.is_initialized()
        if rank is None:
            rank = torch.distributed.get_rank() if shared else 0
        if world_size is None:
            world_size = torch.distributed.get_world_size() if shared else 1
        self.dataset = dataset
        self.batches = dataset.batches(size, rank=rank, world_size=world_size, **options)
        self._device = None if device is None else torch.device(device)
        self._pin = torch.cuda.is_available() and (self._device is None or self._device.type == "cuda")
        self._normalise = None  # what to subtract, and by what to multiply: a row of pixels each, (W * C,)
        if normalise is not None:
            mean, std = (torch.as_tensor(value, dtype=torch.float32, device=device) for value in normalise)
            _, width, channels = dataset.shape
            if not mean.shape == std.shape == (channels,) or not (std > 0).all():
                raise ValueError(f"normalise takes {channels} means and {channels} standard deviations above 0")
            self._normalise = (255 * mean).repeat(width), (1 / (255 * std)).repeat(width)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        """Run through one epoch.

        Yields:
            Images, uint8 or float32 (n, C, H, W) in channels_last memory format, and labels, int64 (n,),
            or the dataset's `targets`. With `with_positions` also int64 (n,): where they stand in the dataset.
        """
        for batch in self.batches:
            images, *others = (self._move(torch.from_numpy(array)) for array in batch)
            if self._normalise:
                shift, scale = self._normalise
                rows = images.flatten(2).float()  # on a CPU, whole rows take half the time of 3 channels
                images = rows.sub_(shift).mul_(scale).view(images.shape)
            yield images.permute(0, 3, 1, 2), *others  # as the pack has them, channels last: nothing is copied

    def _move(self, tensor: torch.Tensor) -> torch.Tensor:
        """Move to the device; from pinned memory the copy goes on while the caller prepares the step."""
        if self._pin:
            tensor = tensor.pin_memory()
        return tensor if self._device is None else tensor.to(self._device, non_blocking=True)

    def __len__(self) -> int:
        """Return the batches of an epoch on this rank."""
        return len(self.batches)

    def state_dict(self) -> dict:
        """Return where it is, also in the middle of an epoch; goes into a checkpoint."""
        return self.batches.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Have the next iteration go on from there."""
        self.batches.load_state_dict(state)

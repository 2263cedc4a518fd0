"""What validate is compared with: the two tools that users know for finding bad and duplicate images.

    PYTHON workshop/benchmarks/peers_of_validate.py check
    PYTHON workshop/benchmarks/peers_of_validate.py cleanvision FOLDER COUNT
    PYTHON workshop/benchmarks/peers_of_validate.py imagededup FOLDER COUNT

The first prints versions, or says what is missing; the others look at the images under FOLDER with the tool's own
defaults, and fail unless it saw COUNT of them. PYTHON is one that has the tools, and need not have our packages:
nothing of this repository is imported here.
"""

import importlib.util
import platform
import sys
from importlib.metadata import version
from types import ModuleType

NEEDED_BY_CNN = (
    "torch",
    "torch.nn",
    "torch.utils",
    "torch.utils.data",
    "torchvision",
    "torchvision.models",
    "torchvision.models.vision_transformer",
    "torchvision.transforms",
)
"""What imagededup imports for its neural networks."""


class _AnyAttribute(type):
    def __getattr__(cls, name: str) -> type:
        return StandIn


class StandIn(metaclass=_AnyAttribute):
    """Whatever is asked of torch while imagededup is imported: a class, of any attributes and arguments.

    A class and not a mock, since scipy asks whether its arrays are of the class torch.Tensor once there is a torch.
    """

    def __init__(self, *arguments: object, **options: object) -> None:
        pass


def cleanvision(folder: str) -> int:
    """Look for all issues that cleanvision looks for by default; how many images it saw."""
    lab = imagelab()(data_path=folder)
    lab.find_issues()
    return len(lab.issues)


def imagededup(folder: str) -> int:
    """Compare the perceptual hashes of all images, with the default threshold of 10 bits; how many images it saw."""
    return len(phash()().find_duplicates(image_dir=folder, recursive=True))


def imagelab() -> type:
    """cleanvision's class, imported only where it is used: each tool is timed with its own imports."""
    from cleanvision import Imagelab

    return Imagelab


def phash() -> type:
    """imagededup's class, likewise.

    imagededup imports torch and torchvision whatever is used of it, and PHash uses neither. Where one is not
    installed (2 GB, and torchvision has no build for every torch), an empty stand-in takes its place for the import.
    That is to imagededup's advantage: to import the real ones takes seconds.
    """
    absent = [name for name in NEEDED_BY_CNN if importlib.util.find_spec(name.partition(".")[0]) is None]
    for name in absent:
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__getattr__ = lambda _: StandIn
    from imagededup.methods import PHash

    return PHash


def check() -> str:
    """Versions of the tools and of what they decode with; exits where a tool cannot be imported."""
    faults = []
    for name, load in (("cleanvision", imagelab), ("imagededup", phash)):
        try:
            load()
        except ImportError as error:
            faults.append(f"{name} cannot be imported: {error}")
    if faults:
        sys.exit("\n".join(faults))
    packages = ("cleanvision", "imagededup", "pillow", "numpy")
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)])


if __name__ == "__main__":
    if sys.argv[1] == "check":
        print(check())
    else:
        tool = {"cleanvision": cleanvision, "imagededup": imagededup}[sys.argv[1]]
        if (seen := tool(sys.argv[2])) != int(sys.argv[3]):
            sys.exit(f"{sys.argv[1]} saw {seen} of {sys.argv[3]} images")

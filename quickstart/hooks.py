"""Install DVC's git hooks so that they work outside the environment too: `git push` then also runs `dvc push`."""

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """`dvc install`, with the full path of this environment's dvc in each hook."""
    installed = subprocess.run(["dvc", "install"])
    if installed.returncode:
        return installed.returncode
    hooks = Path(subprocess.check_output(["git", "rev-parse", "--git-path", "hooks"], text=True).strip())
    dvc = Path(sys.executable).with_name("dvc").as_posix()
    for hook in ("pre-commit", "pre-push", "post-checkout"):
        text = (hooks / hook).read_text(encoding="utf-8")
        (hooks / hook).write_text(text.replace("exec dvc ", f'exec "{dvc}" '), encoding="utf-8", newline="\n")
    print("Installed: git push also pushes the data, git checkout also checks it out, git commit shows its status.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the template ships beside code: DVC's settings and the lock."""

import re

from conftest import CONFIG, REPOSITORY, template_only


@template_only
def test_the_settings_of_dvc_are_those_that_the_tests_run_with():
    assert (REPOSITORY / ".dvc/config").read_text(encoding="utf-8") == CONFIG
    assert not re.search("endpoint|key|profile", CONFIG)


def test_the_lock_names_hashes_and_no_registry():
    lock = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    packages = re.findall(r"^[a-z0-9].*==.*", lock, flags=re.MULTILINE)
    assert len(packages) > 100
    assert lock.count("--hash=sha256:") >= len(packages)
    assert "://" not in lock

import subprocess
import sys
from pathlib import Path

import pytest

from product_classifier.core.errors import ProductClassifierError
from product_classifier.core.locks import only_one

HOLDER = """
import sys
from pathlib import Path
from product_classifier.core.locks import only_one
with only_one(Path(sys.argv[1]), "training"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_holder_is_refused_until_the_first_dies(tmp_path: Path) -> None:
    lock = tmp_path / "models" / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(ProductClassifierError, match="Another training runs"),
            only_one(lock, "training"),
        ):
            pass
        holder.kill()
        holder.wait()
        with only_one(lock, "training"):
            assert lock.is_file()


def test_the_lock_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), only_one(tmp_path / "lock", "training"):
        raise ValueError("inside")
    with only_one(tmp_path / "lock", "training"):
        pass

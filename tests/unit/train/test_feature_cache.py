import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from product_classifier.train.feature_cache import SEGMENT_PHOTOS, FeatureCache, segments

KEY: dict[str, object] = {"network": "a", "size": 32}


def features(names: list[str], size: int = 3) -> NDArray[np.float32]:
    """Rows that tell which photo they are of."""
    return np.array(
        [[int(name, 16) % 1000 + i / 8 for i in range(size)] for name in names], np.float32
    )


def hashes(count: int, start: int = 0) -> list[str]:
    return [f"{number:064x}" for number in range(start, start + count)]


@pytest.fixture
def filled(tmp_path: Path) -> FeatureCache:
    cache = FeatureCache(tmp_path, KEY, 3)
    for start in (0, 5, 10):
        names = hashes(5, start)
        cache.add(names, features(names))
    return cache


def test_what_was_added_is_there_after_opening_again(filled: FeatureCache, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, KEY, 3)
    names = hashes(15)
    np.testing.assert_array_equal(cache.gather(names[::-1]), features(names[::-1]))
    assert cache.missing(names) == []


def test_only_new_photos_are_missing_each_once_and_in_order(filled: FeatureCache) -> None:
    new = hashes(3, 100)
    assert filled.missing([*new, *hashes(15), *new[::-1]]) == new


def test_a_product_without_photo_has_zeros(filled: FeatureCache) -> None:
    found = filled.gather([None, hashes(1)[0], None])
    assert found.dtype == np.float32
    assert not found[[0, 2]].any()
    np.testing.assert_array_equal(found[1:2], features(hashes(1)))
    assert filled.gather([]).shape == (0, 3)


def test_a_photo_remembered_as_unusable_stays_so(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, KEY, 3)
    cache.add(hashes(2), np.array([[np.nan] * 3, [1, 2, 3]], np.float32))
    again = FeatureCache(tmp_path, KEY, 3)
    assert again.missing(hashes(2)) == []
    assert np.isnan(again.gather(hashes(1))).all()


@pytest.mark.parametrize(
    "other", [{"network": "b", "size": 32}, {"network": "a", "size": 64}, {"network": "a"}]
)
def test_other_networks_have_other_features(
    filled: FeatureCache, tmp_path: Path, other: dict[str, object]
) -> None:
    assert FeatureCache(tmp_path, other, 3).missing(hashes(2)) == hashes(2)
    assert FeatureCache(tmp_path, dict(reversed(KEY.items())), 3).missing(hashes(2)) == []


def damages(content: bytes) -> dict[str, bytes]:
    middle = len(content) // 2
    return {
        "empty": b"",
        "truncated": content[:middle],
        "end missing": content[:-1],
        "no zip": b"\0" * len(content),
        "data flipped": content.replace(b"\x93NUMPY", b"\x93NUMPX"),
        "bit flipped": content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],
        "text": b"not an archive",
    }


def test_any_damage_costs_one_segment(filled: FeatureCache, tmp_path: Path) -> None:
    path = sorted(filled.folder.glob("segment-*.npz"))[1]
    content = path.read_bytes()
    with np.load(path) as segment:
        lost = segment["photos"].tolist()
    for kind, damaged in damages(content).items():
        path.write_bytes(damaged)
        cache = FeatureCache(tmp_path, KEY, 3)
        assert sorted(cache.missing(hashes(15))) == sorted(lost), kind
        cache.add(lost, features(lost))
        np.testing.assert_array_equal(
            FeatureCache(tmp_path, KEY, 3).gather(hashes(15)), features(hashes(15))
        )


def test_a_segment_of_other_shape_is_dropped(filled: FeatureCache, tmp_path: Path) -> None:
    assert FeatureCache(tmp_path, KEY, 4).missing(hashes(15)) == hashes(15)


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from product_classifier.train.feature_cache import FeatureCache

names = [f"{number:064x}" for number in range(100, 105)]
cache = FeatureCache(Path(sys.argv[1]), {"network": "a", "size": 32}, 3)
moment = sys.argv[2]
if moment == "writing":
    save = np.savez
    def savez(file, **content):
        file.write(b"half of it")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    np.savez = savez
else:
    replace = Path.replace
    def killed(self, target):
        if moment == "after":
            replace(self, target)
        os.kill(os.getpid(), signal.SIGKILL)
    Path.replace = killed
cache.add(names, np.ones((5, 3), np.float32))
"""


@pytest.mark.parametrize(("moment", "kept"), [("writing", 0), ("before", 0), ("after", 5)])
def test_a_kill_leaves_a_readable_cache(
    filled: FeatureCache, tmp_path: Path, moment: str, kept: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), moment], env=os.environ, check=False
    )
    assert done.returncode == -9
    cache = FeatureCache(tmp_path, KEY, 3)
    np.testing.assert_array_equal(cache.gather(hashes(15)), features(hashes(15)))
    assert len(cache.missing(hashes(5, 100))) == 5 - kept
    assert {path.name.split("-")[0] for path in cache.folder.iterdir()} == {"key.json", "segment"}


def test_segments_cut_a_list_without_loss() -> None:
    names = hashes(2 * SEGMENT_PHOTOS + 1)
    cut = list(segments(names))
    assert [len(part) for part in cut] == [SEGMENT_PHOTOS, SEGMENT_PHOTOS, 1]
    assert sum(cut, []) == names
    assert list(segments([])) == []

"""The Python of docs/mobile-apps.md does what it says, with nothing of ours but a bundle."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.exceptions import InvalidSignature
from simulators.tiny_build import tiny_model, tiny_provenance

from edge_runtime.contract.archive import pack, unpack
from edge_runtime.scoring import Scorer
from exporter.keys import ReleaseKey, create_key
from exporter.packing import pack_model

PAGE = Path(__file__).resolve().parents[2] / "docs" / "mobile-apps.md"


@pytest.fixture(scope="module")
def guide() -> dict[str, Callable[..., Any]]:
    """The functions of the page."""
    blocks = re.findall(r"runs this -->\n```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    for block in blocks:
        assert "edge_runtime" not in block
        exec(compile(block, str(PAGE), "exec"), names)
    return names


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> ReleaseKey:
    return create_key(tmp_path_factory.mktemp("keys") / "targets.key", "targets", None)


@pytest.fixture(scope="module")
def bundle(key: ReleaseKey) -> bytes:
    return pack_model(tiny_model(), tiny_provenance(), key, name="fleet", version="1.0", release_number=1).data


def test_a_verified_bundle_scores_as_on_a_device(guide: Any, bundle: bytes, key: ReleaseKey) -> None:
    files = guide["verified_files"](bundle, key.public.pem)
    assert set(files) == set(unpack(bundle)) - {"model.sig"}
    session = guide["open_model"](files)
    scorer = Scorer(files["model.onnx"])
    for window in np.random.default_rng(0).normal(size=(20, 3, 2)).astype(np.float32):
        expected = scorer.score(window[None])
        score, verdict = guide["score"](session, window)
        assert score == pytest.approx(expected.anomaly_score[0], abs=1e-6)
        assert verdict == expected.is_anomaly[0]


def test_another_key_is_refused(guide: Any, bundle: bytes, tmp_path: Path) -> None:
    other = create_key(tmp_path / "other.key", "targets", None)
    with pytest.raises(InvalidSignature):
        guide["verified_files"](bundle, other.public.pem)


@pytest.mark.parametrize("name", ["model.onnx", "golden.f32", "manifest.json", "MODEL_CARD.html"])
def test_a_changed_file_is_refused(guide: Any, bundle: bytes, key: ReleaseKey, name: str) -> None:
    files = unpack(bundle)
    changed = pack({**files, name: files[name][:-1] + bytes([files[name][-1] ^ 1])})
    with pytest.raises(ValueError, match="other files"):
        guide["verified_files"](changed, key.public.pem)


def test_an_added_or_missing_file_is_refused(guide: Any, bundle: bytes, key: ReleaseKey) -> None:
    files = unpack(bundle)
    for changed in ({**files, "extra.txt": b"x"}, {name: files[name] for name in files if name != "parity.json"}):
        with pytest.raises(ValueError, match="other files"):
            guide["verified_files"](pack(changed), key.public.pem)


def test_a_phone_that_scores_otherwise_is_noticed(guide: Any, bundle: bytes) -> None:
    files = unpack(bundle)
    numbers = np.frombuffer(files["golden.f32"], "<f4").copy()
    for position, value in ((-5, numbers[-5] + 1e-3), (-5, np.nan), (-1, 1 - numbers[-1])):
        wrong = numbers.copy()
        wrong[position] = value
        with pytest.raises(ValueError, match="does not score here"):
            guide["open_model"]({**files, "golden.f32": wrong.tobytes()})

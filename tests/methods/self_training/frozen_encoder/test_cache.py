"""Embedding signals on disk: computed once, and the pool embedded once for all labels."""

from __future__ import annotations

import numpy as np
import pytest

from hfssl.errors import TrainingError
from hfssl.methods.self_training.config import SelfTrainingConfig
from hfssl.methods.self_training.frozen_encoder.cache import SignalCache
from tests.helpers.table_model import TableModel, on_circle, token_rows

ANGLES = [0, 10, 80, 90, 45]


@pytest.fixture
def cache(tmp_path, tiny_tokenizer):
    """Makes a cache whose encoder finds token t at angle `ANGLES[t]`, and counts how often the encoder was made."""

    def make(**settings) -> SignalCache:
        args = SelfTrainingConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **settings)

        def encoder() -> TableModel:
            found.made += 1
            return TableModel(np.full((5, 2), 0.5).tolist(), on_circle(ANGLES).tolist())

        found = SignalCache(
            encoder, tiny_tokenizer, args, label_names=["x", "y"], folder=tmp_path / "rounds", title=None
        )
        found.made = 0
        return found

    return make


def test_nothing_is_embedded_where_no_setting_asks_for_signals(cache, tmp_path):
    found = cache()
    assert found.signals(token_rows([0, 3], [0, 1]), token_rows([1, 2]), None, tmp_path) is None
    assert found.made == 0
    assert not list(tmp_path.iterdir())


def test_signals_are_computed_once_for_the_same_labels_and_the_pool_is_embedded_once(cache, tmp_path):
    first, folder = cache(backbone_probe=True), tmp_path / "rounds"
    labeled, pool, held_out = token_rows([0, 3], [0, 1]), token_rows([1, 2, 4]), token_rows([1], [0])
    found = first.signals(labeled, pool, held_out, folder)
    assert first.made == 1
    probs = found["backbone_probe"].probs
    assert probs.shape == (3, 2)
    assert probs[:, 0].argsort().tolist() == [1, 2, 0]  # 80, 45 and 10 degrees from the first class
    np.testing.assert_allclose(found["backbone_probe"].held_out_probs, probs[:1], rtol=1e-6)
    again = cache(backbone_probe=True)
    kept = again.signals(labeled, pool, held_out, folder)
    assert again.made == 0
    np.testing.assert_array_equal(kept["backbone_probe"].probs, probs)
    before = (folder / "embeddings.npz").stat().st_mtime_ns
    other = again.signals(token_rows([0, 3, 4], [0, 1, 1]), pool, None, tmp_path / "refit")
    assert other["backbone_probe"].probs[2, 0] < probs[2, 0]
    assert len(other["backbone_probe"].held_out_probs) == 0
    assert (folder / "embeddings.npz").stat().st_mtime_ns == before
    with pytest.raises(TrainingError, match="Expected the pool of 3 rows that .* was begun with, got 1 rows"):
        again.signals(labeled, token_rows([1]), None, tmp_path / "other")

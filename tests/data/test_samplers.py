from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eagle.data.datamodule import TrainingBatches, epoch_draws, shard
from eagle.errors import ConfigError

SIZES = {"n": st.integers(1, 40), "batch_size": st.integers(1, 7), "world_size": st.integers(1, 5)}


def first_batches(n_batches, *arguments):
    return list(islice(TrainingBatches(*arguments), n_batches))


def test_epoch_draws__epochs_differ_and_repeat_exactly():
    first = epoch_draws(50, seed=3, epoch=0)
    assert sorted(draw.image for draw in first) == list(range(50))
    assert len({draw.seed for draw in first}) == 50
    assert first == epoch_draws(50, seed=3, epoch=0)
    assert first != epoch_draws(50, seed=3, epoch=1)
    assert first != epoch_draws(50, seed=4, epoch=0)


@given(**SIZES)
def test_training_batches__ranks_together_draw_each_epoch(n, batch_size, world_size):
    """Interleaving the ranks' draws restores the epoch order; only an epoch's last batch may be smaller."""
    per_epoch = TrainingBatches(n, 3, batch_size, 0, 0, world_size).batches_per_epoch
    ranks = [first_batches(2 * per_epoch, n, 3, batch_size, 0, rank, world_size) for rank in range(world_size)]
    for epoch in range(2):
        batches = [batches[epoch * per_epoch : (epoch + 1) * per_epoch] for batches in ranks]
        assert all(len(batch) == batch_size for own in batches for batch in own[:-1])
        dealt = [[draw for batch in own for draw in batch] for own in batches]
        order = [draw for row in zip(*dealt, strict=True) for draw in row]
        assert order[:n] == epoch_draws(n, 3, epoch)
        assert len(order) - n < world_size


@given(**SIZES, done=st.integers(0, 30))
def test_training_batches__skip_batches_done(n, batch_size, world_size, done):
    for rank in range(world_size):
        whole = first_batches(done + 5, n, 3, batch_size, 0, rank, world_size)
        assert first_batches(5, n, 3, batch_size, done, rank, world_size) == whole[done:]


@given(n=st.integers(1, 40), world_size=st.integers(1, 5))
def test_shard__shares_are_disjoint_and_complete(n, world_size):
    if n < world_size:
        with pytest.raises(ConfigError, match=f"{world_size} processes cannot share {n} images; use {n}"):
            shard(n, 0, world_size)
        return
    shards = [shard(n, rank, world_size) for rank in range(world_size)]
    assert sorted(index for part in shards for index in part) == list(range(n))
    assert [len(part) for part in shards] == [len(list(part)) for part in shards]

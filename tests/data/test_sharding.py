import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import SequentialSampler

from eagle.data.sampler import SeededSampler
from eagle.data.sharding import ShardedSampler
from eagle.errors import ConfigError

SIZES = {"n": st.integers(1, 40), "world_size": st.integers(1, 5)}


def shards_of(make_sampler, world_size, equal_shares):
    return [ShardedSampler(make_sampler(), rank, world_size, equal_shares) for rank in range(world_size)]


@given(**SIZES, epoch=st.integers(0, 3))
def test_sharded_sampler__training_shards_are_the_epochs_order_dealt_out(n, world_size, epoch):
    shards = shards_of(lambda: SeededSampler(n, seed=3), world_size, equal_shares=True)
    for shard in shards:
        shard.set_epoch(epoch)
    dealt = [list(shard) for shard in shards]
    assert {len(shard) for shard in dealt} == {len(shards[0])} == {-(-n // world_size)}
    whole = SeededSampler(n, seed=3)
    whole.set_epoch(epoch)
    order = list(whole)
    global_order = [draw for row in zip(*dealt, strict=True) for draw in row]
    assert global_order[:n] == order, "one batch of each process is one batch of the whole"
    assert len(global_order) - n < world_size


@given(**SIZES)
def test_sharded_sampler__evaluation_shards_are_disjoint_and_complete(n, world_size):
    if n < world_size:
        with pytest.raises(ConfigError, match=f"{world_size} processes cannot share {n} images; use {n}"):
            shards_of(lambda: SequentialSampler(range(n)), world_size, equal_shares=False)
        return
    shards = shards_of(lambda: SequentialSampler(range(n)), world_size, equal_shares=False)
    assert sorted(index for shard in shards for index in shard) == list(range(n))
    assert [len(shard) for shard in shards] == [len(list(shard)) for shard in shards]


def test_sharded_sampler__epochs_count_themselves_alike_in_every_process():
    """Nobody need call set_epoch: the order changes, and stays the same in all processes."""
    shards = shards_of(lambda: SeededSampler(8, seed=0), 2, equal_shares=True)
    epochs = [[list(shard) for shard in shards] for _ in range(2)]
    assert epochs[0] != epochs[1]
    for first, second in epochs:
        assert {draw.image for draw in first}.isdisjoint(draw.image for draw in second)

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eagle.data.loading.sharding import Shard
from eagle.errors import ConfigError


@given(n=st.integers(1, 40), world_size=st.integers(1, 5))
def test_shard__shares_are_disjoint_and_complete(n, world_size):
    if n < world_size:
        with pytest.raises(ConfigError, match=f"{world_size} processes cannot share {n} images; use {n}"):
            Shard(n, 0, world_size)
        return
    shards = [Shard(n, rank, world_size) for rank in range(world_size)]
    assert sorted(index for shard in shards for index in shard) == list(range(n))
    assert [len(shard) for shard in shards] == [len(list(shard)) for shard in shards]

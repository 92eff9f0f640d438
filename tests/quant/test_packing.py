import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import InputError
from quant.packing import pack, packed_bytes, unpack


@given(bits=st.integers(1, 8), num_codes=st.integers(0, 300), seed=st.integers(0, 10**6))
@settings(deadline=None)
def test_packing_is_exact_at_every_width_and_length(bits, num_codes, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(2**bits, (num_codes,), generator=generator, dtype=torch.uint8)
    packed = pack(codes, bits)
    assert len(packed) == packed_bytes(num_codes, bits)
    assert len(packed) * 8 < num_codes * bits + 8 * 3
    assert torch.equal(unpack(packed, bits, num_codes), codes)


def test_packing_by_hand():
    # 3 bits are a plane of crumbs (low bits, two codes a whole plane apart) and one of single bits
    codes = torch.tensor([1, 2, 3, 4, 5, 6, 7, 0], dtype=torch.uint8)
    low = [1 | 3 << 2 | 1 << 4 | 3 << 6, 2 | 0 << 2 | 2 << 4 | 0 << 6]
    high = [0b01111000]
    assert pack(codes, 3).tolist() == low + high


def test_bytes_of_another_length_are_refused():
    with pytest.raises(InputError, match="take 3 bytes, not 2"):
        unpack(torch.zeros(2, dtype=torch.uint8), 3, 8)
    with pytest.raises(InputError, match="1 to 8 bits, not 9"):
        pack(torch.zeros(2, dtype=torch.uint8), 9)

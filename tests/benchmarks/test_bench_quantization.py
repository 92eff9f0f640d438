import json

from benchmarks.bench_quantization import METHODS, PRECISIONS, unmeasured


def test_what_was_not_measured_is_null_and_what_was_is_kept():
    figures = unmeasured({"file_ratio": 1.02})
    assert "file_ratio" not in figures
    assert figures["distance_mpq_w2a4_low"] is None
    assert len(figures) == 3 * len(METHODS) * len(PRECISIONS) + 3
    assert json.dumps(figures)

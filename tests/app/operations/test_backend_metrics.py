"""Whoever looks sees what computes a model, and when it was not that."""

from app.images.mapping import to_card
from app.operations.metrics import Metrics
from app.settings import Settings
from pipelines.accelerate.choose import AUTO, BACKENDS
from tests.app.conftest import SteppedPainter


def test_fallbacks_are_counted_by_variant_and_reason_and_shown_in_the_card() -> None:
    painter = SteppedPainter()
    metrics = Metrics()
    metrics.watch_backends(lambda: {"default": painter})
    assert b"fewstroke_backend_fallbacks_total{" not in metrics.render()
    for _ in range(3):
        painter.execution.fall_back("vae", "it does not compile")
    labels = b'{backend="stripes",reason="vae",variant="default"}'
    assert b"fewstroke_backend_fallbacks_total" + labels + b" 3.0" in metrics.render()
    card = to_card({"default": painter}, Settings(), loaded_at=5).served["default"]
    assert (card.backend, card.fallbacks) == ("stripes", {"vae": 3})


def test_every_backend_can_be_set() -> None:
    schema = Settings.model_json_schema()["properties"]["backend"]
    assert schema["enum"] == [AUTO, *BACKENDS]

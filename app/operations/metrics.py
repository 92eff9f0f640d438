"""What Prometheus reads at `/metrics`: names, labels and where the numbers come from.

No label holds a prompt, a key or an id; values of labels are few and known beforehand.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipelines.orders import Counters, QueueState, Tick
from pipelines.painter import Painter

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
BATCH_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


USAGE = {
    "image_tokens": "Image tokens times forward passes computed.",
    "word_tokens": "Tokens of words that image tokens listened to, once a row and pass.",
    "padding_tokens": "Tokens of padding beside them.",
    "cached_passes": "Passes of a row that computed its first block and took the others' from an "
    "earlier step.",
    "texts_encoded": "Texts that went through the text encoder.",
    "texts_remembered": "Texts whose vectors were still known.",
}
COUNTERS = {
    "requests": "Requests taken in.",
    "refused": "Requests refused because the queue was full or their time too short.",
    "finished": "Requests that got all their pictures.",
    "cancelled": "Requests whose caller left.",
    "failed": "Requests that ended otherwise.",
    "steps": "Steps of single pictures.",
    "dropped_steps": "Steps that were under way when their caller left.",
    "passes": "Forward passes.",
    "previews": "Previews decoded.",
    "out_of_memory": "How often the device was full.",
    "swaps": "Models swapped in.",
}


class Metrics:
    """The metrics of one application; each has a registry of its own, so that two can be tested."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = self._counter(
            "http_requests", "Requests by route, method and status.", "route", "method", "status"
        )
        self._request_s = self._histogram(
            "http_request_seconds", "From the head of a request to its answer's last byte.", "route"
        )
        self._refused = self._counter(
            "refused_requests", "Streams that ended in an error, by its code.", "code"
        )
        self._images = self._counter("images", "Pictures handed out.", "variant")
        self._cost = self._counter("cost_units", "Image tokens times steps of those pictures.")
        self._stage_s = self._histogram("stage_seconds", "Seconds of a request by stage.", "stage")
        self._tick_s = self._histogram("tick_seconds", "Seconds of one round of the engine.")
        self._batch = self._histogram(
            "batch_size", "Pictures that advanced together in a round.", buckets=BATCH_SIZES
        )
        self._pixels = self._counter("step_pixels", "Pixels times forward passes computed.")
        self._fallbacks = self._counter(
            "planner_fallbacks", "Plans that the grammar made in the language model's place."
        )
        self._cut = self._counter("disconnects", "Callers who left before their answer's end.")

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"fewstroke_{name}", what, labels, registry=self.registry)

    def _histogram(
        self, name: str, what: str, *labels: str, buckets: tuple[float, ...] = SECONDS
    ) -> Histogram:
        return Histogram(f"fewstroke_{name}", what, labels, buckets=buckets, registry=self.registry)

    def watch(self, state: Callable[[], QueueState], counters: Counters) -> None:
        """Read the engine whenever Prometheus asks.

        Args:
            state: What waits and what runs.
            counters: What it did.
        """
        self.registry.register(_EngineCollector(state, counters))

    def watch_backends(self, painters: Callable[[], Mapping[str, Painter]]) -> None:
        """Read how often plain torch stood in, whenever Prometheus asks.

        Args:
            painters: The served variants by name.
        """
        self.registry.register(_BackendCollector(painters))

    def count_tick(self, tick: Tick) -> None:
        """Note one round of the engine; called from its thread.

        Args:
            tick: What it did.
        """
        self._tick_s.observe(tick.seconds)
        if tick.num_rows:
            self._batch.observe(tick.num_rows)
        self._pixels.inc(tick.cost)

    def count_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Note one answered request.

        Args:
            route: Its route, as a template; never a path that a client chose.
            method: Its method.
            status: Status of the answer.
            seconds: How long it took.
        """
        self._requests.labels(route, method, str(status)).inc()
        self._request_s.labels(route).observe(seconds)

    def count_refused(self, code: str) -> None:
        """Note one request that ended in an error.

        Args:
            code: The error's code.
        """
        self._refused.labels(code).inc()

    def count_images(
        self, variant: str, num_images: int, cost_units: float, timings_s: Mapping[str, float]
    ) -> None:
        """Note pictures that were handed out.

        Args:
            variant: Who painted.
            num_images: How many.
            cost_units: What they cost.
            timings_s: Seconds by stage.
        """
        self._images.labels(variant).inc(num_images)
        self._cost.inc(cost_units)
        for stage, seconds in timings_s.items():
            if stage != "total":
                self._stage_s.labels(stage).observe(seconds)

    def count_planner_fallback(self) -> None:
        """Note one plan that was not made by the planner that was asked."""
        self._fallbacks.inc()

    def count_disconnect(self) -> None:
        """Note one caller who left."""
        self._cut.inc()

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)


class _EngineCollector(Collector):
    def __init__(self, state: Callable[[], QueueState], counters: Counters) -> None:
        self._state = state
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        """Yield the engine's numbers as they are now."""
        state = self._state()
        yield _gauge("queue_waiting", "Requests of which no picture has begun.", state.num_waiting)
        yield _gauge("queue_running", "Requests that have begun.", state.num_running)
        yield _gauge(
            "queue_backlog_seconds",
            "When all accepted work will be done at the measured rate.",
            state.backlog_s or 0.0,
        )
        for name, value in asdict(self._counters).items():
            family = CounterMetricFamily(f"fewstroke_engine_{name}", COUNTERS[name])
            family.add_metric((), value)
            yield family


class _BackendCollector(Collector):
    def __init__(self, painters: Callable[[], Mapping[str, Painter]]) -> None:
        self._painters = painters

    def collect(self) -> Iterator[Metric]:
        """Yield one number for each variant and reason that there was."""
        family = CounterMetricFamily(
            "fewstroke_backend_fallbacks",
            "Calls of a network that plain torch took over.",
            labels=("variant", "backend", "reason"),
        )
        for variant, painter in self._painters().items():
            execution = painter.execution
            for reason, count in execution.fallbacks.items():
                family.add_metric((variant, execution.backend, reason), count)
        yield family
        for name, what in USAGE.items():
            family = CounterMetricFamily(f"fewstroke_{name}", what, labels=("variant",))
            for variant, painter in self._painters().items():
                family.add_metric((variant,), painter.execution.usage.get(name, 0))
            yield family


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"fewstroke_{name}", what)
    family.add_metric((), value)
    return family

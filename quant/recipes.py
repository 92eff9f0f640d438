"""Methods and settings by name."""

from dataclasses import dataclass, replace
from typing import Literal

from core.recipes import AMOUNT, COUNT, RATE, SEED, WEIGHT, check_ranges
from core.registry import Registry
from quant.finetune import Relation
from quant.plan import Storage


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizationMethod:
    """A way to few bits.

    Attributes:
        storage: How layers are stored.
        learns: Whether adapters are tuned afterwards.
        relation: The relation loss of the tuning.
        summary: What it is, in a few words.
    """

    storage: Storage
    learns: bool
    relation: Relation
    summary: str


METHODS = Registry[QuantizationMethod]("method")
_TABLE: tuple[tuple[str, Storage, bool, Relation, str], ...] = (
    ("minmax", Storage(grid="minmax", whole_zero=True), False, "none", "whole ranges, no tuning"),
    (
        "rtn",
        Storage(grid="minmax", activations="dynamic", group_size=64),
        False,
        "none",
        "round to nearest, 64 weights a scale, activations per token",
    ),
    (
        "svdquant",
        Storage(
            grid="minmax", activations="dynamic", group_size=64, smooth="always", branch_rank=32
        ),
        False,
        "none",
        "SVDQuant's construction: smooth, rank 32 in float, residual in groups",
    ),
    ("efficientdm", Storage(), True, "none", "QALoRA and a range per timestep"),
    ("omq", Storage(smooth="helpful", allocation="omq"), True, "none", "and bits by kurtosis"),
    ("trd", Storage(), True, "joint", "and relations over time, uniform bits"),
    ("mpq", Storage(smooth="helpful", allocation="omq"), True, "joint", "MPQ-DM: both"),
    (
        "mpq_plus",
        Storage(smooth="helpful", allocation="omq", plus=True),
        True,
        "joint",
        "MPQ-DM+: another tenth of the channels at one bit more",
    ),
    (
        "mpq_budget",
        Storage(smooth="helpful", allocation="budget"),
        True,
        "joint",
        "MPQ-DM whose layers share one budget of bits",
    ),
    (
        "mpq_release",
        Storage(smooth="always", allocation="omq", released_search=True, whole_zero=True),
        True,
        "release",
        "MPQ-DM as its code was published: the relation loss has no gradient",
    ),
)
for _name, _storage, _learns, _relation, _summary in _TABLE:
    METHODS.add(
        _name,
        QuantizationMethod(storage=_storage, learns=_learns, relation=_relation, summary=_summary),
    )


RANGES = {
    "num_calibration": COUNT,
    "num_rows": (2, COUNT[1]),
    "num_trajectories": AMOUNT,
    "batch_size": COUNT,
    "learning_rate": RATE,
    "rank": COUNT,
    "window": COUNT,
    "relation_share": WEIGHT,
    "relation_tokens": (2, COUNT[1]),
    "save_every": COUNT,
    "sample_every": COUNT,
    "seed": SEED,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How much is calibrated and learned.

    Attributes:
        num_calibration: Pictures that are sampled to listen to the layers.
        num_rows: Inputs kept per layer for searches.
        num_trajectories: Trajectories that are learned from; 0 learns nothing.
        batch_size: Pictures a trajectory.
        learning_rate: Rate that the adapters' own rates are relative to; the default is for about
            a hundred optimizer steps, ten times what is published for many thousands.
        rank: Rank of the low-rank factors.
        smooth: Whether large inputs are moved into the weights: "never", "always" or "helpful".
            Empty takes the method's own, but does without where ranges are learned, too: pictures
            then come nearer.
        start: "zero", or "error" to start them from the rounding error.
        relation: Relation loss; empty takes the method's own.
        window: Steps whose features are averaged.
        relation_share: Strength of the relation loss beside the task.
        relation_tokens: Tokens of a relation map.
        save_every: Optimizer steps between checkpoints.
        sample_every: Optimizer steps between pictures.
        seed: Seed of prompts, noise and factors.
    """

    num_calibration: int = 64
    num_rows: int = 512
    num_trajectories: int = 60
    batch_size: int = 4
    learning_rate: float = 5e-3
    rank: int = 32
    smooth: Literal["", "never", "always", "helpful"] = ""
    start: Literal["zero", "error"] = "zero"
    relation: Literal["", "none", "joint", "current", "release"] = ""
    window: int = 2
    relation_share: float = 0.1
    relation_tokens: int = 256
    save_every: int = 100
    sample_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be computed, by the setting's name."""
        check_ranges(self, RANGES)


SETTINGS = {
    "cpu": Settings(),
    "gpu": Settings(
        num_calibration=256,
        num_trajectories=800,
        batch_size=16,
        learning_rate=5e-4,
        save_every=1000,
    ),
    "quick": Settings(num_calibration=4, num_rows=256, num_trajectories=0),
}


def storage_of(method: QuantizationMethod, settings: Settings) -> Storage:
    """Return how a method stores layers under these settings.

    Args:
        method: A value of METHODS.
        settings: What is learned, and whether large inputs are moved.

    Source: Feng et al., "MPQ-DM", arXiv 2412.11549, smooths before it learns; we do not, for there
        it costs (docs/log.md, 2026-11-30). `--set smooth=helpful` does.
    """
    smooth = settings.smooth
    if not smooth and method.storage.smooth == "helpful" and learns(method, settings):
        smooth = "never"
    return replace(method.storage, smooth=smooth) if smooth else method.storage


def learns(method: QuantizationMethod, settings: Settings) -> bool:
    """Return whether anything is tuned after layers are planned.

    Args:
        method: A value of METHODS.
        settings: How much is learned.
    """
    return method.learns and settings.num_trajectories > 0

"""Named settings of a distillation, the methods by name, and the ablations."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from torch import nn

from core.errors import InputError
from core.recipes import AMOUNT, COUNT, RATE, SEED, WEIGHT, check_ranges, configured
from core.registry import Registry
from distill.features import FeatureNetwork
from distill.methods.consistency import ConsistencyMethod
from distill.methods.dmd import DistributionMatchingMethod
from distill.methods.progressive import ProgressiveMethod
from distill.methods.rcfd import ClassifierFeatureMethod
from distill.methods.rdd import RelationalMethod, RelationalSettings
from distill.stages import Stage, chain, fan
from distill.student import StudentMethod
from distill.teach import Ground, MakeMethod
from training.loop import LoopConfig
from training.optimizers import OptimizerConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentRecipe:
    """Settings of a distillation; loss weights and temperatures are those of `RelationalSettings`.

    Attributes:
        num_steps: Optimizer steps per student.
        first_num_steps: Optimizer steps of the first student of a chain, which learns to do
            without guidance as well; 0 takes `num_steps`.
        batch_size: Samples a step and process.
        num_scenes: Scenes that are drawn from.
        teacher_steps: DDIM steps of the first teacher.
        guidance: The first teacher's classifier-free guidance, which students learn to do without.
        guidance_rescale: How far that goes back to the spread without guidance, 0..1.
        chained_guidance: Guidance of students that teach the next one of a chain, on top of what
            they carry; 1 for none.
        own_path: Share of samples on which a student of a chain starts where it arrives itself
            instead of at a noisy training picture, 0..1.
        optimizer: "adamw" for all weights, or "muon" for matrices inside blocks.
        learning_rate: AdamW's peak; it falls to 0 along a cosine.
        muon_learning_rate: Muon's peak, where it is used.
        warmup_steps: Steps of linear warm-up.
        ema_decay: Decay of the averaged weights that the next stage starts from.
        precision: "bf16", "no", or "auto": bf16 where the device multiplies it in hardware.
        save_every: Steps between checkpoints.
        sample_every: Steps between picture grids.
        compiles: Fuse the operations of student and teacher: minutes at the start of each stage,
            then faster steps.
        seed: Seed of data, times and noise.
        squared: Weight of the squared picture error.
        cfd: Weight of the classifier-feature term.
        intra: Weight of relations within the batch.
        memory: Weight of relations with the queue.
        cfd_temperature: Of the teacher's softmax in the classifier-feature term.
        temperature: Of cosines within the batch.
        contrast_temperature: Of cosines with the queue.
        capacity: Pixels in the queue.
        num_contrasts: Pixels of the queue that a pixel is compared with.
        num_fresh: New pixels per step.
        queue: "paper" or "release".
        critic_steps: Of dmd: steps of the critic for one of the student.
    """

    num_steps: int = 1500
    first_num_steps: int = 0
    batch_size: int = 32
    num_scenes: int = 8000
    teacher_steps: int = 32
    guidance: float = 4.0
    guidance_rescale: float = 0.7
    chained_guidance: float = 1.0
    own_path: float = 0.0
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 3e-4
    muon_learning_rate: float = 3e-4
    warmup_steps: int = 100
    ema_decay: float = 0.995
    precision: Literal["auto", "bf16", "no"] = "auto"
    save_every: int = 250
    sample_every: int = 500
    compiles: bool = False
    seed: int = 0
    squared: float = 1.0
    cfd: float = 1.0
    intra: float = 1.0
    memory: float = 0.1
    cfd_temperature: float = 0.9
    temperature: float = 1.0
    contrast_temperature: float = 0.1
    capacity: int = 20_000
    num_contrasts: int = 4096
    num_fresh: int = 128
    queue: Literal["paper", "release"] = "paper"
    critic_steps: int = 2

    def __post_init__(self) -> None:
        """Refuse what cannot be computed, by the setting's name."""
        check_ranges(self, RANGES)


RANGES = {
    **dict.fromkeys(
        (
            *("num_steps", "batch_size", "num_scenes", "teacher_steps", "save_every"),
            *("sample_every", "capacity", "num_contrasts", "num_fresh", "critic_steps"),
        ),
        COUNT,
    ),
    **dict.fromkeys(("first_num_steps", "warmup_steps"), AMOUNT),
    **dict.fromkeys(("learning_rate", "muon_learning_rate"), RATE),
    **dict.fromkeys(("guidance", "chained_guidance"), (1.0, 100.0)),
    **dict.fromkeys(("guidance_rescale", "own_path", "ema_decay"), (0.0, 1.0)),
    **dict.fromkeys(("squared", "cfd", "intra", "memory"), WEIGHT),
    **dict.fromkeys(("cfd_temperature", "temperature", "contrast_temperature"), (1e-3, 1e3)),
    "seed": SEED,
}

# "paper" keeps the published weights: features and relations alone, no squared error.
RECIPES: dict[str, StudentRecipe] = {
    "cpu": StudentRecipe(),
    "gpu": StudentRecipe(num_steps=20_000, batch_size=256, num_scenes=200_000, save_every=1000),
    "paper": StudentRecipe(
        num_steps=20_000,
        batch_size=128,
        num_scenes=40_000,
        teacher_steps=16,
        learning_rate=5e-5,
        squared=0.0,
        save_every=1000,
        sample_every=2000,
    ),
}

# For small photos: no guidance, no squared error, as published; data is not scenes.
PIXEL_RECIPES: dict[str, StudentRecipe] = {
    name: replace(recipe, guidance=1.0, teacher_steps=16, squared=0.0)
    for name, recipe in RECIPES.items()
}

# Which terms a run of `rdd` keeps; the weights of those are the recipe's.
ABLATIONS: dict[str, frozenset[str]] = {
    "logits": frozenset({"squared"}),
    "cfd": frozenset({"cfd"}),
    "is": frozenset({"intra"}),
    "m": frozenset({"memory"}),
    "cfd-is": frozenset({"cfd", "intra"}),
    "cfd-m": frozenset({"cfd", "memory"}),
    "cfd-is-m": frozenset({"cfd", "intra", "memory"}),
}
TERMS = ("squared", "cfd", "intra", "memory")


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """A way to teach, as the command knows it.

    Attributes:
        plan: Lays out the stages.
        needs_features: Whether a feature network looks at pictures.
        summary: What it is, in a few words.
    """

    plan: Any
    needs_features: bool
    summary: str


WAYS: Registry[Way] = Registry("method")
WAYS.add("progressive", Way(plan=chain, needs_features=False, summary="squared error, halving"))
WAYS.add("rcfd", Way(plan=chain, needs_features=True, summary="classifier features, halving"))
WAYS.add("rdd", Way(plan=chain, needs_features=True, summary="features and relations, halving"))
WAYS.add("consistency", Way(plan=fan, needs_features=False, summary="self-consistent jumps"))
WAYS.add("dmd", Way(plan=fan, needs_features=False, summary="likely for the teacher, no targets"))


def recipe_settings(
    recipe: str,
    changes: Sequence[str],
    *,
    method: str,
    ablation: str | None = None,
    recipes: Mapping[str, StudentRecipe] | None = None,
) -> StudentRecipe:
    """Return a recipe with single settings changed and terms left out.

    Args:
        recipe: A key of the recipes.
        changes: "field=value" settings over the recipe.
        method: A key of WAYS.
        ablation: A key of ABLATIONS, for "rdd": terms that are not in it get weight 0, terms in
            it that have none get weight 1.
        recipes: Recipes by name; None takes those for scenes.

    Raises:
        InputError: If there is no such ablation, or the method has no terms to leave out.
    """
    settings = configured(recipes or RECIPES, recipe, changes)
    if ablation is None:
        return settings
    if ablation not in ABLATIONS or method != "rdd":
        raise InputError(
            f"There is no ablation {ablation!r} of {method}: rdd has {', '.join(ABLATIONS)}.",
            param="ablation",
        )
    weights: dict[str, Any] = {
        term: (getattr(settings, term) or 1.0) if term in ABLATIONS[ablation] else 0.0
        for term in TERMS
    }
    return replace(settings, **weights)


def stages_of(method: str, steps: Sequence[int], settings: StudentRecipe) -> tuple[Stage, ...]:
    """Return the stages of a method, refusing steps that cannot be taught.

    Args:
        method: A key of WAYS.
        steps: Steps of the students, falling.
        settings: Gives the teacher's steps and guidance.

    Raises:
        InputError: If settings of chains are given for a method that is none.
    """
    guided: dict[str, Any] = {
        "teacher_steps": settings.teacher_steps,
        "guidance": settings.guidance,
        "guidance_rescale": settings.guidance_rescale,
    }
    if WAYS.get(method, param="method").plan is fan:
        for name, off in (("own_path", 0.0), ("chained_guidance", 1.0)):
            if (given := getattr(settings, name)) != off:
                raise InputError(
                    f"{name} {given}: {method} is no chain; leave it {off:g}.", param=name
                )
        return fan(steps, **guided)
    first, *later = chain(
        steps,
        **guided,
        chained_guidance=settings.chained_guidance,
        own_path=settings.own_path,
    )
    if settings.first_num_steps:
        first = replace(first, training_steps=settings.first_num_steps)
    return first, *later


def method_maker(
    method: str, ground: Ground, settings: StudentRecipe, features: FeatureNetwork | None
) -> MakeMethod:
    """Return what makes the method of each stage.

    Args:
        method: A key of WAYS.
        ground: Gives task and schedule.
        settings: Weights, temperatures, queue.
        features: What looks at pictures, for methods that need it.

    Raises:
        InputError: If the method needs a feature network and none is given.
    """
    way = WAYS.get(method, param="method")
    if way.needs_features and features is None:
        raise InputError(
            f"{method} needs a feature network: give --features with the folder of a classifier "
            "(fewstroke distill classifier trains one), or 'teacher'.",
            param="features",
        )

    def make(student: nn.Module, teacher: nn.Module, stage: Stage) -> StudentMethod:
        taught = plain(student, teacher, stage)
        if settings.compiles:
            taught.fuse()
        return taught

    def plain(student: nn.Module, teacher: nn.Module, stage: Stage) -> StudentMethod:
        parts = (student, teacher, ground.task, ground.noise, stage)
        if method == "progressive":
            return ProgressiveMethod(*parts)
        if method == "consistency":
            return ConsistencyMethod(*parts)
        if method == "dmd":
            return DistributionMatchingMethod(*parts, critic_steps=settings.critic_steps)
        assert features is not None  # asked for above
        if method == "rcfd":
            return ClassifierFeatureMethod(
                *parts, features=features, temperature=settings.cfd_temperature
            )
        return RelationalMethod(
            *parts, features=features, settings=relational(settings), seed=settings.seed
        )

    return make


def relational(settings: StudentRecipe) -> RelationalSettings:
    """Return the part of a recipe that the relational method reads.

    Args:
        settings: The recipe.
    """
    known = {field.name for field in fields(RelationalSettings)}
    return RelationalSettings(**{k: v for k, v in asdict(settings).items() if k in known})


def loop_of(settings: StudentRecipe, *, minutes: float | None) -> LoopConfig:
    """Return how each student is trained.

    Args:
        settings: The recipe.
        minutes: Time for all students together; None for no limit.
    """
    return LoopConfig(
        num_steps=settings.num_steps,
        optimizer=OptimizerConfig(
            kind=settings.optimizer,
            muon_learning_rate=settings.muon_learning_rate,
            learning_rate=settings.learning_rate,
            warmup_steps=settings.warmup_steps,
            weight_decay=0.0,
            betas=(0.9, 0.999),
            final_share=0.0,
        ),
        precision=settings.precision,
        ema_decay=settings.ema_decay,
        save_every=settings.save_every,
        sample_every=settings.sample_every,
        seed=settings.seed,
        time_limit_s=None if minutes is None else 60 * minutes,
    )

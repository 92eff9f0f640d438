import json
from copy import deepcopy
from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.errors import CheckpointError, InputError
from distill.captioned import (
    features_of,
    ground_of,
    latents_of,
    load_student,
    load_teacher,
    unseen_scenes,
)
from distill.classifier import latent_classifier
from distill.features import TransformerFeatures, save_classifier
from distill.recipes import (
    ABLATIONS,
    loop_of,
    method_maker,
    recipe_settings,
    relational,
    stages_of,
)
from distill.teach import teach
from tests.distill.conftest import TINY_QUEUE, TINY_RUN
from training.networks import weights_digest
from training.text import new_tokenizer


@pytest.fixture
def teacher(checkpoint):
    return load_teacher(checkpoint, checkpoint / "transformer")


@pytest.fixture
def source(teacher, made_up_latents, tmp_path):
    return latents_of(teacher, tmp_path, num_scenes=8, batch_size=2, seed=0)[0]


def settings_for(method, *changes):
    return recipe_settings("cpu", [*TINY_RUN, *TINY_QUEUE, *changes], method=method)


def taught(
    teacher,
    source,
    run_dir,
    *,
    method="rdd",
    steps=(2, 1),
    minutes=None,
    changes=(),
    start_from=None,
):
    settings = settings_for(method, *changes)
    features = features_of("teacher", teacher) if method in {"rdd", "rcfd"} else None
    ground = ground_of(teacher, source, features=features, encoder="made-up")
    maker = method_maker(method, ground, settings, features)
    loop = replace(loop_of(settings, minutes=minutes), sample_every=1000)
    stages = stages_of(method, steps, settings)
    return teach(
        ground, stages, maker, loop, run_dir, settings=asdict(settings), start_from=start_from
    )


def weights(students):
    return [load_file(s.folder / "diffusion_pytorch_model.safetensors") for s in students]


@pytest.mark.usefixtures("two_sample_prompts")
def test_a_first_student_learns_on_from_an_earlier_one(teacher, source, tmp_path):
    earlier = deepcopy(teacher.transformer)
    with torch.no_grad():
        for weight in earlier.parameters():
            weight.add_(0.01)
    earlier.save_pretrained(tmp_path / "earlier")
    still = ("learning_rate=1e-12", "num_steps=1")
    before = load_student(teacher, tmp_path / "earlier")
    (student,) = weights(
        taught(teacher, source, tmp_path / "run", steps=(2,), changes=still, start_from=before)
    )
    for name, weight in earlier.state_dict().items():
        assert torch.allclose(student[name], weight, atol=1e-6), name
    with pytest.raises(CheckpointError, match="begun with other start_from"):
        taught(teacher, source, tmp_path / "run", steps=(2,), changes=still)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("proj_out.weight"), "lacks the weight proj_out.weight"),
        (lambda t: t["proj_out.weight"].fill_(float("nan")), "proj_out.weight is not finite"),
    ],
)
def test_a_student_with_a_missing_or_broken_weight_is_refused(teacher, change, says, tmp_path):
    teacher.transformer.save_pretrained(tmp_path, safe_serialization=True)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=says):
        load_student(teacher, tmp_path)


def test_what_is_no_student_of_the_teacher_is_refused(teacher, tmp_path):
    with pytest.raises(CheckpointError, match=r"has no config\.json\. Give the folder"):
        load_student(teacher, tmp_path)
    config = dict(teacher.transformer.config) | {"num_layers": 1}
    type(teacher.transformer).from_config(config).save_pretrained(tmp_path / "smaller")
    with pytest.raises(CheckpointError, match="has other weights than the PixArt"):
        load_student(teacher, tmp_path / "smaller")


@pytest.mark.parametrize("method", ["consistency", "dmd"])
@pytest.mark.parametrize("change", ["own_path=0.5", "chained_guidance=1.5"])
def test_settings_of_chains_are_refused_elsewhere(method, change):
    with pytest.raises(InputError, match=f"{change.split('=')[0]} .*: {method} is no chain"):
        stages_of(method, (2,), settings_for(method, change))


def test_chains_take_own_path_and_guidance_from_the_settings():
    settings = settings_for("rdd", "own_path=1", "chained_guidance=1.5")
    chained = stages_of("rdd", (2, 1), settings)
    assert [each.own_path for each in chained] == [1.0, 1.0]
    assert [each.guidance for each in chained] == [settings.guidance, 1.5]


@pytest.mark.slow
@pytest.mark.usefixtures("two_sample_prompts")
def test_stages_stopped_anywhere_end_where_one_run_ends(teacher, source, tmp_path):
    before = weights_digest(teacher.transformer)
    whole = taught(teacher, source, tmp_path / "whole")
    assert [student.num_steps for student in whole] == [2, 1]
    for num_finished in range(3):  # without time a call makes one step of the first unfinished
        parts = taught(teacher, source, tmp_path / "parts", minutes=0.0)
        assert len(parts) == num_finished
    for one, other in zip(weights(whole), weights(parts), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert weights_digest(teacher.transformer) == before
    assert (tmp_path / "whole" / "1-steps" / "samples").is_dir()
    again = taught(teacher, source, tmp_path / "whole", changes=("save_every=7",))
    assert again == whole  # how often it is saved decides nothing
    with pytest.raises(CheckpointError, match="begun with other queue"):
        taught(teacher, source, tmp_path / "whole", changes=("queue=release",))


@pytest.mark.usefixtures("two_sample_prompts")
def test_a_damaged_run_folder_is_refused_by_the_file_at_fault(teacher, source, tmp_path):
    (student,) = taught(teacher, source, tmp_path / "run", method="progressive", steps=(2,))
    files = {
        "2-steps/student/diffusion_pytorch_model.safetensors": b"",
        "2-steps/student/student.json": b"{}",
        "2-steps/student/config.json": None,
        "plan.json": b"{",
    }
    for name, content in files.items():
        file = tmp_path / "run" / name
        whole = file.read_bytes()
        file.unlink() if content is None else file.write_bytes(content)
        with pytest.raises(CheckpointError) as caught:
            taught(teacher, source, tmp_path / "run", method="progressive", steps=(2,))
        assert str(file.parent) in caught.value.message
        file.write_bytes(whole)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        taught(teacher, source, tmp_path / "file", method="progressive", steps=(2,))
    again = taught(teacher, source, tmp_path / "run", method="progressive", steps=(2,))
    assert again == [student]


@pytest.mark.usefixtures("two_sample_prompts")
def test_the_first_student_may_learn_longer_and_with_another_optimizer(teacher, source, tmp_path):
    changes = ("first_num_steps=3", "optimizer=muon")
    students = taught(teacher, source, tmp_path, method="progressive", changes=changes)
    assert [student.num_samples for student in students] == [3 * 2, 2 * 2]


def test_latents_of_another_shape_are_refused(teacher, source):
    def smaller(step):
        batch = source(step)
        return {**batch, "latents": batch["latents"][:, :, :8, :8]}

    with pytest.raises(InputError, match=r"\(12, 8, 8\), the teacher denoises \(12, 16, 16\)"):
        ground_of(teacher, smaller, features=None, encoder="made-up")


def test_words_of_another_tokenizer_are_refused(teacher, source):
    def foreign(step):
        return {**source(step), "captions": ["zwei gelbe zebras"] * 2}

    with pytest.raises(InputError, match="unknown to the teacher's tokenizer"):
        ground_of(teacher, foreign, features=None, encoder="made-up")
    larger = new_tokenizer()
    larger.add_tokens([f"new{n}" for n in range(9)])

    def newer(step):
        return {**source(step), "captions": ["new8 cat", "cat"]}

    with pytest.raises(InputError, match="of two models"):
        ground_of(replace(teacher, tokenizer=larger), newer, features=None, encoder="made-up")


def test_a_classifier_of_another_encoder_is_refused(teacher, source, tmp_path):
    network = latent_classifier(channels=12, widths=(8,), num_blocks=1, trained_on="other")
    save_classifier(network, tmp_path, metrics={})
    features = features_of(str(tmp_path), teacher)
    with pytest.raises(InputError, match="knows latents of other, these are of made-up"):
        ground_of(teacher, source, features=features, encoder="made-up")


def test_features_are_chosen_by_name(teacher):
    assert features_of(None, teacher) is None
    assert isinstance(features_of("teacher", teacher), TransformerFeatures)
    with pytest.raises(CheckpointError, match="fewstroke distill classifier"):
        features_of("nowhere", teacher)


def test_a_teacher_of_another_prediction_is_refused_before_the_first_step(own_checkpoint):
    file = own_checkpoint / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prediction_type": "epsilon"}))
    with pytest.raises(CheckpointError, match="predicts 'epsilon'"):
        load_teacher(own_checkpoint, own_checkpoint / "transformer")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_teacher(own_checkpoint, own_checkpoint / "nothing")


def test_features_are_asked_for_where_a_method_needs_them(teacher, source):
    ground = ground_of(teacher, source, features=None, encoder="made-up")
    with pytest.raises(InputError, match="rcfd needs a feature network"):
        method_maker("rcfd", ground, settings_for("rcfd"), None)


def test_ablations_keep_their_terms_alone():
    for name, kept in ABLATIONS.items():
        settings = recipe_settings("paper", [], method="rdd", ablation=name)
        weighed = {
            term for term in ("squared", "cfd", "intra", "memory") if getattr(settings, term)
        }
        assert weighed == kept
        assert relational(settings).queue == "paper"
    published = relational(recipe_settings("paper", [], method="rdd"))
    assert (published.squared, published.cfd, published.intra, published.memory) == (0, 1, 1, 0.1)
    assert (published.capacity, published.num_contrasts) == (20_000, 4096)
    with pytest.raises(InputError, match="no ablation 'cfd' of rcfd"):
        recipe_settings("cpu", [], method="rcfd", ablation="cfd")


def test_unseen_scenes_come_with_words_and_layouts(teacher):
    batch = unseen_scenes(teacher, num_scenes=2)
    assert batch["latents"].shape == (2, 12, 16, 16)
    assert batch["layouts"].shape == (2, 8, 8, 2)
    assert all(batch["captions"])

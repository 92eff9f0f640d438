import base64
from io import BytesIO
from pathlib import Path

import openai
import pytest
from openai import OpenAI
from PIL import Image

from pipelines.png import read_png_spec
from pipelines.rows import RowPainter
from pipelines.text_to_image import TextToImage
from tests.app.conftest import RunningServer, running_server

PROMPT = "a red apple left of a blue cat, watercolor"


def _pngs(client: OpenAI, **fields: object) -> list[bytes]:
    answer = client.images.generate(prompt=PROMPT, **fields)
    return [base64.b64decode(image.b64_json) for image in answer.data]


def test_stock_client_gets_a_picture_that_says_how_it_was_made(
    client: OpenAI, painter: TextToImage
) -> None:
    answer = client.images.generate(
        model=painter.info.name,
        prompt=PROMPT,
        n=1,
        size="128x128",
        quality="auto",
        background="opaque",
        output_format="png",
        response_format="b64_json",
        stream=False,
        user="tester",
        extra_body={"seed": 7, "steps": 3, "guidance": 2.5, "negative_prompt": "a dog"},
    )
    assert answer.size == "128x128"
    assert answer.output_format == "png"
    assert answer.background == "opaque"
    assert answer.usage.output_tokens == 64
    assert answer.usage.input_tokens == answer.usage.input_tokens_details.text_tokens > 5
    assert answer.usage.total_tokens == answer.usage.input_tokens + 64
    assert answer.model_extra["revision"] == painter.info.revision
    assert answer.model_extra["steps"] == 3
    assert answer.model_extra["fallbacks"] == []
    assert {"queue", "encode", "denoise", "decode", "file", "total"} == set(
        answer.model_extra["timings_s"]
    )
    image = answer.data[0]
    assert image.model_extra["seed"] == 7
    png = base64.b64decode(image.b64_json)
    origin = read_png_spec(png)
    assert origin.revision == painter.info.revision
    assert (origin.spec.prompt, origin.spec.seed, origin.spec.num_steps) == (PROMPT, 7, 3)
    assert Image.open(BytesIO(png)).size == (128, 128)


def test_words_that_the_model_was_never_taught_are_named(client: OpenAI) -> None:
    answer = client.images.generate(prompt="a red zebra", extra_body={"steps": 1, "guidance": 1})
    (note,) = answer.model_extra["fallbacks"]
    assert "never taught 'zebra'" in note


def test_four_pictures_equal_four_single_ones_bit_for_bit(client: OpenAI) -> None:
    together = _pngs(client, n=4, extra_body={"seed": 40, "steps": 4})
    alone = [_pngs(client, extra_body={"seed": 40 + k, "steps": 4})[0] for k in range(4)]
    assert together == alone
    assert len(set(together)) == 4


def test_a_drawn_seed_is_told_and_gives_the_same_picture_again(client: OpenAI) -> None:
    first = client.images.generate(prompt=PROMPT, extra_body={"steps": 2}).data[0]
    again = client.images.generate(
        prompt=PROMPT, extra_body={"steps": 2, "seed": first.model_extra["seed"]}
    ).data[0]
    assert again.b64_json == first.b64_json


def test_two_servers_paint_the_same_picture(folder: Path, client: OpenAI) -> None:
    with (
        running_server(RowPainter(TextToImage.load(folder, device="cpu"))) as other,
        OpenAI(base_url=other.base_url, api_key="none") as other_client,
    ):
        fields = {"extra_body": {"seed": 5, "steps": 3}}
        assert _pngs(other_client, **fields) == _pngs(client, **fields)


def test_models_are_listed_with_what_a_caller_needs(client: OpenAI, painter: TextToImage) -> None:
    [listed] = client.models.list().data
    assert listed == client.models.retrieve(painter.info.name)
    assert listed.id == painter.info.name
    assert listed.model_extra["revision"] == painter.info.revision
    assert listed.model_extra["sizes"] == ["128x128"]
    assert listed.model_extra["bits"] == 32
    assert "dpmpp" in listed.model_extra["schedulers"]
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-image-1")
    assert caught.value.code == "model_not_found"


def test_many_clients_at_once_each_get_their_own_picture(
    server: RunningServer, client: OpenAI
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    expected = [_pngs(client, extra_body={"seed": k, "steps": 2})[0] for k in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers = pool.map(lambda k: _pngs(client, extra_body={"seed": k, "steps": 2})[0], range(6))
        assert list(answers) == expected
    assert server.service.host.state().is_idle

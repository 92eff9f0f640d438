from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

PATH = "/v1/images/generations"
GOOD: dict[str, Any] = {"prompt": "a red apple", "steps": 1}

FIELDS = [
    ({"prompt": ""}, "prompt"),
    ({"prompt": "   \n"}, "prompt"),
    ({"prompt": "apple " * 100}, "prompt"),
    ({"prompt": "x" * 5000}, "prompt"),
    ({"prompt": "nul \0 inside"}, "prompt"),
    ({"prompt": 7}, "prompt"),
    ({"steps": 0}, "steps"),
    ({"steps": 10**9}, "steps"),
    ({"steps": 10**40}, "steps"),
    ({"steps": 2.5}, "steps"),
    ({"steps": "20"}, "steps"),
    ({"n": 0}, "n"),
    ({"n": 99}, "n"),
    ({"n": True}, "n"),
    ({"size": "100x100"}, "size"),
    ({"size": "128"}, "size"),
    ({"size": "128x128x128"}, "size"),
    ({"size": 128}, "size"),
    ({"guidance": 0.5}, "guidance"),
    ({"guidance": 1e9}, "guidance"),
    ({"guidance": "4"}, "guidance"),
    ({"guidance_rescale": 1.5}, "guidance_rescale"),
    ({"guidance_rescale": 0.7, "guidance": 1.0}, "guidance_rescale"),
    ({"seed": -1}, "seed"),
    ({"seed": 2**63}, "seed"),
    ({"seed": 2**63 - 1, "n": 2}, "seed"),
    ({"negative_prompt": "a dog", "guidance": 1.0}, "negative_prompt"),
    ({"negative_prompt": "dog " * 100}, "negative_prompt"),
    ({"scheduler": "euler"}, "scheduler"),
    ({"variant": "student"}, "variant"),
    ({"stream": "yes"}, "stream"),
    ({"partial_images": 2}, "partial_images"),
    ({"partial_images": 4, "stream": True}, "partial_images"),
    ({"response_format": "url", "stream": True}, "response_format"),
    ({"output_format": "gif"}, "output_format"),
    ({"output_format": "svg"}, "output_format"),
    ({"output_compression": 101, "output_format": "webp"}, "output_compression"),
    ({"output_compression": 50}, "output_compression"),
    ({"background": "transparent"}, "background"),
    ({"quality": "best"}, "quality"),
    ({"quality": "high"}, "steps"),
    ({"priority": 4}, "priority"),
    ({"style": "vivid"}, "style"),
    ({"moderation": "high"}, "moderation"),
    ({"svg": {}}, "svg"),
    ({"frame_count": 3}, "frame_count"),
    ({"user": "u" * 300}, "user"),
    ({"colour": "red"}, "colour"),
    ({"plan": {}}, "plan.schema_version"),
]


@pytest.mark.parametrize(("fields", "param"), FIELDS, ids=lambda value: str(value)[:40])
def test_a_bad_field_is_refused_by_its_name(
    http: httpx2.Client, fields: dict[str, Any], param: str
) -> None:
    answer = http.post(PATH, json=GOOD | fields)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert error["code"]
    assert len(error["message"]) > 15
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_guidance_that_is_no_number_is_refused(http: httpx2.Client, number: str) -> None:
    body = f'{{"prompt": "a red apple", "guidance": {number}}}'
    answer = http.post(PATH, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "guidance"


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        (b'{"prompt": "a red', 400, "invalid_json", "Unterminated string"),
        (b"", 400, "invalid_body", "`prompt`"),
        (b"null", 400, "invalid_body", "`prompt`"),
        (b'["a red apple"]', 400, "invalid_body", "`prompt`"),
        (b'{"prompt": "\xc3("}', 400, "invalid_json", "not UTF-8 at byte 12"),
        (b"[" * 60_000, 400, "invalid_json", "nested too deeply"),
        (b'{"prompt": "\\ud800"}', 400, "invalid_value", "`prompt`"),
        (b'{"steps": ' + b"9" * 5000 + b"}", 400, "invalid_json", "too many digits"),
        (b'{"prompt": "' + b"x" * 70_000 + b'"}', 413, "body_too_large", "bytes"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_broken_body_is_refused(
    http: httpx2.Client, body: bytes, status: int, code: str, words: str
) -> None:
    answer = http.post(PATH, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert words in error["message"]


def test_a_path_with_a_slash_too_many_is_not_found(http: httpx2.Client) -> None:
    answer = http.post(f"{PATH}/", json={"prompt": "a red apple"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("content_type", ["text/plain", "multipart/form-data", "json", None])
def test_a_body_that_is_not_declared_as_json_is_refused(
    http: httpx2.Client, content_type: str | None
) -> None:
    headers = {"content-type": content_type} if content_type else {}
    answer = http.post(PATH, content=b'{"prompt": "a red apple"}', headers=headers)
    assert answer.status_code == 415
    assert answer.json()["error"]["code"] == "unsupported_media_type"


def test_an_oversized_body_is_cut_off_even_if_its_length_is_not_told(http: httpx2.Client) -> None:
    chunks = (b"x" * 10_000 for _ in range(10))
    answer = http.post(PATH, content=chunks, headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"


def test_the_stock_client_raises_its_typed_errors(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        client.images.generate(prompt="a red apple", n=99)
    assert (bad.value.param, bad.value.code) == ("n", "invalid_value")
    assert bad.value.type == "invalid_request_error"
    assert bad.value.request_id
    with pytest.raises(openai.NotFoundError) as missing:
        client.images.generate(prompt="a red apple", model="gpt-image-1")
    assert (missing.value.param, missing.value.code) == ("model", "model_not_found")
    assert "tiny" in missing.value.message


def test_foreign_paths_and_methods_end_in_the_same_envelope(http: httpx2.Client) -> None:
    nowhere, wrong_method = http.get("/v1/nothing"), http.get(PATH)
    assert (nowhere.status_code, wrong_method.status_code) == (404, 405)
    assert wrong_method.headers["allow"] == "POST"
    for answer in (nowhere, wrong_method):
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert answer.headers["x-request-id"]

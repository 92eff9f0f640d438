"""Many sentences at once: progress, thumbnails, errors, a zip."""

import json
import zipfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect

from tests.app.conftest import SteppedPainter, running_server
from tests.e2e.studio.conftest import Open, Studio


def test_sentences_become_pictures_in_a_zip(studio: Studio, tmp_path: Path) -> None:
    page = studio.page
    page.click("#nav-batch")
    page.fill("#prompts", "a red circle\n\ntwo blue stars\na dog\n")
    page.fill("#batch-seed", "40")
    page.fill("#batch-steps", "2")
    page.click("#start-batch")
    studio.says("is finished: 3 of 3", "#batch-counts")
    expect(page.locator("#batch-pictures img")).to_have_count(3)
    last = page.locator("#batch-pictures li").last
    expect(last).to_contain_text("a dog")
    expect(last).to_contain_text("line-4, seed 42")
    with page.expect_download() as download:
        page.click("#zip")
    file = tmp_path / "batch.zip"
    download.value.save_as(file)
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"line-{number}.png" for number in (1, 3, 4)]
        assert Image.open(BytesIO(archive.read("line-3.png"))).size == (128, 128)


def test_a_file_with_a_fault_is_answered_by_line(studio: Studio, tmp_path: Path) -> None:
    page = studio.page
    page.click("#nav-batch")
    send(studio, tmp_path, request("a", {"prompt": "a dog"}) + "no JSON\n")
    studio.says("Line 2", "#batch-errors")
    studio.says("could not be run", "#batch-counts")


def test_a_request_that_fails_leaves_the_others(studio: Studio, tmp_path: Path) -> None:
    page = studio.page
    page.click("#nav-batch")
    bad = {"prompt": "a dog", "steps": 5000}
    send(studio, tmp_path, request("good", {"prompt": "a dog"}) + request("bad", bad))
    studio.says("1 of 2 painted, 1 failed", "#batch-counts")
    studio.says("bad (a dog): 5000 steps are too many", "#batch-errors")
    expect(page.locator("#batch-pictures img")).to_have_count(1)
    page.reload()
    page.locator("#batches button").first.click()
    studio.says("bad (a dog): 5000 steps are too many", "#batch-errors")
    expect(page.locator("#batches li").first).to_contain_text("1 of 2, 1 failed")


def test_a_dropped_file_is_answered_on_the_page_where_it_was_dropped(studio: Studio) -> None:
    line = request("dropped", {"prompt": "a dog"}).encode()
    studio.drop("some.jsonl", line)
    studio.says("drop it on the Batch page")
    studio.page.click("#nav-batch")
    studio.drop("some.jsonl", line)
    studio.says("is finished: 1 of 1", "#batch-counts")
    studio.drop("odd.png", b"no picture")
    studio.says("This is no PNG file")
    expect(studio.page.locator("#page-paint")).to_be_visible()


def test_a_batch_is_cancelled(stepped: SteppedPainter, open_studio: Open) -> None:
    with running_server(stepped) as server:
        studio = open_studio(server, path="/studio/#batch")
        page = studio.page
        stepped.stop_before_each_step()
        page.fill("#prompts", "a red circle\na dog")
        page.click("#start-batch")
        studio.says("is painted", "#batch-counts")
        page.click("#cancel-batch")
        stepped.run_freely()
        studio.says("was cancelled", "#batch-counts")
        expect(page.locator("#cancel-batch")).to_be_disabled()


def request(custom_id: str, body: dict[str, object]) -> str:
    line = {"custom_id": custom_id, "method": "POST", "url": "/v1/images/generations", "body": body}
    return json.dumps(line) + "\n"


def send(studio: Studio, folder: Path, text: str) -> None:
    file = folder / "requests.jsonl"
    file.write_text(text, "utf-8")
    studio.page.set_input_files("#jsonl", str(file))

"""The whole way, with the shipped model: sentence, plan, picture, file, and back."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from pipelines.png import read_png_spec
from tests.app.conftest import RunningServer
from tests.e2e.studio.conftest import Open, Studio

STEPS = "6"


@pytest.fixture
def painted(shipped_server: RunningServer, open_studio: Open) -> Studio:
    studio = open_studio(shipped_server)
    studio.make_plan()
    studio.set("steps", STEPS)
    studio.set("seed", "7")
    count_pictures(studio.page)
    studio.paint()
    return studio


def test_a_sentence_becomes_a_picture_whose_file_gives_all_of_it_back(
    painted: Studio, tmp_path: Path
) -> None:
    studio, page = painted, painted.page
    plan = studio.plan
    assert [thing["name"] for thing in plan["objects"]] == ["apple", "cat"]
    assert page.evaluate("window.pictures") >= 3, "previews came before the picture"
    assert page.get_by_role("img", name=plan["prompt"]).is_visible()
    facts = page.inner_text("#facts")
    assert "7" in facts
    assert "Steps took" in facts

    with page.expect_download() as download:
        page.click("#download")
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    origin = read_png_spec(file.read_bytes())
    assert (origin.spec.seed, origin.spec.num_steps) == (7, int(STEPS))

    forget_everything(studio)
    studio.drop(file.name, file.read_bytes())
    studio.says("gave back its plan")
    assert studio.plan == plan
    assert page.input_value("#seed") == "7"
    assert page.input_value("#variant") == "rdd-4"
    assert page.input_value("#prompt") == plan["prompt"]
    dropped = pixels_of(studio)
    page.fill("#prompt", "a green tree")
    page.fill("#prompt", plan["prompt"])
    studio.paint()
    assert pixels_of(studio) == dropped, "the picture in the file can be painted again"


SHIPPED = ["teacher", "rdd-4", "low-bit", "low-bit-3"]


def test_every_shipped_variant_paints_the_same_plan_side_by_side(
    shipped_server: RunningServer, open_studio: Open
) -> None:
    studio = open_studio(shipped_server)
    page = studio.page
    studio.make_plan("a yellow star above a green tree")
    studio.grab("studio-plan")
    studio.set("seed", "11")
    page.eval_on_selector("#settings", "form => (form.closest('details').open = false)")
    studio.paint()
    page.evaluate("scrollTo(0, 0)")
    studio.grab("studio-picture")
    page.click("#compare")
    studio.says("4 pictures with seed 11")
    captions = page.locator("#cards li p").all_inner_texts()
    assert [caption.split(",")[0] for caption in captions] == SHIPPED
    assert "32 bits a weight" in captions[1]
    assert len(set(shown_in(page, "#cards img"))) == len(SHIPPED)
    page.locator("#sets").scroll_into_view_if_needed()
    page.locator("#sets-title").evaluate("title => title.scrollIntoView()")
    studio.grab("studio-sets")


def test_history_and_draft_outlive_a_reload(painted: Studio) -> None:
    studio, page = painted, painted.page
    plan = studio.plan
    page.reload()
    expect(page.locator("#history li")).to_have_count(1)
    assert studio.plan == plan
    expect(page.locator("#picture")).to_be_visible()
    page.click("#history button.picture")
    assert page.inner_text("#facts").count("7") >= 1
    page.click("#clear-history")
    expect(page.locator("#history li")).to_have_count(0)


def test_another_sentence_is_planned_anew_unless_the_plan_was_changed(painted: Studio) -> None:
    page = painted.page
    page.fill("#prompt", "a green tree above a frog")
    painted.paint()
    assert [thing["name"] for thing in painted.plan["objects"]] == ["tree", "frog"]
    page.click("#regions button >> nth=0")
    page.keyboard.press("ArrowLeft")
    page.fill("#prompt", "a yellow star")
    page.click("#paint")
    painted.says("made for another sentence")
    assert [thing["name"] for thing in painted.plan["objects"]] == ["tree", "frog"]


@pytest.mark.parametrize("provenance", [5, {"planner": "user", "notes": 5}])
def test_a_plan_that_cannot_be_shown_never_shuts_the_page(
    studio: Studio, provenance: object
) -> None:
    odd = {"schema_version": 1, "prompt": "x", "objects": [], "provenance": provenance}
    studio.page.evaluate(
        "plan => localStorage.setItem('fewstroke.draft', JSON.stringify({ plan }))", odd
    )
    studio.page.reload()
    studio.wait_until_interactive()
    assert studio.page.input_value("#json") == ""


def test_the_same_seed_gives_the_same_picture_again(painted: Studio) -> None:
    first = pixels_of(painted)
    painted.paint()
    assert pixels_of(painted) == first


def pixels_of(studio: Studio) -> str:
    [digest] = shown_in(studio.page, "#picture")
    return digest


def shown_in(page: Any, selector: str) -> list[str]:
    return page.eval_on_selector_all(
        selector,
        """(images) => Promise.all(images.map(async (image) => {
            await image.decode();
            const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
            const context = canvas.getContext("2d");
            context.drawImage(image, 0, 0);
            const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
            return [...new Uint8Array(await crypto.subtle.digest("SHA-256", pixels))].join(" ");
        }))""",
    )


def count_pictures(page: Any) -> None:
    page.evaluate(
        """() => {
            window.pictures = 0;
            const watch = new MutationObserver(() => (window.pictures += 1));
            watch.observe(document.getElementById("picture"), { attributeFilter: ["src"] });
        }"""
    )


def forget_everything(studio: Studio) -> None:
    page = studio.page
    page.click("#clear-history")
    page.evaluate("localStorage.clear()")
    page.reload()
    studio.wait_until_interactive()
    assert page.input_value("#json") == ""

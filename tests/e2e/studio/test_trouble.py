"""What goes wrong is said in words, beside what caused it, and leaves the page usable."""

import json
import threading
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import expect

from app.access.auth import KeyLimits
from pipelines.png import to_png_bytes
from pipelines.spec import GenerationResult, GenerationSpec
from tests.app.conftest import RunningServer, SteppedPainter, running_server, until
from tests.e2e.studio.conftest import PROMPT, Open, Studio

NETWORK = "Failed to load resource"
CLOSED = "http://127.0.0.1:9/v1"


def test_cancel_stops_the_work_before_its_next_step(
    stepped: SteppedPainter, open_studio: Open
) -> None:
    with running_server(stepped) as server:
        studio = open_studio(server)
        studio.make_plan()
        stepped.stop_before_each_step()
        studio.page.click("#paint")
        until(lambda: stepped.passes_begun == 1)
        steps = server.counters.steps
        studio.page.click("#cancel")
        studio.says("Cancelled")
        until(lambda: server.counters.cancelled == 1)
        stepped.run_freely()
        studio.paint()
        with studio.page.expect_download() as download:
            studio.page.click("#download")
        assert download.value.path().stat().st_size > 1000
        # the cancelled picture took no step; the second took its four
        assert server.counters.steps == steps + 4


def test_the_place_in_the_queue_is_shown_and_a_full_queue_is_waited_for(
    stepped: SteppedPainter, open_studio: Open
) -> None:
    with running_server(stepped, queue_capacity=2) as server:
        studios = [open_studio(server, expected=(NETWORK,)) for _ in range(4)]
        for studio in studios:
            studio.make_plan()
        first, second, third, fourth = studios
        stepped.stop_before_each_step()
        first.page.click("#paint")
        until(lambda: stepped.passes_begun == 1)
        second.page.click("#paint")
        second.says("You are next")
        third.page.click("#paint")
        third.says("1 request is ahead of yours")
        fourth.page.click("#paint")
        fourth.says("The server is full. It has room in about")
        stepped.run_freely()
        for studio in studios:
            studio.says("Finished")
        assert server.counters.refused >= 1


def test_a_full_server_is_asked_again_as_soon_as_it_has_room(
    quick_server: RunningServer, open_studio: Open
) -> None:
    studio = open_studio(quick_server, expected=(NETWORK,))
    full = {"error": {"message": "Full.", "code": "queue_full", "param": None, "type": "x"}}
    answers = iter([full])

    def answer(route: Any) -> None:
        refused = next(answers, None)
        if refused is None:
            route.continue_()
        else:
            route.fulfill(status=429, json=refused, headers={"Retry-After": "3600"})

    studio.make_plan()
    studio.page.route("**/v1/images/generations", answer)
    studio.paint()


def test_a_server_that_is_restarted_is_said_to_be_lost_and_found_again(
    stepped: SteppedPainter, open_studio: Open
) -> None:
    with running_server(stepped, drain_timeout_s=0) as server:
        studio = open_studio(server, expected=(NETWORK, "ERR_"))
        plan = studio.make_plan()
        stepped.stop_before_each_step()
        studio.page.click("#paint")
        until(lambda: stepped.passes_begun == 1)
        server.server.should_exit = True
        threading.Timer(1.0, stepped.run_freely).start()
        studio.says("The server is shutting down", "#status .bad")
        port = server.port
    studio.says("cannot be reached", "#server")
    assert studio.plan == plan
    with running_server(SteppedPainter(), port=port):
        studio.says("Ready", "#server")
        studio.paint()


def test_a_planner_that_fails_is_named_and_the_grammar_plans(open_studio: Open) -> None:
    with running_server(
        SteppedPainter(), llm_model="none", llm_url=CLOSED, llm_timeout_s=5.0
    ) as server:
        studio = open_studio(server)
        studio.unfold("#planner")
        studio.page.select_option("#planner", "openai")
        studio.make_plan()
        studio.says("The grammar planned instead", "#repairs")
        studio.paint()
        studio.says("the grammar planned instead", "#fallbacks")


def test_a_server_with_keys_asks_for_one(open_studio: Open) -> None:
    with running_server(SteppedPainter(), key=KeyLimits()) as server:
        studio = open_studio(server, expected=(NETWORK,))
        page = studio.page
        page.fill("#prompt", PROMPT)
        page.click("#plan")
        studio.says("key", "#api-key-error")
        assert page.evaluate("document.activeElement.id") == "api-key"
        page.click("#nav-batch")
        expect(page.locator("#api-key")).to_be_visible()
        page.click("#nav-paint")
        # slower than the page looks at the server
        page.locator("#api-key").press_sequentially(server.token, delay=5000 / len(server.token))
        page.keyboard.press("Enter")
        studio.make_plan()
        studio.paint()
        stored = page.evaluate("JSON.stringify(localStorage)")
        assert server.token not in stored, "a key is kept no longer than the tab"


def test_an_error_stands_beside_the_field_that_caused_it(
    quick_server: RunningServer, open_studio: Open
) -> None:
    studio = open_studio(quick_server, expected=(NETWORK,))
    page = studio.page
    page.click("#paint")
    studio.says("Say what you want to see first")
    assert page.get_attribute("#prompt", "aria-describedby") == "status"
    studio.make_plan()
    assert page.get_attribute("#prompt", "aria-invalid") is None
    page.click("#regions li:nth-child(2) button")
    page.fill("#high", "")
    page.click("#regions li:nth-child(1) button")
    page.click("#paint")
    studio.says("What it is (Region 2)", "#high-error")
    assert page.get_attribute("#high", "aria-describedby") == "high-error"
    assert page.inner_text("#region-title") == "Region 2"
    page.fill("#high", "a cat")
    studio.paint()


def test_variants_stand_side_by_side_with_one_seed(studio: Studio) -> None:
    page = studio.page
    studio.make_plan()
    studio.set("seed", "5")
    studio.paint()
    page.click("#compare")
    studio.says("side by side")
    cards = page.locator("#cards li")
    expect(cards).to_have_count(2)
    expect(cards.nth(0)).to_contain_text("default, 8 steps")
    expect(cards.nth(1)).to_contain_text("few, 2 steps")
    expect(cards.nth(1)).to_contain_text("32 bits a weight")
    page.click("#more-seeds")
    studio.says("with seed 6")
    expect(page.locator("#cards li")).to_have_count(4)
    expect(page.locator("#cards")).to_contain_text("Seed 9")
    expect(page.locator("#history li")).to_have_count(7)


def test_a_server_on_its_way_out_says_so(open_studio: Open) -> None:
    with running_server(SteppedPainter()) as server:
        studio = open_studio(server)
        server.service.readiness.end()
        studio.says("The server is shutting down", "#server")


def test_cards_of_a_set_that_was_cancelled_wait_no_longer(
    stepped: SteppedPainter, open_studio: Open
) -> None:
    with running_server(stepped) as server:
        studio = open_studio(server)
        page = studio.page
        studio.make_plan()
        studio.unfold("#count")
        page.select_option("#count", "4")
        stepped.stop_before_each_step()
        page.click("#paint")
        until(lambda: stepped.passes_begun == 1)
        expect(page.locator("#cards li")).to_have_count(4)
        page.click("#cancel")
        studio.says("Cancelled")
        expect(page.locator("#cards").get_by_text("Not painted.")).to_have_count(4)
        stepped.run_freely()


def test_side_by_side_and_more_seeds_are_of_the_picture_and_not_of_later_edits(
    studio: Studio,
) -> None:
    page = studio.page
    first = studio.make_plan()
    studio.set("seed", "5")
    studio.set("guidance", "3")
    studio.paint()
    studio.make_plan("a green tree")
    bodies: list[dict[str, Any]] = []
    page.on("request", lambda sent: sent.post_data and bodies.append(json.loads(sent.post_data)))
    page.click("#compare")
    studio.says("side by side")
    page.click("#more-seeds")
    studio.says("with seed 6")
    assert len(bodies) == 3
    assert [body["plan"] for body in bodies] == [first] * 3
    assert [body["seed"] for body in bodies] == [5, 5, 6]
    # each variant has its own guidance; the same picture with other seeds keeps what was set
    assert [body.get("guidance") for body in bodies] == [None, None, 3]


def test_a_number_that_cannot_be_is_refused_in_words_and_the_old_one_stays(studio: Studio) -> None:
    page = studio.page
    studio.make_plan()
    page.click("#regions li:nth-child(1) button")
    before = studio.plan
    for name, typed, said in [
        ("weight", "999", "numbers from 0.1 to 10. It stays 1"),
        ("z", "1.5", "whole numbers from -1000 to 1000. It stays 0"),
        ("width", "", "numbers from 2 to 100"),
    ]:
        kept = page.input_value(f"#{name}")
        studio.set(name, typed)
        studio.says(said, f"#{name}-error")
        assert page.input_value(f"#{name}") == kept
    assert studio.plan == before
    studio.set("left", "12.34")
    assert studio.plan["objects"][0]["box"]["x0"] == pytest.approx(0.1234)
    studio.set("left", "95")
    studio.says("a region ends where the picture does", "#left-error")
    studio.set("steps", "0")
    studio.says("It stays as the server has it", "#steps-error")
    assert page.input_value("#steps") == ""


def test_what_is_typed_is_not_lost_to_a_press_on_another_box(studio: Studio) -> None:
    page = studio.page
    boxes = [thing["box"] for thing in studio.make_plan()["objects"]]
    page.click("#regions li:nth-child(1) button")
    page.fill("#weight", "2")
    page.locator("#stage").scroll_into_view_if_needed()
    frame = page.locator("#stage").bounding_box()
    assert frame is not None
    x, y = ((boxes[1][f"{axis}0"] + boxes[1][f"{axis}1"]) / 2 for axis in "xy")
    page.mouse.click(frame["x"] + x * frame["width"], frame["y"] + y * frame["height"])
    assert page.inner_text("#region-title") == "Region 2"
    assert [thing["weight"] for thing in studio.plan["objects"]] == [2, 1]


def test_a_plan_takes_no_more_regions_than_the_server(studio: Studio) -> None:
    page = studio.page
    studio.make_plan()
    most = page.evaluate("fetch('state').then((answer) => answer.json())")["max_objects"]
    page.click("#regions li:nth-child(1) button")
    for _ in range(most):
        page.click("#duplicate")
    studio.says(f"at most {most} regions", "#said")
    assert len(studio.plan["objects"]) == most
    studio.paint()


@pytest.mark.parametrize("mask", ["!!!", "bm8gcGljdHVyZQ=="])
def test_a_mask_that_cannot_be_read_is_said(mask: str, studio: Studio) -> None:
    page = studio.page
    plan = studio.make_plan()
    plan["objects"][0] |= {"mask": mask, "box": None}
    studio.unfold("#json")
    page.fill("#json", json.dumps(plan))
    page.click("#load-json")
    page.click("#show-masks")
    where = "#exchanged" if mask == "!!!" else "#said"
    studio.says("no picture", where)


@pytest.mark.parametrize("code", ["abc%20", "", "AAAA"])
def test_a_damaged_link_is_said_once(
    code: str, quick_server: RunningServer, open_studio: Open
) -> None:
    studio = open_studio(quick_server, path=f"/studio/#plan={code}")
    studio.says("The plan in this link cannot be read")
    studio.page.reload()
    studio.wait_until_interactive()
    assert studio.page.inner_text("#status") == ""


def test_what_is_forgotten_can_be_brought_back(studio: Studio) -> None:
    page = studio.page
    studio.make_plan()
    studio.paint()
    studio.paint()
    pictures = page.locator("#history li")
    expect(pictures).to_have_count(2)
    pictures.first.get_by_role("button", name="Forget").click()
    expect(pictures).to_have_count(1)
    assert page.evaluate("document.activeElement.id") == "restore-history"
    page.keyboard.press("Enter")
    expect(pictures).to_have_count(2)
    page.click("#clear-history")
    expect(pictures).to_have_count(0)
    page.click("#restore-history")
    expect(pictures).to_have_count(2)


def test_an_earlier_picture_brings_its_seed_and_settings_back(studio: Studio) -> None:
    page = studio.page
    studio.make_plan()
    studio.set("steps", "3")
    studio.unfold("#variant")
    page.select_option("#variant", "few")
    studio.paint()
    seed = page.locator("#facts dd").first.inner_text()
    studio.set("steps", "4")
    page.select_option("#variant", "default")
    studio.paint()
    page.locator("#history button.picture").last.click()
    shown = {name: page.input_value(f"#{name}") for name in ("seed", "steps", "variant")}
    assert shown == {"seed": seed, "steps": "3", "variant": "few"}


def test_a_file_of_another_model_says_that_it_cannot_be_had_again(studio: Studio) -> None:
    page = studio.page
    spec = GenerationSpec(prompt="a dog", seed=2**63 - 1, num_steps=3, width=8, height=8)
    foreign = GenerationResult(
        image=Image.new("RGB", (8, 8)),
        spec=spec,
        model="elsewhere",
        revision="fedcba987654",
        backend="torch",
        timings_s={},
    )
    studio.drop("foreign.png", to_png_bytes(foreign))
    studio.says("painted by elsewhere fedcba987654, which is not served here")
    studio.says("seed is too large")
    expect(page.locator("#picture")).to_be_visible()
    assert page.input_value("#prompt") == "a dog"
    assert page.input_value("#steps") == "3"
    expect(page.locator("#compare")).to_be_hidden()
    studio.paint()
    expect(page.locator("#compare")).to_be_visible()

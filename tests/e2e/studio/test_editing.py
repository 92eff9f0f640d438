"""Boxes and words, by mouse and by keys; undo; plans in and out; masks as the server's."""

import json
from typing import Any

import pytest
from playwright.sync_api import expect

from pipelines.region_spec import Region
from pipelines.regions import token_weights
from tests.app.conftest import RunningServer
from tests.e2e.studio.conftest import PROMPT, Open, Studio

MARKUP = "<img src=x onerror=window.hacked=1><b>bold</b>"


def test_a_mouse_moves_resizes_and_draws_boxes(studio: Studio) -> None:
    box = studio.make_plan()["objects"][1]["box"]
    centre = (box["x0"] + box["x1"]) / 2, (box["y0"] + box["y1"]) / 2
    drag(studio, centre, (centre[0] - 0.05, centre[1] + 0.1))
    moved = studio.plan["objects"][1]["box"]
    assert moved["x0"] == pytest.approx(box["x0"] - 0.05, abs=0.01)
    assert moved["y1"] == pytest.approx(box["y1"] + 0.1, abs=0.01)
    assert moved["x1"] - moved["x0"] == pytest.approx(box["x1"] - box["x0"], abs=0.002)

    drag(studio, (moved["x1"], moved["y1"]), (moved["x1"] - 0.1, moved["y1"] - 0.1))
    small = studio.plan["objects"][1]["box"]
    assert small["x1"] == pytest.approx(moved["x1"] - 0.1, abs=0.02)
    assert small["x0"] == pytest.approx(moved["x0"], abs=0.01)

    drag(studio, (0.05, 0.02), (0.3, 0.2))
    assert len(studio.plan["objects"]) == 3
    assert studio.page.inner_text("#region-title") == "Region 3"


def test_a_dragged_box_never_leaves_the_picture(studio: Studio) -> None:
    box = studio.make_plan()["objects"][1]["box"]
    drag(studio, ((box["x0"] + box["x1"]) / 2, (box["y0"] + box["y1"]) / 2), (0.999, 0.999))
    moved = studio.plan["objects"][1]["box"]
    assert moved["x1"] <= 1
    assert moved["y1"] <= 1


def test_everything_can_be_done_with_keys_alone(studio: Studio) -> None:
    page = studio.page
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "prompt"
    page.keyboard.type(PROMPT)
    page.keyboard.press("Enter")
    studio.says("Planned")
    before = studio.plan["objects"][0]["box"]
    tab_to(page, "stage")
    for key in [".", "ArrowRight", "ArrowRight", "ArrowDown", "Shift+ArrowLeft", "]"]:
        page.keyboard.press(key)
    after = studio.plan["objects"][0]
    assert after["box"]["x0"] == pytest.approx(before["x0"] + 0.02)
    assert after["box"]["y0"] == pytest.approx(before["y0"] + 0.01)
    assert after["box"]["x1"] == pytest.approx(before["x1"] + 0.01)
    assert after["z"] == 1
    assert "depth 1" in page.inner_text("#said")

    page.keyboard.press("d")
    assert len(studio.plan["objects"]) == 3
    page.keyboard.press("Delete")
    assert len(studio.plan["objects"]) == 2
    page.keyboard.press("n")
    assert page.evaluate("document.activeElement.id") == "high"
    page.keyboard.type("a green frog")
    assert studio.plan["objects"][2]["high"] == "a green frog"
    page.focus("#prompt")
    page.keyboard.press("Control+Enter")
    studio.says("Finished")


def test_every_edit_can_be_undone_and_done_again(studio: Studio) -> None:
    page = studio.page
    plans = [studio.make_plan()]
    page.click("#regions li:nth-child(1) button")
    for name, value in [("low", "green"), ("weight", "2.5"), ("left", "3"), ("z", "4")]:
        page.fill(f"#{name}", value)
        page.keyboard.press("Tab")
        plans.append(studio.plan)
    page.click("#duplicate")
    plans.append(studio.plan)
    page.click("#delete")
    plans.append(studio.plan)
    assert len({json.dumps(plan) for plan in plans[:-1]}) == len(plans) - 1
    for plan in reversed(plans[:-1]):
        page.click("#undo")
        assert studio.plan == plan
    for plan in plans[1:]:
        page.click("#redo")
        assert studio.plan == plan
    expect(page.locator("#redo")).to_be_disabled()


def test_words_of_the_whole_picture_and_of_regions_reach_the_server(studio: Studio) -> None:
    page = studio.page
    studio.make_plan()
    for name in ("content", "background", "style", "details", "negative"):
        studio.set(name, f"my {name}")
    page.click("#regions li:nth-child(2) button")
    page.fill("#high", "a lion")
    page.fill("#low", "golden")
    page.fill("#region-negative", "fur")
    studio.set("guidance", "3")
    with page.expect_request("**/v1/images/generations") as sent:
        studio.paint()
    body = json.loads(sent.value.post_data)
    assert body["plan"] == studio.plan
    assert body["plan"]["style"] == "my style"
    lion = body["plan"]["objects"][1]
    assert (lion["high"], lion["low"], lion["negative"]) == ("a lion", "golden", "fur")
    assert body["guidance"] == 3
    assert "seed" not in body


def test_a_plan_travels_by_json_and_by_link(studio: Studio) -> None:
    page = studio.page
    plan = studio.make_plan()
    studio.set("seed", "11")
    studio.unfold("#share")
    page.click("#share")
    studio.says("The link was copied")
    link = page.evaluate("navigator.clipboard.readText()")
    page.evaluate("localStorage.clear()")
    page.goto("about:blank")
    page.goto(link)
    studio.says("The plan in the link was loaded")
    assert studio.plan == plan
    assert page.input_value("#seed") == "11"

    plan["objects"] = plan["objects"][:1]
    studio.unfold("#json")
    page.fill("#json", json.dumps(plan))
    page.click("#load-json")
    expect(page.locator("#regions li")).to_have_count(1)
    for wrong, reason in [
        ("{", "This is no JSON"),
        (json.dumps(plan | {"schema_version": 9}), "schema_version 9"),
        (json.dumps(plan | {"objects": [{"name": "a"}]}), "objects[0].high"),
    ]:
        page.fill("#json", wrong)
        page.click("#load-json")
        studio.says(reason, "#exchanged")
    expect(page.locator("#regions li")).to_have_count(1)


def test_text_is_never_markup(studio: Studio) -> None:
    page = studio.page
    plan = studio.make_plan()
    for thing in plan["objects"]:
        thing |= {"name": MARKUP, "high": MARKUP, "low": MARKUP, "negative": MARKUP}
    plan |= {"prompt": MARKUP, "content": MARKUP, "style": MARKUP}
    plan["provenance"] |= {"notes": [MARKUP], "fallback": MARKUP}
    studio.unfold("#json")
    page.fill("#json", json.dumps(plan))
    page.click("#load-json")
    assert MARKUP in page.inner_text("#regions")
    assert MARKUP in page.inner_text("#repairs")
    studio.paint()
    page.fill("#prompt", MARKUP)
    page.click("#plan")
    studio.says("Planned")
    assert page.locator("img[src=x]").count() == 0
    assert page.locator("b").count() == 0
    assert page.evaluate("window.hacked === undefined")
    studio.expected = ("TrustedHTML",)  # the browser logs what it refuses
    refused = (
        "() => { try { document.body.innerHTML = '<b>x</b>'; return false } catch { return true } }"
    )
    assert page.evaluate(refused), "the browser itself refuses markup"


def test_masks_are_what_the_server_weighs(studio: Studio) -> None:
    boxes = [(0.1, 0.1, 0.6, 0.55), (0.4, 0.3, 0.9, 0.8), (0.45, 0.2, 0.75, 0.95)]
    depths, weights = (0, 0, 2), (1.0, 2.5, 0.5)
    given = list(zip(boxes, depths, weights, strict=True))
    drawn = studio.page.evaluate(
        """async (given) => {
            const { coverOf, weigh } = await import("./masks.js");
            const regions = given.map(([[x0, y0, x1, y1], z, weight]) => (
                { z, weight, cover: coverOf({ x0, y0, x1, y1 }, 16, 8) }));
            return weigh(regions, 0.3).map((row) => [...row]);
        }""",
        given,
    )
    regions = [Region(high="x", box=box, z=z, weight=weight) for box, z, weight in given]
    heard = token_weights(regions, width=256, height=128, token_px=16, base_share=0.3)
    for ours, theirs in zip(drawn, heard[1:].tolist(), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)


def drag(studio: Studio, start: tuple[float, float], end: tuple[float, float]) -> None:
    page = studio.page
    page.locator("#stage").scroll_into_view_if_needed()
    frame = page.locator("#stage").bounding_box()
    assert frame is not None
    first, last = (
        (frame["x"] + x * frame["width"], frame["y"] + y * frame["height"]) for x, y in (start, end)
    )
    page.mouse.move(*first)
    page.mouse.down()
    page.mouse.move((first[0] + last[0]) / 2, (first[1] + last[1]) / 2, steps=4)
    page.mouse.move(*last, steps=4)
    page.mouse.up()


def tab_to(page: Any, name: str) -> None:
    for _ in range(12):
        if page.evaluate("document.activeElement.id") == name:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{name} cannot be reached with Tab")


def test_a_finger_has_the_boxes_back_after_painting(
    quick_server: RunningServer, open_studio: Open
) -> None:
    studio = open_studio(
        quick_server, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    page = studio.page
    before = studio.make_plan()["objects"][0]["box"]
    studio.paint()
    expect(page.locator("#stage")).to_have_css("opacity", "0")
    page.tap("#frame")
    expect(page.locator("#stage")).to_have_css("opacity", "1")
    studio.paint()
    expect(page.locator("#stage")).to_have_css("opacity", "0")
    page.tap("#regions li:nth-child(1) button")
    expect(page.locator("#stage")).to_have_css("opacity", "1")
    studio.paint()
    page.tap("#show-boxes")
    expect(page.locator("#stage")).to_have_css("opacity", "1")
    page.tap("#new-box")
    swipe(studio, (0.1, 0.1), (0.4, 0.3))
    assert len(studio.plan["objects"]) == 3
    assert studio.plan["objects"][0]["box"] == before, "a finger draws only after New box"


def swipe(studio: Studio, start: tuple[float, float], end: tuple[float, float]) -> None:
    page = studio.page
    page.locator("#stage").scroll_into_view_if_needed()
    frame = page.locator("#stage").bounding_box()
    assert frame is not None
    fingers = page.context.new_cdp_session(page)
    for kind, places in [
        ("touchStart", [start]),
        ("touchMove", [((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)]),
        ("touchMove", [end]),
        ("touchEnd", []),
    ]:
        points = [
            {"x": frame["x"] + x * frame["width"], "y": frame["y"] + y * frame["height"]}
            for x, y in places
        ]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def test_the_front_comes_first_in_the_list(studio: Studio) -> None:
    page = studio.page
    studio.make_plan()
    page.click("#regions li:nth-child(2) button")
    page.click("#forward")
    expect(page.locator("#regions li").first).to_contain_text("2 a cat")
    expect(page.locator("#regions li").first).to_contain_text("depth 1")
    page.click("#new-box")
    drag(studio, (0.05, 0.02), (0.3, 0.2))
    assert [thing["z"] for thing in studio.plan["objects"]] == [0, 1, 2]
    page.click("#delete")
    page.click("#delete")
    page.click("#delete")
    assert page.evaluate("document.activeElement.id") == "new-box"

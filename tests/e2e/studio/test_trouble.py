"""What goes wrong is said in words, beside what caused it, and leaves the page usable."""

import threading

from playwright.sync_api import expect

from app.access.auth import KeyLimits
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
        studio.says("asks for an API key")
        studio.set("api-key", server.token)
        page.keyboard.press("Tab")
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
    studio.says("Say what you want to see first", "#prompt-error")
    studio.make_plan()
    expect(page.locator("#prompt-error")).to_have_count(0)
    studio.set("steps", "5000")
    page.click("#paint")
    studio.says("5000 steps are too many", "#steps-error")
    assert page.get_attribute("#steps", "aria-describedby") == "steps-error"
    studio.set("steps", "2")
    page.click("#regions li:nth-child(2) button")
    page.fill("#high", "")
    page.click("#regions li:nth-child(1) button")
    page.click("#paint")
    studio.says("plan.objects[1].high", "#high-error")
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

"""What the page costs a browser: `python -m benchmarks.page http://localhost:8998/`, with a service that runs there.

Loads the page in headless Chromium, makes a call with the fake microphone, and measures: what comes over the wire until
a persona can be chosen; the CPU time of the main thread in each second of a call (DevTools' `TaskDuration` and
`ScriptDuration` in its `threadTicks`, so that other programs do not count); and the frames that the page and the worker
that paints the voices get, with the longest wait between two of them.
"""

import shutil
import statistics
from typing import Any

import click
from playwright.sync_api import CDPSession, Page, sync_playwright

SECONDS = 10
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
)
LOADED = """() => [performance.getEntriesByType("navigation"), performance.getEntriesByType("resource")]
  .flat().map((one) => [one.transferSize, one.encodedBodySize, one.decodedBodySize])"""
FRAMES = """(seconds) => new Promise((resolve) => {
  const waits = [];
  let before = 0;
  const end = performance.now() + 1000 * seconds;
  const next = (time) => {
    if (before) waits.push(time - before);
    before = time;
    if (time < end) requestAnimationFrame(next);
    else resolve(waits);
  };
  requestAnimationFrame(next);
})"""


@click.command()
@click.argument("url", default="http://localhost:8998/")
def main(url: str) -> None:
    """Measure the page at URL, where nobody has to log in."""
    with sync_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(
            executable_path=program, args=list(FLAGS), ignore_default_args=["--headless", "--mute-audio"]
        )
        click.echo(f"Chromium {browser.version}")
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(url)
        page.locator(".card:not(.ghost)").first.wait_for()
        loaded = page.evaluate(LOADED)
        wire, encoded, decoded = (sum(column) / 1000 for column in zip(*loaded, strict=True))
        click.echo(
            f"first load: {len(loaded)} answers, {encoded:.1f} KB compressed ({wire:.1f} KB with headers), "
            f"{decoded:.1f} KB uncompressed"
        )
        page.locator("#start").click()
        page.locator("body[data-call=live]").wait_for()
        page.wait_for_timeout(2000)
        _measure_threads(page, page.context.new_cdp_session(page))
        browser.close()


def _measure_threads(page: Page, session: CDPSession) -> None:
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    before = _metrics(session)
    page.wait_for_timeout(1000 * SECONDS)
    after = _metrics(session)
    task, script = ((after[name] - before[name]) / SECONDS * 1000 for name in ("TaskDuration", "ScriptDuration"))
    click.echo(f"main thread, a second of a call: {task:.0f} ms, of which script {script:.0f} ms")
    painter = next(worker for worker in page.workers if "bodies-worker" in worker.url)
    for name, waits in (("page", page.evaluate(FRAMES, SECONDS)), ("painter", painter.evaluate(FRAMES, SECONDS))):
        slow = sorted(waits)[int(0.99 * len(waits))]
        click.echo(
            f"frames, {name}: {1000 / statistics.mean(waits):.1f} a second; 99 of 100 within {slow:.1f} ms, "
            f"the longest wait {max(waits):.0f} ms"
        )


def _metrics(session: CDPSession) -> dict[str, float]:
    found: Any = session.send("Performance.getMetrics")["metrics"]
    return {one["name"]: one["value"] for one in found}


if __name__ == "__main__":
    main()

"""The slides: numbers from the run, no network, nothing that overflows."""

import re
import subprocess

from lib.paper import chapters, slides

SEEN = """<script>
Reveal.on("ready", () => {
  const seen = [];
  for (let i = 0; i < Reveal.getTotalSlides(); i++) {
    Reveal.slide(i);
    const own = document.querySelector("section.present");
    seen.push(own.querySelector("h2").textContent.replace("¶", "") + ":" + own.scrollHeight);
  }
  document.body.dataset.seen = seen.join("|");
});
</script></body>"""
TITLES = ["Problem", "Approach", "Results", "Implementation", "Conclusions"]


def test_five_slides_that_fit_and_need_no_network(tmp_path, chromium):
    text = slides.deck(chapters.PUBLISHED)
    assert "{val}" not in text and "not available" not in text
    assert not re.search(r"""(src|href)=['"]https?:""", text)
    (tmp_path / "slides.html").write_text(text.replace("</body>", SEEN))
    flags = ["--headless", "--no-sandbox", "--window-size=1280,800", "--virtual-time-budget=3000"]
    place = f"file://{tmp_path}/slides.html"
    page = subprocess.run(
        [chromium, *flags, "--dump-dom", place], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r'data-seen="([^"]*)"', page)[1].split("|")
    assert [part.split(":")[0] for part in found] == TITLES
    assert all(0 < int(part.split(":")[1]) <= 700 for part in found), found


def test_a_run_without_a_chapter_shows_the_published_number(tmp_path):
    text = slides.told(tmp_path)
    assert text("00", "parameters_m") != "(not available)"
    assert text("00", "nothing_of_this_name") == "(not available)"

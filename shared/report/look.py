"""The style and the script of a report; its look is that of the benchmark's page."""

STYLE = """
:root { color-scheme: light dark; --text: #1c1c1c; --back: #fff; --pale: #555; --line: #ddd;
  --head: #888; --soft: #eef4f6; --accent: #14708f; --mark: #fdf0d5; --warn: #a3271d; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e4e4; --back: #15181a; --pale: #aaa;
  --line: #3a3f42; --head: #777; --soft: #1d2b31; --accent: #4fb0cf; --mark: #43361a;
  --warn: #f0938a; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back);
  max-width: 76rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; margin: .6rem 0 1.6rem; font-variant-numeric: tabular-nums;
  display: block; overflow-x: auto; overflow-wrap: normal; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
th { border-bottom: 2px solid var(--head); font-weight: 600; }
tbody th { border-bottom: 1px solid var(--line); font-weight: 400; white-space: nowrap; }
tr { background: var(--back); }
th:first-child { position: sticky; left: 0; background: inherit; }
td.text { min-width: 9rem; }
tr.group th { font-weight: 600; padding-top: 1rem; }
tr.differs { background: var(--mark); } tr.differs th { font-weight: 600; }
tr.differs th::before { content: "≠ "; }
.verdict { font-size: 1.15rem; font-weight: 600; padding: .7rem 1rem; background: var(--soft);
  border-left: 4px solid var(--accent); }
.notes { color: var(--warn); } .pale { color: var(--pale); }
code { background: var(--soft); padding: .1rem .3rem; }
summary { cursor: pointer; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; list-style: none; padding: 0; }
.legend svg, th svg { width: 2.4rem; height: .7rem; margin-right: .4rem; }
.panels { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill,
  minmax(min(26rem, 100%), 1fr)); }
.panels svg { width: 100%; height: auto;
  stroke-linejoin: round; }
.slider { position: sticky; top: 0; background: var(--back); padding: .5rem 0; z-index: 1; }
.slider:not([hidden]) { display: flex; flex-wrap: wrap; gap: .2rem 1rem; align-items: center; }
.slider label { min-width: 10rem; } .slider output { font-weight: 600; }
.slider input { flex: 1 1 16rem; accent-color: var(--accent); }
.grids { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(18rem, 100%), 1fr)); }
.grid { max-width: 36rem; margin: 0; }
.grid img { width: 100%; height: auto; image-rendering: pixelated; }
figcaption { color: var(--pale); }
"""

SCRIPT = """
const bar = document.getElementById("slider");
if (bar) {
  const steps = bar.dataset.steps.split(" ").map(Number);
  const slider = document.getElementById("step");
  const show = () => {
    const step = steps[slider.value];
    document.getElementById("shown").textContent = step.toLocaleString("en");
    slider.setAttribute("aria-valuetext", "step " + step);
    for (const figure of document.querySelectorAll(".grid")) {
      const images = [...figure.querySelectorAll("img")];
      // The latest that is not from after this step; before the first one, the first.
      const shown = images.filter((image) => image.dataset.step <= step).pop() ?? images[0];
      for (const image of images) image.hidden = image !== shown;
      const own = Number(shown.dataset.step);
      figure.querySelector(".grid-step").textContent = "step " + own.toLocaleString("en");
    }
  };
  slider.addEventListener("input", show);
  bar.hidden = false;
  show();
}
"""
